"""Names, lists and imports."""

import subprocess
import sys

import pytest
from support import ROOT

from lowlight_iqa import create_metric, list_metrics


def test_an_unknown_name_meets_the_nearest_ones():
    for name in list_metrics():
        with pytest.raises(ValueError, match=f"did you mean.*'{name}'"):
            create_metric(name.upper() + "x")
    with pytest.raises(ValueError, match="no metric is called 'xyzzy0815'"):
        create_metric("xyzzy0815")
    with pytest.raises(TypeError, match="NoneType"):
        create_metric(None)


def test_lists_by_fact():
    for fact in ("learned", "commercial"):
        yes, no = (set(list_metrics(**{fact: wanted})) for wanted in (True, False))
        assert yes | no == set(list_metrics())
        assert not yes & no


def test_import_is_light():
    heavy = ["torchvision", "timm", "scipy", "pandas", "cv2", "huggingface_hub", "PIL"]
    code = (
        "import sys, torch; before = set(sys.modules); import lowlight_iqa; "
        "lowlight_iqa.create_metric, lowlight_iqa.read_image, lowlight_iqa.Metric; "
        f"print(*[m for m in {heavy} if m in sys.modules and m not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_the_package_alone_imports_nothing():
    code = "import sys, lowlight_iqa.cli as c, lowlight_iqa as l; print('torch' in sys.modules, 'score' in dir(l))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
