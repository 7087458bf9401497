"""The scores of every bundled metric are those that tools/record_scores.py recorded."""

import functools
import json
import os
import runpy
from pathlib import Path

import pytest
import torch
from support import GOLDEN, ROOT

from lowlight_iqa import create_metric
from lowlight_iqa.registry import get_card

RECORDED = json.loads((GOLDEN / "scores.json").read_text())
TOOL = runpy.run_path(str(ROOT / "tools" / "record_scores.py"))
BIQ2021 = Path(os.environ.get("LOWLIGHT_IQA_DATA", "/nowhere")) / "biq2021"

every_recorded_metric = pytest.mark.parametrize("name", RECORDED)


@functools.cache
def made(name):
    return create_metric(name)


def check(name, pictures):
    good, bad = get_card(name).loss_range
    found = TOOL["record"](made(name), pictures)
    expected = {picture: RECORDED[name][picture] for picture in found}
    hint = "if the scores are meant to differ, record them again: python tools/record_scores.py"
    assert found == pytest.approx(expected, rel=1e-6, abs=2e-5 * abs(bad - good)), hint


@every_recorded_metric
def test_the_samples_scores(name):
    check(name, TOOL["small"]())


@every_recorded_metric
def test_the_scores_of_pictures_above_512_pixels(name):
    check(name, TOOL["large"]())


@every_recorded_metric
def test_the_scores_of_rated_pictures(name):
    pictures = TOOL["biq2021"](BIQ2021)
    if not pictures:
        pytest.skip(f"BIQ2021 is not at {BIQ2021}; set LOWLIGHT_IQA_DATA")
    check(name, pictures)


@pytest.mark.parametrize("name", ["leiq", "iaca", "bmqa"])
def test_a_reduction_without_antialiasing_would_be_noticed(name, monkeypatch):
    interpolate = torch.nn.functional.interpolate
    monkeypatch.setattr(
        torch.nn.functional, "interpolate", lambda *args, **kwargs: interpolate(*args, **{**kwargs, "antialias": False})
    )
    with pytest.raises(AssertionError):
        check(name, {"640x960": TOOL["large"]()["640x960"]})
