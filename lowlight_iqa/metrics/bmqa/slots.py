"""The five slots of a description: their words, and the measurements that choose among them."""

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
    """One property in a description such as MLE's: one of the words, ordered from worst to best, before a noun."""

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
    """Find the slots that a text fills; return the level of each word, from worst (0) to best."""
    levels = {}
    for name, slot in SLOTS.items():
        match = re.search(rf"\b({'|'.join(slot.words)})\s+{slot.noun}\b", text.lower())
        if match:
            levels[name] = slot.words.index(match[1])
    return levels


def plain_sentence(levels: Mapping[str, int]) -> str:
    """Describe the slots in MLE's template; the appearance may be missing."""
    phrases = {name: f"{slot.words[levels[name]]} {slot.noun}" for name, slot in SLOTS.items() if name in levels}
    appearance = phrases.pop("appearance", None)
    *first, last = phrases.values()
    text = f"The image has {', '.join(first)} and {last} conditions"
    if appearance:
        text += f", presenting {'an' if appearance.startswith('un') else 'a'} {appearance}"
    return f"{text}."


def measure(x: Tensor) -> dict[str, Tensor]:
    """Measure the first four slots of pictures (N, 3, H, W): numbers (N,), larger is better.

    Brightness: mean luma, 0 to 1. Contrast: colorfulness (Hasler and Suesstrunk). Noise: minus its standard deviation
    in homogeneous parts, so that texture does not count. Exposure: minus the share of burnt-out pixels, where a sample
    from 0.7 to 1 counts by ((sample - 0.7) / 0.3)^2.
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
    """Return the levels of the first four slots of one picture (1, 3, H, W), by the thresholds of their words."""
    return {name: int((value > value.new_tensor(rules[name])).sum()) for name, value in measure(x).items()}
