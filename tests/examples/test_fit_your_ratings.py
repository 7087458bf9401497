"""The example that fits leiq to made-up ratings, run as a user runs it."""

import subprocess
import sys

import pytest
from support import ROOT


@pytest.mark.slow
def test_the_example_fits_and_gains(tmp_path):
    command = [sys.executable, ROOT / "examples" / "fit_your_ratings.py", "--folder", tmp_path, "--count", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    before, after, gain, summary, scores = done.stdout.splitlines()
    assert float(gain.split()[1]) > 0
    assert float(after.split()[2]) > float(before.split()[2])
    assert summary.startswith("leiq with its score fitted to 60 ratings of ratings.csv")
    assert "of 5" in scores
    assert (tmp_path / "my-leiq" / "model.safetensors").is_file()
