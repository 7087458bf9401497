"""Resizing equal to MATLAB's ``imresize``: bicubic, antialiased, symmetric at the border, differentiable.

``torch.nn.functional.interpolate`` does not mirror at the border and rounds sizes down, so NIQE's and BRISQUE's
published scores cannot be reproduced with it.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .exportable import exporting
from .rows import in_rows

SHORT_SIDE = 512  # larger pictures are reduced to it: the learned metrics were trained on pictures of this size


def imresize(x: Tensor, scale: float | None = None, *, size: tuple[int, int] | None = None) -> Tensor:
    """Resize as MATLAB's ``imresize`` resizes a double image: bicubic, antialiased when shrinking.

    The result is neither rounded nor clipped: the official NIQE and BRISQUE codes resize double images.

    Args:
        x: (..., H, W), floating point.
        scale: factor for both sides, above 0; the new sides are rounded up.
        size: the new (height, width) instead.

    Returns:
        The resized tensor, with gradient.

    Raises:
        TypeError: x is not floating point.
        ValueError: a scale or size that is not above 0, both or neither of them, or fewer than two dimensions.

    Source: R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981, eq. 15,
        with the kernel stretched by 1 / scale when shrinking.

    Example:
        >>> imresize(torch.ones(1, 3, 101, 64), 0.5).shape
        torch.Size([1, 3, 51, 32])
    """
    if not x.is_floating_point():
        raise TypeError(f"imresize takes a floating-point tensor, not {x.dtype}; convert it first")
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"imresize takes (..., H, W) with pixels, not {tuple(x.shape)}")
    if (scale is None) == (size is None):
        raise ValueError("give imresize either a scale or a size")
    if scale is not None:
        if not scale > 0 or math.isinf(scale):
            raise ValueError(f"the scale must be a finite number above 0, not {scale}")
        if scale == 0.5:
            return _halve(x)
        height, width = (math.ceil(side * scale) for side in x.shape[-2:])
        return _resize_side(_resize_side(x, -2, height, scale), -1, width, scale)

    height, width = size or (0, 0)
    if height < 1 or width < 1:
        raise ValueError(f"the size must be two whole numbers above 0, not {size}")
    x = _resize_side(x, -2, height, height / x.shape[-2])
    return _resize_side(x, -1, width, width / x.shape[-1])


def _keys(x: Tensor) -> Tensor:
    """Return Keys' cubic kernel, a = -0.5."""
    a = x.abs()
    near = (1.5 * a - 2.5) * a * a + 1
    far = ((-0.5 * a + 2.5) * a - 4) * a + 2
    return torch.where(a <= 1, near, torch.where(a <= 2, far, torch.zeros_like(a)))


def _taps(length: int, outputs: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return indices and weights (outputs, taps) of the source pixels that each output pixel sums."""
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


def _resize_side(x: Tensor, dim: int, outputs: int, scale: float) -> Tensor:
    index, weight = _taps(x.shape[dim], outputs, scale)
    index, weight = index.to(x.device), weight.to(x.device, x.dtype)
    shape = [1] * x.ndim
    shape[dim] = -1
    parts = (x.index_select(dim, column) * factor.view(shape) for column, factor in zip(index.T, weight.T, strict=True))
    out: Tensor = functools.reduce(torch.add, parts)
    return out


# Keys' kernel stretched by two, at 1/4, 3/4, 5/4 and 7/4 of its unit on either side of the new pixel's center.
_HALF = (0.43359375, 0.11328125, -0.03515625, -0.01171875)


def _halve(x: Tensor) -> Tensor:
    """Halve (..., H, W) as ``imresize`` does, with taps that are the same for all pixels."""
    rows, columns = (_mirrored(length, x.device) for length in x.shape[-2:])
    flat = x.reshape(-1, *x.shape[-2:]).index_select(1, rows)
    halved = in_rows(lambda part: (_fold(_fold(part.index_select(2, columns), 1), 2),), flat, halo=6, stride=2)
    return halved.view(*x.shape[:-2], *halved.shape[-2:])


def _mirrored(length: int, device: torch.device) -> Tensor:
    """Indices of a side mirrored at both borders, three pixels beyond each, and one more beyond an odd length."""
    order = torch.arange(-3, length + length % 2 + 3, device=device)
    order = order % torch.full((), 2 * length, device=device)  # a tensor, as ONNX needs
    return torch.minimum(order, 2 * length - 1 - order)


def _fold(x: Tensor, dim: int) -> Tensor:
    """Halve one side of (N, 2 H + 6, W) or (N, H, 2 W + 6)."""
    phases: list[Tensor] = [phase.contiguous() for phase in x.unflatten(dim, (-1, 2)).unbind(dim + 1)]
    size = x.shape[dim] // 2 - 3

    def tap(offset: int) -> Tensor:
        return phases[offset % 2].narrow(dim, offset // 2, size)

    out: Tensor = (tap(3) + tap(4)) * _HALF[0]
    for k in (1, 2, 3):
        out.add_(tap(3 - k) + tap(4 + k), alpha=_HALF[k])
    return out


def reduce(x: Tensor, short_side: int) -> Tensor:
    """Reduce pictures (N, 3, H, W) with a larger shorter side to ``short_side``, bilinear and antialiased.

    Example:
        >>> reduce(torch.rand(1, 3, 600, 800), 300).shape
        torch.Size([1, 3, 300, 400])
        >>> reduce(torch.rand(1, 3, 200, 800), 300).shape
        torch.Size([1, 3, 200, 800])
    """
    height, width = x.shape[2:]
    shorter = torch.sym_min(height, width)
    if exporting():  # a graph for all sizes has no branch; a size that stays gives the same picture
        shorter = torch.sym_max(shorter, short_side)
    elif shorter <= short_side:
        return x

    # round(side * short_side / shorter), half to even, in whole numbers
    size = []
    for side in (height, width):
        whole, rest = side * short_side // shorter, side * short_side % shorter
        size.append(whole + (2 * rest + whole % 2 - 1 + shorter) // (2 * shorter))
    return F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
