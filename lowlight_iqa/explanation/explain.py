"""What is shown of one picture: gathered once, for the page and the figure alike."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..card import Card
from ..images import read_image
from ..metric import Assessment, Metric

LONGEST = 1280  # pixels of the shown picture's longer side
OPAQUE = 0.75  # of a map, where it is worst


@dataclass(frozen=True)
class Layer:
    """A map over the picture."""

    name: str
    badness: np.ndarray  # (h, w) in [0, 1]: 1 is the worst 2 % of the picture's places, 0 the best 2 %
    worst: float  # the map's own values there
    best: float
    value: float | None = None  # the attribute's, or the score


@dataclass(frozen=True)
class Explanation:
    """One picture, what a metric says of it, and where."""

    name: str  # of the file
    picture: np.ndarray  # (h, w, 3) bytes
    size: tuple[int, int]  # width and height of the picture that was scored
    card: Card
    result: Assessment
    layers: tuple[Layer, ...]  # the score's first
    words: tuple[Layer, ...]  # where a caption's words were found; 1 is where most
    source: str  # what the maps are


def explain(path: str | Path, metric: Metric) -> Explanation:
    """Assess one picture and prepare what is shown of it.

    Raises:
        TypeError, ValueError, OSError: no such picture, or not one that the metric takes.
    """
    pixels = read_image(path)
    result = metric.assess(metric.preprocess(pixels).to(metric.device))

    layers = []
    if result.map is not None:
        layers.append(_layer("score", result.map, metric.card.lower_better, result.score))
    layers += [_layer(name, found, False, result.attributes.get(name)) for name, found in result.maps.items()]
    words = [_layer(word, found, True, None) for word, found in result.words if word.isalpha()]

    documented = inspect.getdoc(type(metric).maps_batch) or ""
    return Explanation(
        name=Path(path).name,
        picture=_shown(pixels),
        size=(pixels.shape[2], pixels.shape[1]),
        card=metric.card,
        result=result,
        layers=tuple(layers),
        words=tuple(words),
        source=documented.split("\n\n")[0].replace("\n", " ").replace("*", "") if layers else "",
    )


def _layer(name: str, found: Tensor, larger_is_worse: bool, value: float | None) -> Layer:
    """Scale a map (H, W) to badness: the 2nd and the 98th percentile are the ends."""
    local = _limited(found.float().cpu()[None])[0].numpy()
    low, high = np.percentile(local, [2, 98])
    share = np.clip((local - low) / max(high - low, 1e-12), 0, 1)
    if larger_is_worse:
        return Layer(name, share, float(high), float(low), value)
    return Layer(name, 1 - share, float(low), float(high), value)


def _shown(pixels: Tensor) -> np.ndarray:
    small = _limited(pixels.float().cpu()).clamp(0, 1)
    bytes_ = (small * 255).round().to(torch.uint8).permute(1, 2, 0)
    return np.ascontiguousarray(bytes_.numpy())


def _limited(x: Tensor) -> Tensor:
    """(C, H, W) with its longer side at most ``LONGEST``."""
    longer = max(x.shape[1:])
    if longer <= LONGEST:
        return x
    size = tuple(max(1, round(side * LONGEST / longer)) for side in x.shape[1:])
    return F.interpolate(x[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def colored(badness: np.ndarray) -> np.ndarray:
    """RGBA bytes (h, w, 4) of a map: clear where the picture is best, yellow where it is worst."""
    import matplotlib

    rgba = matplotlib.colormaps["inferno"](0.25 + 0.7 * badness)
    rgba[..., 3] = OPAQUE * badness**0.8
    return np.asarray((rgba * 255).round().astype(np.uint8))
