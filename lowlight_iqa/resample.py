"""Resizing that equals MATLAB's ``imresize``: bicubic, antialiased, symmetric at the border, differentiable."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def imresize(x: Tensor, scale: float) -> Tensor:
    """Resize as MATLAB's ``imresize(x, scale)`` does a double image: bicubic, antialiased when it shrinks.

    The result is not rounded or clipped: the official NIQE and BRISQUE codes resize double images, so nothing of
    MATLAB's rounding of uint8 pictures belongs here.

    Args:
        x: (..., H, W), floating point.
        scale: factor for both sides, above 0; the new sides are rounded up.

    Returns:
        (..., ceil(H * scale), ceil(W * scale)), with gradient.

    Raises:
        TypeError: x is not floating point.
        ValueError: the scale is not above 0, or x has fewer than two dimensions.

    Source: R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981, eq. 15,
        with the kernel stretched by 1 / scale when shrinking.
    """
    if not x.is_floating_point():
        raise TypeError(f"imresize takes a floating-point tensor, not {x.dtype}; convert it first")
    if x.ndim < 2:
        raise ValueError(f"imresize takes (..., H, W), not {tuple(x.shape)}")
    if not scale > 0 or math.isinf(scale):
        raise ValueError(f"the scale must be a finite number above 0, not {scale}")
    if scale == 0.5:
        return _halve(_halve(x, -2), -1)
    return _resize_side(_resize_side(x, -2, scale), -1, scale)


def _keys(x: Tensor) -> Tensor:
    """Keys' cubic kernel, a = -0.5."""
    a = x.abs()
    near = (1.5 * a - 2.5) * a * a + 1
    far = ((-0.5 * a + 2.5) * a - 4) * a + 2
    return torch.where(a <= 1, near, torch.where(a <= 2, far, torch.zeros_like(a)))


def _taps(length: int, scale: float) -> tuple[Tensor, Tensor]:
    """Which source pixels each output pixel sums and their weights: indices and weights (outputs, taps)."""
    outputs = math.ceil(length * scale)
    shrink = min(scale, 1.0)
    width = 4 / shrink
    center = (torch.arange(outputs, dtype=torch.float64) + 0.5) / scale - 0.5
    first = torch.floor(center - width / 2)
    index = first[:, None] + torch.arange(math.ceil(width) + 2)
    weight = _keys(shrink * (center[:, None] - index))
    weight = weight / weight.sum(1, keepdim=True)
    used = (weight != 0).any(0)
    index, weight = index[:, used].long() % (2 * length), weight[:, used]
    return torch.minimum(index, 2 * length - 1 - index), weight  # mirrored at both borders


def _resize_side(x: Tensor, dim: int, scale: float) -> Tensor:
    index, weight = _taps(x.shape[dim], scale)
    index, weight = index.to(x.device), weight.to(x.device, x.dtype)
    shape = [1] * x.ndim
    shape[dim] = -1
    out: Tensor | None = None
    for column, factor in zip(index.T, weight.T, strict=True):
        part = x.index_select(dim, column) * factor.view(shape)
        out = part if out is None else out + part
    if out is None:
        raise ValueError(f"imresize of an empty tensor {tuple(x.shape)}")
    return out


# Keys' kernel stretched by two, at 1/4, 3/4, 5/4 and 7/4 of its unit on either side of the new pixel's center.
_HALF = (0.43359375, 0.11328125, -0.03515625, -0.01171875)


def _halve(x: Tensor, dim: int) -> Tensor:
    """``_resize_side(x, dim, 0.5)`` with strided slices, as every tap is the same for all pixels."""
    length = x.shape[dim]
    outputs = (length + 1) // 2
    order = torch.arange(-3, 2 * outputs + 3, device=x.device) % (2 * length)
    padded = x.index_select(dim, torch.minimum(order, 2 * length - 1 - order))
    out: Tensor | None = None
    for distance, factor in enumerate(_HALF):
        left = padded.narrow(dim, 3 - distance, 2 * outputs - 1)
        right = padded.narrow(dim, 4 + distance, 2 * outputs - 1)
        stride = [slice(None)] * x.ndim
        stride[dim] = slice(None, None, 2)
        part = (left[tuple(stride)] + right[tuple(stride)]) * factor
        out = part if out is None else out + part
    return x if out is None else out
