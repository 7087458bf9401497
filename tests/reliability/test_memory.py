"""Large pictures need little memory: a third of what ``benchmarks/withstands.py memory`` scores, by the hungriest."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

SIDE = 6_000  # 36 megapixels, 412 MiB
LIMIT = 1_800  # MiB, Python and torch among them: at this rate 100 megapixels are well under 4 GiB


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells the peak in /proc")
@pytest.mark.parametrize("name", ["brisque", "colorfulness", "contrast", "loe-lime", "niqe", "noise", "piqe"])
def test_a_large_picture_is_never_held_several_times(name):
    command = [sys.executable, "benchmarks/withstands.py", "--child", "peak", name, str(SIDE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < LIMIT
