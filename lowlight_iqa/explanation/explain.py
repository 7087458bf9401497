"""The content of an explanation, computed once for both the page and the figure."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..card import Card
from ..images import read_image
from ..metric import Assessment, Metric

MAX_SIDE = 1280  # pixels of the displayed picture's longer side
MAX_OPACITY = 0.75  # of a map, where it is worst


@dataclass(frozen=True)
class Layer:
    """A map over the picture."""

    name: str
    badness: np.ndarray  # (h, w) in [0, 1]: 1 at the worst 2 % of the pixels, 0 at the best 2 %
    worst: float  # the map's values there
    best: float
    value: float | None = None  # the attribute or the score


@dataclass(frozen=True)
class Explanation:
    """One picture with a metric's assessment and maps."""

    name: str  # of the file
    picture: np.ndarray  # (h, w, 3) bytes
    size: tuple[int, int]  # width and height of the scored picture
    card: Card
    result: Assessment
    layers: tuple[Layer, ...]  # the score's first
    words: tuple[Layer, ...]  # attention of a caption's words; 1 is the strongest
    source: str  # description of the maps


def explain(path: str | Path, metric: Metric) -> Explanation:
    """Assess one picture and prepare its display.

    Raises:
        TypeError, ValueError, OSError: no such picture, or one that the metric refuses.
    """
    pixels = read_image(path)
    result = metric.assess(metric.preprocess(pixels).to(metric.device))

    layers = []
    if result.map is not None:
        layers.append(_layer("score", result.map, metric.card.lower_better, result.score))
    layers += [_layer(name, local, False, result.attributes.get(name)) for name, local in result.maps.items()]
    words = [_layer(word, attention, True, None) for word, attention in result.words if word.isalpha()]

    documented = inspect.getdoc(type(metric).maps_batch) or ""
    return Explanation(
        name=Path(path).name,
        picture=_to_bytes(pixels),
        size=(pixels.shape[2], pixels.shape[1]),
        card=metric.card,
        result=result,
        layers=tuple(layers),
        words=tuple(words),
        source=documented.split("\n\n")[0].replace("\n", " ").replace("*", "") if layers else "",
    )


def _layer(name: str, local: Tensor, larger_is_worse: bool, value: float | None) -> Layer:
    """Scale a map (H, W) to badness between its 2nd and 98th percentile."""
    values = _reduced(local.float().cpu()[None])[0].numpy()
    low, high = np.percentile(values, [2, 98])
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    if larger_is_worse:
        return Layer(name, share, float(high), float(low), value)
    return Layer(name, 1 - share, float(low), float(high), value)


def _to_bytes(pixels: Tensor) -> np.ndarray:
    """Reduce a picture (3, H, W) for display: (h, w, 3) bytes."""
    small = _reduced(pixels.float().cpu()).clamp(0, 1)
    levels = rearrange((small * 255).round().to(torch.uint8), "c h w -> h w c")
    return np.ascontiguousarray(levels.numpy())


def _reduced(x: Tensor) -> Tensor:
    """Reduce (C, H, W) to a longer side of at most ``MAX_SIDE``."""
    longer = max(x.shape[1:])
    if longer <= MAX_SIDE:
        return x
    size = tuple(max(1, round(side * MAX_SIDE / longer)) for side in x.shape[1:])
    return F.interpolate(x[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def colored(badness: np.ndarray) -> np.ndarray:
    """Color a map as RGBA bytes (h, w, 4): transparent where the picture is best, yellow where it is worst."""
    import matplotlib

    rgba = matplotlib.colormaps["inferno"](0.25 + 0.7 * badness)
    rgba[..., 3] = MAX_OPACITY * badness**0.8
    return np.asarray((rgba * 255).round().astype(np.uint8))
