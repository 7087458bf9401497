"""Evaluation killed (kill -9) at random moments and started again: the same figures, to the bit, from one cache.

LOWLIGHT_IQA_KILLS=50 python -m pytest -m slow -n0 tests/evaluation/test_kill.py
"""

import csv
import os
import random
import sqlite3

import numpy as np
import pytest
from PIL import Image
from support.forks import Forks

from lowlight_iqa.scoring.cache import FILE

PICTURES = 60
KILLS = int(os.environ.get("LOWLIGHT_IQA_KILLS", "4"))


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = [("image", "mos")]
    for k in range(PICTURES):
        Image.fromarray(rng.integers(0, 4 * k + 9, (192, 288, 3), np.uint8)).save(root / f"{k}.png")
        rows.append((f"{k}.png", k))
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "list.csv"


def count(cache):
    """Entries of a cache that another process writes."""
    try:
        with sqlite3.connect(f"file:{cache / FILE}?mode=ro", uri=True) as database:
            return database.execute("SELECT COUNT(*) FROM scores").fetchone()[0]
    except sqlite3.Error:
        return 0


@pytest.mark.slow
def test_killed_and_started_again_it_says_the_same(labels, tmp_path, record_property):
    def command(name):
        files = ("--cache", tmp_path / name, "--json", tmp_path / f"{name}.json", "--csv", tmp_path / f"{name}.csv")
        return ["evaluate", "-m", "niqe", "--dataset", "csv", "--root", labels, "--draws", "10", *files]

    with Forks() as forks:
        assert forks.run(*command("whole")) == 0
        rng, kills, done = random.Random(0), 0, 0
        while kills < KILLS:
            name, killed = f"killed{done}", True
            while killed and kills < KILLS:
                held = count(tmp_path / name)
                child = forks.start(*command(name))
                wanted = min(PICTURES, held + rng.randrange(20))
                killed = forks.kill_at(
                    child, lambda name=name, wanted=wanted: count(tmp_path / name) >= wanted, rng.uniform(0, 0.1)
                )
                kills += killed
                assert count(tmp_path / name) >= held  # nothing that was there is lost
            assert forks.run(*command(name)) == 0
            for kind in ("json", "csv"):
                assert (tmp_path / f"{name}.{kind}").read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
            assert count(tmp_path / name) == PICTURES
            assert not list(tmp_path.rglob("*.new"))
            done += 1
    record_property("kills", kills)
