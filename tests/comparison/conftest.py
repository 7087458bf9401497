"""Small pictures of made scenes, as dark input, three methods' results and normal-light reference."""

import numpy as np
import pytest
import torch
from PIL import Image

from lowlight_iqa import Card, Metric, registry
from lowlight_iqa.attributes import ATTRIBUTES, sentence

METHODS = ("bright", "noisy", "dim")


def scene(seed, height=52, width=68):
    """Smooth random colors in [0, 1]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float64) / 255


def make(folder, count=6, seed=0):
    """Write ``count`` scenes; return the folders by name."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        reference = scene(seed + index)
        versions = {
            "input": (f"{index}_low.png", 0.1 * reference),
            "reference": (f"{index}.png", reference),
            "bright": (f"{index}_out.png", 0.9 * reference),
            "noisy": (f"{index}_noisy.png", 0.9 * reference + rng.normal(0, 0.12, reference.shape)),
            "dim": (f"{index}.png", 0.4 * reference),
        }
        for label, (name, values) in versions.items():
            (folder / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8)).save(folder / label / name)
    return {label: folder / label for label in ("input", "reference", *METHODS)}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return make(tmp_path_factory.mktemp("pictures"))


class Explained(Metric):
    """Mean brightness, with attributes that are known."""

    def score_batch(self, x, reference=None):
        return x.mean((1, 2, 3))

    def explain_batch(self, x):
        light = 1 + 4 * x.mean((1, 2, 3))
        return self.score_batch(x), {name: light - 0.1 * k for k, name in enumerate(ATTRIBUTES)}

    def describe(self, score, attributes):
        return sentence(attributes)


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory):
    """A metric that names attributes and costs nothing, and a cache of this run's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_entries", {**registry._table()})
        patch.setenv("LOWLIGHT_IQA_CACHE", str(tmp_path_factory.mktemp("cache")))
        card = Card(
            name="toy",
            summary="mean brightness",
            source="test",
            lower_better=False,
            score_range=(0.0, 1.0),
            license="Apache-2.0",
            min_size=8,
        )
        registry.register(card)(Explained)
        torch.manual_seed(0)
        yield
