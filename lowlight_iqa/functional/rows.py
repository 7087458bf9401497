"""Compute a function of whole pictures some rows at a time, forward and backward.

Intermediate results then fit into the processor's cache and never exist for a whole picture: on a CPU this is several
times faster, and a large picture needs little memory. On a GPU all rows are computed at once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .once import once_differentiable

AT_A_TIME = 1 << 16  # pixels for each thread
BAND = 1 << 23  # pixels of a band; smaller pictures are one
BAND_ROWS = 16  # a band has a multiple of these


def budget(x: Tensor) -> int:
    """Return the number of pixels to work on at a time."""
    return x.numel() if x.is_cuda else AT_A_TIME * torch.get_num_threads()


def in_rows(function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, halo: int = 0, stride: int = 1) -> Tensor:
    """Compute maps of pictures and stack them.

    Args:
        function: differentiable, from rows (N, ..., stride * h + halo, W) to K maps (N, h, w) of these rows alone.
        x: (N, ..., stride * H + halo, W).
        halo: additional rows of x that the maps' border needs.
        stride: rows of x for each row of the maps.

    Returns:
        (K, N, H, w), differentiable once.
    """
    if torch.compiler.is_compiling():  # the compiler decides what is stored
        return torch.stack(function(x))
    return _InRows.apply(function, x, halo, stride)  # type: ignore[no-any-return,no-untyped-call]


def sum_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Sum a function of some rows (N, ..., h, W) at a time over all rows of x; differentiable once.

    Example:
        >>> sum_rows(lambda rows: rows.square().sum((1, 2)), torch.ones(2, 100, 10))
        tensor([1000., 1000.])
    """
    if torch.compiler.is_compiling():
        return function(x)
    return _SumRows.apply(function, x)  # type: ignore[no-any-return,no-untyped-call]


def in_bands(function: Callable[[Tensor], Tensor], x: Tensor, halo: int = 0) -> Tensor:
    """Map large pictures band by band, so that no copy of a whole one in float64 is held.

    These are plain operations, which autograd follows as often as it is asked to; where it records, it keeps what it
    needs of every band.

    Args:
        function: rows (N, 3, h + halo, W) to a map whose rows depend on nothing else, or on ``BAND_ROWS`` of them each.
        x: (N, 3, H + halo, W).
        halo: rows that a map's border needs beyond its own.

    Returns:
        The map (N, ..., w) of all rows.
    """
    if torch.compiler.is_compiling():
        return function(x)
    height = x.shape[-2] - halo
    step = max(1, BAND // (len(x) * x.shape[-1] * BAND_ROWS)) * BAND_ROWS
    if x.is_cuda or step >= height:
        return function(x)
    bands = (function(x[..., top : min(height, top + step) + halo, :]) for top in range(0, height, step))
    if torch.is_grad_enabled() and x.requires_grad:
        return torch.cat(list(bands), -2)

    # Filled in as they come: beside a list of all bands, the map would be held twice.
    first = next(bands)
    whole = first.new_empty(*first.shape[:-2], -(-height * first.shape[-2] // step), first.shape[-1])
    end = 0
    for band in itertools.chain([first], bands):
        start, end = end, end + band.shape[-2]
        whole[..., start:end, :] = band
    return whole


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(x)
        parts = (function(x[..., rows, :]) for rows, _ in _InRows.spans(x, 0, 1))
        return functools.reduce(torch.add, parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        total = torch.empty_like(x)
        for rows, _ in _InRows.spans(x, 0, 1):
            with torch.enable_grad():
                part = x[..., rows, :].detach().requires_grad_()
                (total[..., rows, :],) = torch.autograd.grad(ctx.function(part), part, grad)
        return None, total


class _InRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, halo: int, stride: int
    ) -> Tensor:
        ctx.function, ctx.halo, ctx.stride = function, halo, stride
        ctx.save_for_backward(x)
        out = x.new_empty(0)
        for to, source in _InRows.spans(x, halo, stride):
            maps = function(x[..., source, :])  # K of (N, h, w)
            if not out.numel():
                height = (x.shape[-2] - halo) // stride
                out = maps[0].new_empty(len(maps), len(x), height, maps[0].shape[-1])
            for index, rows in enumerate(maps):
                out[index, :, to] = rows
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        total = torch.zeros_like(x)
        for to, source in _InRows.spans(x, ctx.halo, ctx.stride):
            with torch.enable_grad():
                rows = x[..., source, :].detach().requires_grad_()
                maps = ctx.function(rows)
            pairs = [(part, grad[k, :, to]) for k, part in enumerate(maps) if part.requires_grad]
            outputs, weights = zip(*pairs, strict=True)
            total[..., source, :] += torch.autograd.grad(outputs, rows, weights)[0]
        return None, total, None, None

    @staticmethod
    def spans(x: Tensor, halo: int, stride: int) -> Iterator[tuple[slice, slice]]:
        """Yield rows of the maps and the rows of x that they are computed from."""
        height = (x.shape[-2] - halo) // stride
        step = max(8, budget(x) // (len(x) * x.shape[-1] * stride))
        for top in range(0, height, step):
            bottom = min(height, top + step)
            yield slice(top, bottom), slice(stride * top, stride * bottom + halo)
