"""Moments of the patches of a picture, or of whole pictures; of large pictures band by band.

What the moments are taken of, four maps of a picture's size, is then never held whole. Where a gradient is asked for it
is: the backward pass needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import nss
from .color import working
from .rows import BAND, budget

Shifts = Sequence[tuple[int, int]]


def patch_moments(
    gray: Tensor, dtype: torch.dtype, shifts: Shifts, patch: int
) -> tuple[nss.Moments, nss.Moments, Tensor]:
    """Moments of each patch of pictures whose border is replicated.

    Args:
        gray: (N, H, W) from 0 to 255, whose sides are multiples of ``patch``.
        dtype: that the normalized luminance is kept in.
        shifts: S steps to a neighbor, as for ``nss.moments``.
        patch: side of the patches in pixels.

    Returns:
        Of the values themselves, tensors (T,), of the products, tensors (S, T), with the T patches picture by picture
        and row by row; and the mean of the local deviation over each patch, (T,).

    Example:
        >>> own, pairs, deviation = patch_moments(255 * torch.rand(1, 16, 24), torch.float32, [(0, 1)], patch=8)
        >>> own.absolute.shape, pairs.absolute.shape, deviation.shape
        (torch.Size([6]), torch.Size([1, 6]), torch.Size([6]))
    """
    padded = nss.pad(gray, "replicate")
    if _whole(gray):
        return _patches(padded, dtype, shifts, patch)

    height = gray.shape[1]
    step = max(1, BAND // (gray.shape[2] * patch)) * patch
    bands = [
        _patches(picture[:, top : min(height, top + step) + 6], dtype, shifts, patch)
        for picture in padded.split(1)
        for top in range(0, height, step)
    ]
    own, pairs, deviation = zip(*bands, strict=True)
    return _join(own), _join(pairs), torch.cat(deviation)


def picture_moments(gray: Tensor, dtype: torch.dtype, shifts: Shifts) -> tuple[nss.Moments, nss.Moments]:
    """Moments of whole pictures (N, H, W) beyond whose border are zeros, (N,) and (S, N); else as ``patch_moments``."""
    padded = nss.pad(gray, "zero")
    if _whole(gray):
        return nss.moments(nss.normalize_padded(padded, dtype), shifts)
    sums = torch.cat([_sums(picture, dtype, shifts) for picture in padded.split(1)], -1)
    pixels = gray.shape[1] * gray.shape[2]
    return nss.to_moments(sums[0], pixels), nss.to_moments(sums[1:], pixels)


def _whole(gray: Tensor) -> bool:
    """Whether pictures are taken whole: small ones, and where a gradient, a graph or a GPU's speed is asked for."""
    return torch.compiler.is_compiling() or gray.is_cuda or gray.requires_grad or gray.numel() <= BAND


def _patches(padded: Tensor, dtype: torch.dtype, shifts: Shifts, patch: int) -> tuple[nss.Moments, nss.Moments, Tensor]:
    maps = nss.tiles(nss.normalize_padded(padded, dtype), patch)
    return *nss.moments(maps, shifts), maps[3].mean((1, 2))


def _join(parts: Sequence[nss.Moments]) -> nss.Moments:
    return nss.Moments(
        absolute=torch.cat([part.absolute for part in parts], -1),
        left=torch.cat([part.left for part in parts], -1),
        right=torch.cat([part.right for part in parts], -1),
        count_left=torch.cat([part.count_left for part in parts], -1),
        count_right=torch.cat([part.count_right for part in parts], -1),
        pixels=parts[0].pixels,
    )


def _sums(padded: Tensor, dtype: torch.dtype, shifts: Shifts) -> Tensor:
    """The sums (S + 1, 5, 1) of one picture (1, H + 6, W + 6), whose last row neighbors its first."""
    height, width = padded.shape[1] - 6, padded.shape[2] - 6
    step = max(8, budget(padded) // width)  # as many rows as are summed at a time where the maps are whole
    band = max(1, BAND // (width * step)) * step
    first, last = nss.normalize_padded(padded[:, :7], dtype), nss.normalize_padded(padded[:, height - 1 :], dtype)

    total = working(padded.new_zeros(len(shifts) + 1, 5, 1))
    for top in range(0, height, band):
        bottom = min(height, top + band)
        own = nss.normalize_padded(padded[:, max(0, top - 1) : min(height, bottom + 1) + 6], dtype)
        rows = [*([last] if top == 0 else []), own, *([first] if bottom == height else [])]
        maps = torch.cat(rows, 2)[:3]  # (3, 1, bottom - top + 2, W)
        for row in range(0, bottom - top, step):
            total += working(nss.sums(maps[:, :, row : row + step + 2], shifts))
    return total
