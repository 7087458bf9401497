"""The making of descriptions: MLE's five slots, worded as its raters word them, from quantities that are measured.

BIQ2021 has scores but no words. So brightness, color contrast, noise and exposure are measured
(``metrics.bmqa.measure``) and put into words by thresholds at which the words come as often, among random enhanced
low-light pictures, as they do in MLE's 800 descriptions; natural or unnatural follows from the score. Objects are left
out: nothing here sees them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from einops import rearrange

from ...functional.color import luma
from ...metrics.bmqa.slots import SLOTS
from ..degradations import RAMPS, Degradation, mixture, render, to_uint8

# How often MLE's raters used each word, from worst to best.
COUNTS = {
    "brightness": (117, 458, 225),
    "contrast": (155, 443, 202),
    "noise": (168, 361, 269),
    "exposure": (132, 319, 348),
    "appearance": (401, 390),
}

# What may be added to a slot's word, as MLE's raters add it; no objects.
REMARKS: dict[str, tuple[tuple[str, ...], ...]] = {
    "brightness": (
        (" with insufficient lighting", " with large areas in shadow", " and the details are hard to discern"),
        (" with some areas in shadow", " with no areas in shadow", ", the details are visible"),
        (" with all elements clearly visible", " with no shadowed areas", " and clear visibility"),
    ),
    "contrast": (
        (" with muted colors", " with washed out colors", ", the colors look pale and dull"),
        (" with harmonious colors", ", the colors look natural", " with somewhat muted colors"),
        (" with vibrant colors", " with rich and harmonious colors", " with highly saturated colors"),
    ),
    "noise": (
        (" around the image", " in most areas", ", obscuring the details"),
        (" in dark areas", " in some areas", " in the background"),
        ("", " in dark areas", " in some areas"),
    ),
    "exposure": (
        (" conditions in large areas", " in the light areas", " conditions, the details are lost"),
        (" conditions in some areas", " near the lights", " in the light areas"),
        (" conditions", " conditions throughout the image", " conditions"),
    ),
}

# The same in other words, for the text tower alone.
OTHERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "brightness": (
        ("dark", "very dark", "gloomy", "dim", "poorly lit", "underexposed"),
        ("moderately lit", "dusky", "of medium brightness", "fairly lit"),
        ("bright", "well lit", "light", "brightly lit"),
    ),
    "contrast": (
        ("gray", "dull colors", "faded colors", "pale colors", "flat colors", "hardly any color"),
        ("medium contrast", "fair colors", "ordinary colors", "moderate colors"),
        ("vivid colors", "rich colors", "vibrant colors", "strong colors", "good color"),
    ),
    "noise": (
        ("very noisy", "heavy noise", "severe noise", "strong grain", "a lot of noise", "extremely grainy"),
        ("noisy", "visible noise", "some grain", "grainy", "moderate noise"),
        ("clean", "hardly any noise", "little noise", "no noise", "no grain"),
    ),
    "exposure": (
        ("severely overexposed", "blown out", "large overexposed areas", "glaring highlights"),
        ("locally overexposed", "some highlights clipped", "slightly overexposed"),
        ("well exposed", "good exposure", "exposure under control", "not overexposed"),
    ),
    "appearance": (
        ("unnatural", "artificial", "unrealistic", "it looks fake", "poor quality", "bad"),
        ("natural", "realistic", "it looks real", "good quality", "pleasant"),
    ),
}
NOUNS = ("picture", "photo", "photograph", "image", "scene", "street", "night", "view")


def write(levels: Mapping[str, int], rng: np.random.Generator, *, free: bool = False) -> str:
    """A description of slots that are known, each as its word's place from the worst.

    Args:
        levels: the first four slots, and the appearance if it is known.
        rng: draws the wording.
        free: mostly other words and another order than the template's, for the text tower.
    """
    if free and rng.random() < 0.7:
        return _freely(levels, rng)
    parts = []
    for name in ("brightness", "contrast", "noise", "exposure"):
        slot, level = SLOTS[name], levels[name]
        often = 0.25 if name != "exposure" else 0.15
        remark = str(rng.choice(REMARKS[name][level])) if rng.random() < often else ""
        if name == "exposure" and not remark and rng.random() < 0.8:
            remark = " conditions"
        parts.append(f"{slot.words[level]} {slot.noun}{remark}")
    brightness, contrast, noise, exposure = parts
    text = f"The image has {brightness}, {contrast}, {noise} and {exposure}"
    if "appearance" in levels:
        text += (", presenting an unnatural appearance", ", presenting a natural appearance")[levels["appearance"]]
    return text + "."


def _freely(levels: Mapping[str, int], rng: np.random.Generator) -> str:
    """Some of the slots, in any order, in any words."""
    names = [str(name) for name in rng.permutation([*levels])][: int(rng.integers(2, len(levels) + 1))]
    said = []
    for name in names:
        slot, level = SLOTS[name], levels[name]
        words = str(rng.choice(OTHERS[name][level]))
        said.append(words if rng.random() < 0.6 else f"{slot.words[level]} {slot.noun}")
    start = "" if rng.random() < 0.4 else f"a {rng.choice(NOUNS)}{rng.choice([' with ', ': ', ', '])}"
    end = rng.choice(["", ".", " in the image", " in the background"])
    return f"{start}{', '.join(said)}{end}".capitalize()


def all_words() -> Iterable[str]:
    """Every phrase that ``write`` can use."""
    for table in (REMARKS, OTHERS):
        for levels in table.values():
            for phrases in levels:
                yield from phrases
    for slot in SLOTS.values():
        yield " ".join((*slot.words, slot.noun))
    yield " ".join(NOUNS)
    yield "The image has, and, presenting a an. conditions: with in the background"


def thresholds(values: Sequence[float] | np.ndarray, counts: Sequence[int]) -> list[float]:
    """Where to part values so that they fall into ``len(counts)`` classes as often as the counts say.

    Each is just below the quantile: pictures that share the best value, such as nothing burnt out, are above it.
    """
    edges = np.quantile(values, np.cumsum(counts)[:-1] / np.sum(counts))
    return [float(edge) for edge in np.nextafter(edges, -np.inf)]


def as_degraded(picture: np.ndarray, rng: np.random.Generator, kind: str = "") -> np.ndarray:
    """A picture (H, W, 3), bytes, after a random mixture of degradations or, each half of the time, one of a ramp.

    Args:
        picture: what is degraded.
        rng: draws the degradation and its noise.
        kind: "mixture" or "ramp" to have that alone.
    """
    kind = kind or str(rng.choice(["mixture", "ramp"]))
    how: Degradation = mixture(rng)
    if kind == "ramp":
        ways = RAMPS[str(rng.choice(["under", "over", "noise", "desaturate", "oversaturate", "enhanced", "lift"]))]
        how = ways[int(rng.integers(len(ways)))]
    clean = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255
    return to_uint8(render(clean, how, torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))))


def noisy_mixture(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A picture (H, W, 3), bytes, after a random mixture of degradations, and the deviation of the noise left in it."""
    how = mixture(rng)
    clean = rearrange(torch.from_numpy(picture), "h w c -> c h w").float() / 255
    made = render(clean, how, torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32)))
    noise = luma((made - render(clean, how))[None])
    return to_uint8(made), noise.square().mean().sqrt().item()


def slip(levels: Mapping[str, int], rates: Mapping[str, float], rng: np.random.Generator) -> dict[str, int]:
    """The slots as a captioner gets them: each is off by one place with its own probability."""
    slipped = {}
    for name, level in levels.items():
        places = len(SLOTS[name].words)
        if rng.random() < rates[name]:
            level += 1 if level == 0 else -1 if level == places - 1 else int(rng.choice([-1, 1]))
        slipped[name] = level
    return slipped


def tidy(text: str) -> str:
    """An MLE description without its slips of the keyboard: one space, 'an unnatural'."""
    text = re.sub(r"\s+", " ", text).replace("a unnatural", "an unnatural").strip()
    return re.sub(r" ?,[ ,]*", ", ", text)
