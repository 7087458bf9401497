"""Color and precision: what every hand-crafted metric starts with."""

from __future__ import annotations

from torch import Tensor

LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray


def working(x: Tensor) -> Tensor:
    """The tensor in the precision that statistics are taken in: float64 wherever the device has it."""
    return x.float() if x.device.type == "mps" else x.double()


def luma(rgb: Tensor) -> Tensor:
    """MATLAB's ``rgb2gray`` of (N, 3, H, W), not rounded: (N, H, W) on the input's scale."""
    red, green, blue = rgb.unbind(1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
