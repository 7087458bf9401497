"""Luma, and the precision in which hand-crafted metrics compute."""

from __future__ import annotations

from torch import Tensor

LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray


def working(x: Tensor) -> Tensor:
    """Convert to the precision for statistics: float64, or float32 on devices without it."""
    return x.float() if x.device.type == "mps" else x.double()


def luma(rgb: Tensor) -> Tensor:
    """Return MATLAB's ``rgb2gray`` (N, H, W) of (N, 3, H, W), not rounded, on the input's scale.

    Example:
        >>> import torch
        >>> red, green, blue = torch.eye(3)[:, :, None, None]
        >>> torch.cat([luma(color[None]) for color in (red, green, blue)]).flatten()
        tensor([0.2989, 0.5870, 0.1140])
    """
    red, green, blue = rgb.unbind(1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
