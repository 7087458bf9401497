"""Write descriptions: MLE's five slots, worded as its raters word them, from measurements.

BIQ2021 has scores but no descriptions. So the first four slots are measured (``metrics.bmqa.slots.measure``) and put
into words by thresholds at which the words are as frequent, on random enhanced low-light pictures, as in MLE's 800
descriptions; natural or unnatural follows from the score. Objects are not described.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ...functional.color import luma
from ...metrics.bmqa.slots import SLOTS
from ..degradations import RAMPS, mixture, render, to_uint8
from ..pictures import to_tensor

# By slot: how often MLE's raters used each word, worst first; what they added to it; synonyms, for the text tower.
PHRASES = json.loads((Path(__file__).parent / "phrases.json").read_text(encoding="utf-8"))
COUNTS: dict[str, list[int]] = PHRASES["counts"]
REMARKS: dict[str, list[list[str]]] = PHRASES["remarks"]
SYNONYMS: dict[str, list[list[str]]] = PHRASES["synonyms"]
NOUNS: list[str] = PHRASES["nouns"]


def write(levels: Mapping[str, int], rng: np.random.Generator, *, varied: bool = False) -> str:
    """Describe the first four slots, and the appearance if it is known, from their words' levels (0: worst).

    ``varied`` mostly uses synonyms and another order than the template's, for the text tower.
    """
    if varied and rng.random() < 0.7:
        return _write_varied(levels, rng)

    parts = []
    for name in ("brightness", "contrast", "noise", "exposure"):
        slot, level = SLOTS[name], levels[name]
        chance = 0.25 if name != "exposure" else 0.15
        remark = str(rng.choice(REMARKS[name][level])) if rng.random() < chance else ""
        if name == "exposure" and not remark and rng.random() < 0.8:
            remark = " conditions"
        parts.append(f"{slot.words[level]} {slot.noun}{remark}")

    brightness, contrast, noise, exposure = parts
    text = f"The image has {brightness}, {contrast}, {noise} and {exposure}"
    if "appearance" in levels:
        text += (", presenting an unnatural appearance", ", presenting a natural appearance")[levels["appearance"]]
    return text + "."


def _write_varied(levels: Mapping[str, int], rng: np.random.Generator) -> str:
    """Describe some of the slots in random order and words."""
    names = [str(name) for name in rng.permutation([*levels])][: int(rng.integers(2, len(levels) + 1))]
    phrases = []
    for name in names:
        slot, level = SLOTS[name], levels[name]
        synonym = str(rng.choice(SYNONYMS[name][level]))
        phrases.append(synonym if rng.random() < 0.6 else f"{slot.words[level]} {slot.noun}")
    start = "" if rng.random() < 0.4 else f"a {rng.choice(NOUNS)}{rng.choice([' with ', ': ', ', '])}"
    end = rng.choice(["", ".", " in the image", " in the background"])
    return f"{start}{', '.join(phrases)}{end}".capitalize()


def all_words() -> Iterable[str]:
    """Yield every phrase that ``write`` can use."""
    for table in (REMARKS, SYNONYMS):
        for levels in table.values():
            for phrases in levels:
                yield from phrases
    for slot in SLOTS.values():
        yield " ".join((*slot.words, slot.noun))
    yield " ".join(NOUNS)
    yield "The image has, and, presenting a an. conditions: with in the background"


def thresholds(values: Sequence[float] | np.ndarray, counts: Sequence[int]) -> list[float]:
    """Return thresholds that divide values into ``len(counts)`` classes with frequencies proportional to the counts.

    Each is just below its quantile: values equal to it, such as no burnt-out pixels, fall into the upper class.
    """
    edges = np.quantile(values, np.cumsum(counts)[:-1] / np.sum(counts))
    return [float(edge) for edge in np.nextafter(edges, -np.inf)]


def as_degraded(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade a picture (H, W, 3), bytes, by a random mixture or, half of the time, by a step of a ramp."""
    kind = str(rng.choice(["mixture", "ramp"]))
    how = mixture(rng)
    if kind == "ramp":
        steps = RAMPS[str(rng.choice(["under", "over", "noise", "desaturate", "oversaturate", "enhanced", "lift"]))]
        how = steps[int(rng.integers(len(steps)))]
    clean = to_tensor([picture])[0]
    return to_uint8(render(clean, how, torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))))


def noisy_mixture(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Degrade a picture (H, W, 3), bytes, by a random mixture; also return the deviation of the noise left in it."""
    how = mixture(rng)
    clean = to_tensor([picture])[0]
    made = render(clean, how, torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32)))
    noise = luma((made - render(clean, how))[None])
    return to_uint8(made), noise.square().mean().sqrt().item()


def slip(levels: Mapping[str, int], rates: Mapping[str, float], rng: np.random.Generator) -> dict[str, int]:
    """Simulate a captioner's errors: each slot's level is off by one with its own probability."""
    slipped = dict(levels)
    for name, level in levels.items():
        if rng.random() < rates[name]:
            neighbors = [other for other in (level - 1, level + 1) if 0 <= other < len(SLOTS[name].words)]
            slipped[name] = neighbors[0] if len(neighbors) == 1 else int(rng.choice(neighbors))
    return slipped


def tidy(text: str) -> str:
    """Correct typing errors of MLE's descriptions: repeated spaces and commas, 'a unnatural'."""
    text = re.sub(r"\s+", " ", text).replace("a unnatural", "an unnatural").strip()
    return re.sub(r" ?,[ ,]*", ", ", text)
