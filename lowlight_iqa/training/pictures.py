"""Shared by the recipes: the initial trunk, pictures in memory, crops, and agreement with people's scores."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ..backbones import CompactTrunk, load_imagenet
from ..data import Rated
from ..evaluation.correlation import plcc, srcc
from ..functional.resize import SHORT_SIDE, reduce
from ..images import read_image
from ..registry import create_metric
from . import degradations


def starting_trunk(name: str, initial: str) -> CompactTrunk:
    """Return the trunk that training starts from: ImageNet's, or that of a bundled metric or of a training's directory.

    Several sources in ``initial``, separated by commas, give the mean of their weights (Wortsman et al., ICML 2022);
    they must have been trained from one trunk.

    Raises:
        ValueError: no such metric, or one with another trunk.
        ModuleNotFoundError: the package with the ImageNet weights is not installed.
    """
    if not initial:
        return load_imagenet(name)

    trunk, *others = (_trunk_of(name, source) for source in initial.split(","))
    for parameters in zip(trunk.parameters(), *(other.parameters() for other in others), strict=True):
        parameters[0].data = torch.stack(parameters).mean(0)
    return trunk.requires_grad_(True)


def _trunk_of(name: str, source: str) -> CompactTrunk:
    """Return the trunk of a bundled metric, or of one in a directory."""
    config = Path(source) / "config.json"
    if config.is_file():
        metric = create_metric(json.loads(config.read_text())["card"]["name"], weights=source)
    else:
        metric = create_metric(source)

    network = getattr(metric, "network", None)
    trunk = getattr(getattr(network, "tower", network), "trunk", None)  # bmqa's trunk is inside its tower
    if not isinstance(trunk, CompactTrunk):
        raise ValueError(f"{source} has no compact trunk to start from; give leiq, iaca or bmqa")
    if trunk.name != name:
        raise ValueError(
            f"{source} has the trunk {trunk.name!r}, not {name!r}; use {trunk.name} (--trunk, --tower, --backbone)"
        )
    return trunk


class Album:
    """Decoded pictures by path, as bytes, their shorter side at most ``side``; up to ``limit`` bytes are cached."""

    def __init__(self, limit: int = 4 << 30, side: int = SHORT_SIDE) -> None:
        self._side = side
        # Bytes: small allocations of arrays would split the heap, at six times the memory.
        self._cached: dict[Path, tuple[bytes, tuple[int, ...]]] = {}
        self._room = limit

    def __call__(self, path: Path) -> np.ndarray:
        """Return a picture (H, W, 3)."""
        if path not in self._cached:
            picture = degradations.to_uint8(reduce(read_image(path)[None], self._side)[0])
            if picture.nbytes > self._room:
                return picture
            self._cached[path] = picture.tobytes(), picture.shape
            self._room -= picture.nbytes
        values, shape = self._cached[path]
        return np.frombuffer(values, np.uint8).reshape(shape)

    def tensor(self, path: Path) -> Tensor:
        """Return a picture (1, 3, H, W) in [0, 1]."""
        return to_tensor([self(path)])


def to_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """Stack 8-bit pictures (H, W, 3) of one size to a batch (N, 3, H, W) in [0, 1]."""
    return rearrange(torch.from_numpy(np.stack(pictures)), "n h w c -> n c h w").float() / 255


def random_crop(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a crop of at most ``size`` on a side, mirrored half of the time: neither changes the quality."""
    height, width = picture.shape[:2]
    top, left = (int(rng.integers(0, max(0, side - size) + 1)) for side in (height, width))
    crop = picture[top : top + size, left : left + size]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def random_view(
    picture: np.ndarray, size: int, rng: np.random.Generator, *, wider: float = 0.0, recoded: float = 0.0
) -> np.ndarray:
    """Return a random crop (size, size, 3), perhaps reduced or saved as a JPEG: too little to change its quality.

    A share ``wider`` of the crops is larger, up to the whole picture, and reduced to ``size``; a share ``recoded`` is
    saved as a JPEG of quality 85 to 97 and read again.
    """
    largest = min(picture.shape[:2])
    side = int(rng.integers(size, largest + 1)) if rng.random() < wider and largest > size else size
    crop = np.ascontiguousarray(random_crop(picture, side, rng))
    if side > size:
        crop = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR))  # antialiased
    if rng.random() < recoded:
        crop = degradations.recoded(crop, int(rng.integers(85, 98)))
    return crop


def agreement(scores: np.ndarray, rated: Sequence[Rated]) -> dict[str, float]:
    """Return SRCC and raw PLCC with people's scores, and the SRCC on the dark and on the bright pictures."""
    mos = np.array([item.mos for item in rated])
    dark = np.array([item.dark for item in rated])
    figures = {"srcc": srcc(scores, mos), "plcc": plcc(scores, mos)}
    for name, part in (("dark", dark), ("bright", ~dark)):
        if part.sum() > 2:
            figures[f"srcc_{name}"] = srcc(scores[part], mos[part])
    return figures
