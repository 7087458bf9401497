"""Luma, and the precision in which hand-crafted metrics compute."""

from __future__ import annotations

from torch import Tensor

LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray


def working(x: Tensor) -> Tensor:
    """Convert to the precision for statistics: float64, or float32 on devices without it."""
    return x.float() if x.device.type == "mps" else x.double()


def luma(rgb: Tensor) -> Tensor:
    """Return MATLAB's ``rgb2gray`` (N, H, W) of (N, 3, H, W), not rounded, on the input's scale."""
    red, green, blue = rgb.unbind(1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
