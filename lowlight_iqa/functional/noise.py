"""Noise estimation by the deviation from a plane, over a whole picture or its homogeneous parts.

References:
    Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 1996: the mask.
    Liu, Szeliski, Kang, Zitnick, Freeman, "Automatic estimation and removal of noise from a single image", TPAMI 2008:
    noise depends on the gray level and is measured in the least varied parts of each level.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TO_DEVIATION = math.sqrt(math.pi / 2) / 6  # standard deviation of white noise over its mean |response|
BLOCK = 8
LEVELS = 8  # gray-level classes with equal numbers of blocks
SHARE = 0.03  # of a level's blocks that are measured: those with the least structure


def residual(gray: Tensor) -> Tensor:
    """Filter (N, H, W) with the mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]] to (N, H-2, W-2); a plane gives zero.

    Example:
        >>> residual(torch.arange(16.0).reshape(1, 4, 4))
        tensor([[[0., 0.],
                 [0., 0.]]])
    """
    vertical = gray[:, :-2] - 2 * gray[:, 1:-1] + gray[:, 2:]
    return vertical[:, :, :-2] - 2 * vertical[:, :, 1:-1] + vertical[:, :, 2:]


def homogeneous_noise(gray: Tensor) -> Tensor:
    """Estimate the noise's standard deviation (N,) of (N, H, W) outside of texture, on the input's scale.

    The picture's blocks are sorted into eight gray levels. Of each level, the blocks with the smallest gradient after
    smoothing are selected (smoothed, so that noise does not affect the selection), and the median of their deviations
    is the level's. The result is the median over the levels, so a clipped sky or a black background without noise
    counts as one level only.

    Example:
        >>> noise = 4 * torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
        >>> round(homogeneous_noise(128 + noise).item())
        4
    """
    block = min(BLOCK, gray.shape[1] - 2, gray.shape[2] - 2)
    smooth = F.avg_pool2d(gray[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    across = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    down = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    structure = (across.square() + down.square()).sqrt()

    stack = torch.stack([residual(gray).abs(), structure, gray[:, 1:-1, 1:-1]], 1)
    noise, structure, level = F.avg_pool2d(stack, block).flatten(2).unbind(1)  # (N, blocks) each

    medians = []
    for members in level.argsort(dim=1, stable=True).tensor_split(min(LEVELS, level.shape[1]), 1):
        count = max(1, int(SHARE * members.shape[1]))
        flattest = structure.gather(1, members).argsort(dim=1, stable=True)[:, :count]
        medians.append(noise.gather(1, members.gather(1, flattest)).quantile(0.5, dim=1))
    return TO_DEVIATION * torch.stack(medians, 1).quantile(0.5, dim=1)
