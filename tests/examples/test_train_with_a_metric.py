"""The short training examples run on tiny pictures, raise the metric and stay short."""

import sys

import pytest
from PIL import Image
from support import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dark")
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        with Image.open(ROOT / "samples" / f"{name}_dark.png") as picture:
            picture.resize((72, 72)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    pytest.importorskip("lowlight_iqa.torchmetrics", exc_type=ImportError)  # first: it makes torchvision importable

    def load(name):
        __import__(name)
        return sys.modules[name]

    return load


@pytest.mark.parametrize("name", ["train_plain", "train_lightning", "train_accelerate"])
def test_an_example_is_under_100_lines(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 100


def test_plain(load, folder):
    means = load("train_plain").train(folder, "exposure", epochs=6, size=64, rate=1e-2)
    assert means[-1] < means[0]  # lower is better


@pytest.mark.filterwarnings("ignore")
def test_lightning(load, folder):
    pytest.importorskip("lightning")
    logged = load("train_lightning").train(folder, "exposure", epochs=2, size=64)
    assert {"quality", "average_quality"} <= logged.keys()
    assert 0 < logged["quality"] < 0.6


def test_accelerate(load, folder):
    pytest.importorskip("accelerate")
    means = load("train_accelerate").train(folder, "exposure", epochs=6, size=64, rate=1e-2)
    assert means[-1] < means[0]
