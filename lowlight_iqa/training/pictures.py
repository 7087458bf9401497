"""What the recipes share: the trunk to start from, pictures in memory, crops, and agreement with people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backbones import CompactTrunk, load_imagenet
from ..correlation import plcc, srcc
from ..data.biq2021 import Rated
from ..images import read_image
from ..metrics.leiq import SHORT_SIDE, reduce
from ..registry import create_metric
from .degradations import to_uint8


def starting_trunk(name: str, initial: str) -> CompactTrunk:
    """A trunk to train on from: of ImageNet, or of a trained ``leiq``.

    Args:
        name: "lite0", "lite1" or "lite2".
        initial: empty for ImageNet; "leiq" for the bundled weights; else a directory of its weights.

    Raises:
        ValueError: that metric has another trunk.
        OSError: it is not there.
    """
    if not initial:
        return load_imagenet(name)
    network: Any = create_metric("leiq", weights=None if initial == "leiq" else initial).network
    if network.trunk_name != name:
        raise ValueError(
            f"{initial} has the trunk {network.trunk_name!r}, not {name!r}; give --trunk {network.trunk_name}"
        )
    trunk: CompactTrunk = network.trunk.requires_grad_(True)
    return trunk


class Album:
    """Pictures by path, decoded once and kept as bytes."""

    def __init__(self) -> None:
        self._kept: dict[Path, np.ndarray] = {}

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W, 3) bytes, the shorter side at most ``SHORT_SIDE``."""
        if path not in self._kept:
            self._kept[path] = to_uint8(reduce(read_image(path)[None], SHORT_SIDE)[0])
        return self._kept[path]


def to_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """Bytes (H, W, 3) of one size to a batch (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def random_crop(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A crop of at most ``size`` on a side, mirrored half of the time: neither changes the quality."""
    height, width = picture.shape[:2]
    top, left = (int(rng.integers(0, max(0, side - size) + 1)) for side in (height, width))
    cut = picture[top : top + size, left : left + size]
    return cut[:, ::-1] if rng.random() < 0.5 else cut


def agreement(scores: np.ndarray, rated: Sequence[Rated]) -> dict[str, float]:
    """SRCC and PLCC (raw) of scores with people's, and the SRCC of the dark and of the bright pictures alone."""
    mos = np.array([item.mos for item in rated])
    dark = np.array([item.dark for item in rated])
    figures = {"srcc": srcc(scores, mos), "plcc": plcc(scores, mos)}
    for name, part in (("dark", dark), ("bright", ~dark)):
        if part.sum() > 2:
            figures[f"srcc_{name}"] = srcc(scores[part], mos[part])
    return figures
