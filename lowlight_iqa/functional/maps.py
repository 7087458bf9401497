"""Local values brought to a picture's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def spread(local: Tensor, size: Sequence[int], like: Tensor | None = None) -> Tensor:
    """Interpolate maps (N, C, h, w) to a size (H, W), bilinear, and keep each map's mean.

    Args:
        local: the maps.
        size: the new height and width.
        like: maps (N, C, ..., ...) whose means are kept instead.
    """
    large = F.interpolate(local, size=tuple(size), mode="bilinear", align_corners=False)
    wanted = (local if like is None else like).mean((2, 3), keepdim=True)
    return large + (wanted - large.mean((2, 3), keepdim=True))


def tile(blocks: Tensor, block: int, size: Sequence[int]) -> Tensor:
    """Lay the values (N, h, w) of square blocks out over a picture (N, H, W).

    Pixels beyond the last block have the value of the block beside them.
    """
    height, width = size
    rows = F.pad(blocks.repeat_interleave(block, 1), (0, 0, 0, max(0, height - block * blocks.shape[1])), "replicate")
    whole = rows.repeat_interleave(block, 2)
    whole = F.pad(whole, (0, max(0, width - whole.shape[2]), 0, 0), "replicate")
    return whole[:, :height, :width]
