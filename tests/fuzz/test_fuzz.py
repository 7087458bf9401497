"""A tenth of ``tools/fuzz.py --long``, under the same seed."""

import sys

import pytest
from support import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import fuzz


@pytest.mark.parametrize(("what", "count"), [(fuzz.pictures, 300), (fuzz.weights, 100), (fuzz.labels, 50)])
def test_only_documented_errors_come_out(what, count):
    assert list(what(count)) == []
