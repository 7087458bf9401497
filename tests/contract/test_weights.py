"""What is saved comes back; nothing else is taken for it."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.small_metrics import small_towers

from lowlight_iqa import WeightsNotFound, create_metric
from lowlight_iqa.weights.files import CONFIG, WEIGHTS


@pytest.fixture(autouse=True, scope="module")
def small():
    """Weights of small towers load into small towers."""
    with small_towers():
        yield


class Spy:
    """A pickle whose loading leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_saved_weights_give_the_same_scores(subject, tmp_path):
    metric = subject.metric()
    if subject.name == "leiq-ensemble":
        pytest.skip("it has no file of its own; tests/metrics/test_leiq_authors.py saves and loads its parts")
    if not metric.state_dict():
        with pytest.raises(ValueError, match="no weights"):
            metric.save_pretrained(tmp_path)
        return
    folder = metric.save_pretrained(tmp_path / "saved")
    again = create_metric(subject.name, weights=folder)
    x = subject.picture()
    reference = subject.reference_of(x)
    assert torch.equal(again(x, **reference), metric(x, **reference))
    assert load_file(folder / WEIGHTS).keys() == metric.state_dict().keys()
    assert subject.name in (folder / "README.md").read_text()


def test_wrong_weights_are_refused(subject, tmp_path):
    metric = subject.metric()
    if not metric.state_dict():
        pytest.skip("it has no weights")
    folder = metric.save_pretrained(tmp_path)
    weights, config = folder / WEIGHTS, folder / CONFIG
    content, facts = weights.read_bytes(), json.loads(config.read_text())

    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="sha256"):
        create_metric(subject.name, weights=folder)

    mark = tmp_path / "mark"
    (tmp_path / "model.pth").write_bytes(pickle.dumps(Spy(mark)))
    with pytest.raises(ValueError, match="pickle"):
        create_metric(subject.name, weights=tmp_path / "model.pth")
    weights.write_bytes(pickle.dumps(Spy(mark)))
    with pytest.raises(ValueError, match="sha256"):
        create_metric(subject.name, weights=folder)
    assert not mark.exists()

    weights.write_bytes(content)
    facts["card"]["name"] = "another"
    config.write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="'another'"):
        create_metric(subject.name, weights=folder)

    weights.unlink()
    config.unlink()
    with pytest.raises(WeightsNotFound, match=CONFIG):
        create_metric(subject.name, weights=folder)
