"""Noise estimation: what a plane cannot explain, over a whole picture or where the picture is homogeneous.

References:
    Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 1996: the mask.
    Liu, Szeliski, Kang, Zitnick, Freeman, "Automatic estimation and removal of noise from a single image", TPAMI 2008:
    noise depends on the gray level and is read off the least varied parts of each level.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TO_DEVIATION = math.sqrt(math.pi / 2) / 6  # mean |response| of white noise of deviation 1, inverted
BLOCK = 8
LEVELS = 8  # classes of gray level, each with as many blocks
SHARE = 0.05  # of a level's blocks that are looked at: those with the least structure


def residual(gray: Tensor) -> Tensor:
    """Response (N, H-2, W-2) of (N, H, W) to the mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]; a plane gives zero."""
    vertical = gray[:, :-2] - 2 * gray[:, 1:-1] + gray[:, 2:]
    return vertical[:, :, :-2] - 2 * vertical[:, :, 1:-1] + vertical[:, :, 2:]


def homogeneous_noise(gray: Tensor) -> Tensor:
    """Standard deviation of the noise (N,) of (N, H, W), measured where texture is not; on the input's scale.

    The picture's blocks are sorted into eight gray levels; of each level the blocks with the smallest gradient after
    smoothing are kept, so that noise does not choose them, and the median of their deviations is the level's. The
    median over the levels is returned: a clipped sky or a black background, which have no noise, are one level each.
    """
    block = min(BLOCK, gray.shape[1] - 2, gray.shape[2] - 2)
    smooth = F.avg_pool2d(gray[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    across = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    down = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    structure = (across.square() + down.square()).sqrt()

    stack = torch.stack([residual(gray).abs(), structure, gray[:, 1:-1, 1:-1]], 1)
    noise, structure, level = F.avg_pool2d(stack, block).flatten(2).unbind(1)  # (N, blocks) each
    found = []
    for members in level.argsort(dim=1, stable=True).tensor_split(min(LEVELS, level.shape[1]), 1):
        count = max(1, int(SHARE * members.shape[1]))
        calm = structure.gather(1, members).argsort(dim=1, stable=True)[:, :count]
        found.append(noise.gather(1, members.gather(1, calm)).quantile(0.5, dim=1))
    return TO_DEVIATION * torch.stack(found, 1).quantile(0.5, dim=1)
