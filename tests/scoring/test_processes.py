"""The command's workers on a CPU are processes: the same table, and nothing left behind or lost when one is killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lowlight_iqa

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the workers are threads")

LARGE = 96 * 128  # pixels: a picture of more is scored by the command itself
SETTING = f"import sys, time; from lowlight_iqa.scoring import pipeline; pipeline.LARGE = {LARGE}\n"
SLOWED = "score = pipeline.score_one; pipeline.score_one = lambda *given: time.sleep(0.2) or score(*given)\n"
CALL = "from lowlight_iqa.cli import main; sys.exit(main())"
COMMAND = (sys.executable, "-c", SETTING + CALL, "score")
SLOW = (sys.executable, "-c", SETTING + SLOWED + CALL, "score")  # so that it is killed before its end


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several sizes, one of them large, one cut short."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for k in range(40):
        size = (96, 136) if k == 7 else (96, 96 + 8 * (k % 3))
        Image.fromarray(rng.integers(0, 200, (*size, 3), np.uint8)).save(folder / f"{k:02}.png")
    cut = folder / "11.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    return folder


def start(folder, out, *options, command=COMMAND):
    command = [*command, str(folder), "-m", "contrast,brisque", "--workers", "2", "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(process, count=2):
    """Wait for so many; their process numbers."""
    for _ in range(20000):
        if process.poll() is not None:
            raise AssertionError(process.stderr.read())
        if len(found := children(process.pid)) >= count:
            return found
        time.sleep(0.002)
    raise AssertionError("the workers are no processes")


def test_the_table_is_that_of_threads(folder, tmp_path, monkeypatch):
    from lowlight_iqa.scoring import pipeline

    monkeypatch.setattr(pipeline, "LARGE", LARGE)
    process = start(folder, tmp_path / "scores.csv")
    assert len(workers(process)) == 2
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "11.png" in errors
    assert len(errors.splitlines()) == 2  # what failed, and the summary

    found = rows(tmp_path / "scores.csv")
    records = list(lowlight_iqa.score(folder, ["contrast", "brisque"], workers=2))
    assert [row["path"] for row in found] == [record.path for record in records]
    for row, record in zip(found, records, strict=True):
        assert bool(row["error"]) == bool(record.error)
        for name, result in record.results.items():
            assert float(row[name]) == pytest.approx(result.score, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("started", [1, 2])  # with one, the command is still starting the other
def test_a_worker_that_is_killed_is_told_in_one_line_and_the_rest_can_be_resumed(folder, tmp_path, started):
    out = tmp_path / "scores.csv"
    process = start(folder, out, command=SLOW)
    os.kill(workers(process, started)[0], signal.SIGKILL)
    errors = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 2
    assert "use fewer workers" in errors[-1]
    assert not any(line.startswith("Traceback") for line in errors)

    resumed = start(folder, out, "--resume")
    resumed.communicate(timeout=60)
    assert resumed.returncode == 1  # one picture is cut short
    assert [Path(row["path"]).name for row in rows(out)] == sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_no_worker_outlives_the_command(folder, tmp_path):
    process = start(folder, tmp_path / "scores.csv", command=SLOW)
    left = workers(process)
    process.kill()
    process.communicate(timeout=60)  # they hold its standard error
    end = time.monotonic() + 30
    while time.monotonic() < end and any(Path(f"/proc/{pid}").exists() for pid in left):
        time.sleep(0.1)
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
