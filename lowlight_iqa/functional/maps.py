"""Enlarge maps of local values to a picture's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from einops import repeat
from torch import Tensor


def spread(local: Tensor, size: Sequence[int], like: Tensor | None = None) -> Tensor:
    """Interpolate maps (N, C, h, w) bilinearly to a size (H, W), preserving each map's mean.

    Args:
        local: the maps.
        size: the new height and width.
        like: maps (N, C, ..., ...) whose means the result has instead.

    Example:
        >>> import torch
        >>> large = spread(torch.tensor([[[[0.0, 1.0]]]]), (4, 6))
        >>> large.shape, large.mean().item()
        (torch.Size([1, 1, 4, 6]), 0.5)
    """
    large = F.interpolate(local, size=tuple(size), mode="bilinear", align_corners=False)
    mean = (local if like is None else like).mean((2, 3), keepdim=True)
    return large + (mean - large.mean((2, 3), keepdim=True))


def tile(blocks: Tensor, block: int, size: Sequence[int]) -> Tensor:
    """Expand the values (N, h, w) of square blocks to a picture (N, H, W).

    Pixels beyond the last block get the value of the block next to them.

    Example:
        >>> import torch
        >>> tile(torch.tensor([[[1, 2]]]), 2, (3, 5))[0]
        tensor([[1, 1, 2, 2, 2],
                [1, 1, 2, 2, 2],
                [1, 1, 2, 2, 2]])
    """
    height, width = size
    whole = repeat(blocks, "n h w -> n (h a) (w b)", a=block, b=block)
    below, right = max(0, height - whole.shape[1]), max(0, width - whole.shape[2])
    return F.pad(whole, (0, right, 0, below), "replicate")[:, :height, :width]
