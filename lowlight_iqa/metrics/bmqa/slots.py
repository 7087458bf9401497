"""The five slots of a description: their words, and the measurements that choose among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...functional.color import luma, working
from ...functional.noise import homogeneous_noise
from ...functional.resize import SHORT_SIDE, reduce
from ..colorfulness import colorfulness


@dataclass(frozen=True)
class Slot:
    """One thing that a description of MLE's kind says: a word of these, from worst to best, before a noun."""

    words: tuple[str, ...]
    noun: str


SLOTS = {
    "brightness": Slot(("dim", "moderate", "bright"), "brightness"),
    "contrast": Slot(("low", "medium", "high"), "color contrast"),
    "noise": Slot(("severe", "obvious", "slight"), "noise"),
    "exposure": Slot(("severe", "local", "well-controlled"), "exposure"),
    "appearance": Slot(("unnatural", "natural"), "appearance"),
}


def slots_of(text: str) -> dict[str, int]:
    """The slots that a text fills, each with its word's place from worst (0) to best."""
    found = {}
    for name, slot in SLOTS.items():
        match = re.search(rf"\b({'|'.join(slot.words)})\s+{slot.noun}\b", text.lower())
        if match:
            found[name] = slot.words.index(match[1])
    return found


def plain_sentence(levels: Mapping[str, int]) -> str:
    """A description of the slots in MLE's template; the appearance may be missing."""
    said = {name: f"{slot.words[levels[name]]} {slot.noun}" for name, slot in SLOTS.items() if name in levels}
    appearance = said.pop("appearance", None)
    *first, last = said.values()
    end = f", presenting {'an' if appearance.startswith('un') else 'a'} {appearance}" if appearance else ""
    return f"The image has {', '.join(first)} and {last} conditions{end}."


def measure(x: Tensor) -> dict[str, Tensor]:
    """What the first four slots are about, of pictures (N, 3, H, W): numbers (N,) that are larger where it is better.

    Brightness: mean luma, 0 to 1. Contrast: colorfulness (Hasler and Suesstrunk). Noise: minus its standard deviation
    where the picture is homogeneous (``homogeneous_noise``), so that texture is not taken for noise. Exposure: minus
    the share of burnt-out pixels, where a sample between 0.7 and 1 counts by the square of its way.
    """
    x = working(reduce(x, SHORT_SIDE))
    gray = luma(x)
    return {
        "brightness": gray.mean((1, 2)),
        "contrast": colorfulness(x),
        "noise": -homogeneous_noise(gray),
        "exposure": -((x.amax(1) - 0.7).clamp_min(0) / 0.3).square().mean((1, 2)),
    }


def levels_of(x: Tensor, rules: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """The first four slots of one picture (1, 3, H, W) by the thresholds."""
    return {name: int((value > value.new_tensor(rules[name])).sum()) for name, value in measure(x).items()}
