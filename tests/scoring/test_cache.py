"""The fingerprint of what scores: it changes with whatever may change a score, and with nothing else."""

import importlib.util
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from support import PICTURES

import lowlight_iqa
from lowlight_iqa.metrics.leiq_authors import LeiqMean
from lowlight_iqa.registry import get_card, get_class
from lowlight_iqa.scoring.cache import fingerprint, source_files

PLUG_IN = """
from lowlight_iqa import Card, Metric

class Own(Metric):
    SHORT_SIDE = {side}

    def __init__(self):
        facts = dict(name="own", summary="s", source="s", license="x")
        super().__init__(Card(lower_better=True, score_range=(0.0, 1.0), **facts))

    def score_batch(self, x, reference=None):
        return x[..., : self.SHORT_SIDE].mean((1, 2, 3))
"""


def load(path, side):
    path.write_text(PLUG_IN.format(side=side))
    spec = importlib.util.spec_from_file_location("plug_in_of_a_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Own()


def test_a_changed_number_in_the_code_changes_the_fingerprint(tmp_path):
    first = fingerprint(load(tmp_path / "a.py", 32))
    assert fingerprint(load(tmp_path / "a.py", 32)) == first
    assert fingerprint(load(tmp_path / "a.py", 33)) != first


def test_weights_change_the_fingerprint_and_words_of_the_card_do_not():
    metric = lowlight_iqa.create_metric("brisque")
    first = fingerprint(metric)
    metric.card = replace(metric.card, blind_spots="a card may say more without a new run")
    assert fingerprint(metric) == first == fingerprint(lowlight_iqa.create_metric("brisque"))
    next(iter(metric.state_dict().values())).add_(1)
    assert fingerprint(metric) != first


def test_options_change_the_fingerprint():
    metric = lowlight_iqa.create_metric("contrast")
    first = fingerprint(metric)
    metric.half_precision = torch.float16
    assert fingerprint(metric) != first


@pytest.mark.parametrize("name", lowlight_iqa.list_metrics())
def test_the_code_that_scores_is_in_it(name):
    files = {path.name for path in source_files(get_class(name))}
    assert get_class(name).__module__.rsplit(".")[-1] + ".py" in files
    assert {"images.py", "metric.py", "resize.py", "logistic.py"} <= files
    assert not {"evaluate.py", "main.py", "loop.py"} & files


def test_modules_that_a_metric_imports_are_in_it():
    assert "leiq.py" in {path.name for path in source_files(get_class("leiq-b16"))}
    assert "captioner.py" in {path.name for path in source_files(get_class("bmqa"))}


def test_a_mean_of_models_is_told_apart_by_its_parts_and_evaluated():
    card = get_card("leiq-ensemble")
    means = [
        LeiqMean(card, {name: partial(lowlight_iqa.create_metric, name) for name in names})
        for names in (("contrast", "exposure"), ("contrast", "noise"))
    ]
    assert fingerprint(means[0]) == fingerprint(means[0])
    assert fingerprint(means[0]) != fingerprint(means[1])
    (record,) = lowlight_iqa.score(PICTURES / "chelsea.png", means[0], workers=2)
    assert record.results[card.name].score == pytest.approx(means[0](PICTURES / "chelsea.png").item(), abs=1e-5)
