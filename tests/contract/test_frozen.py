"""Nothing that is done around a metric changes it, and a copy of it is the same metric."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from support import ROOT
from support.contract import again, every_metric, is_bundled, make, photo, reference_of, side
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lowlight_iqa import create_metric, list_metrics
from lowlight_iqa.registry import get_card


def probe(name):
    """A picture, its reference, and the score of it."""
    x = photo(side(name))[None] * 0.5
    reference = reference_of(name, x)
    return x, reference, make(name)(x, **reference)


def beside(metric):
    """A parent with a network of its own beside the metric."""
    return nn.ModuleDict({"network": nn.Conv2d(3, 3, 3, padding=1), "metric": metric})


@every_metric
def test_training_beside_it_changes_nothing(name):
    metric = again(name)
    parent = beside(metric)
    x, reference, expected = probe(name)
    network = parent["network"]
    before, old = {k: v.clone() for k, v in metric.state_dict().items()}, network.weight.clone()

    parent.train()
    parent.requires_grad_(True)
    optimizer = torch.optim.AdamW(parent.parameters(), lr=0.1, weight_decay=0.5)
    metric.loss((x + 0.01 * network(x)).clamp(0, 1), **reference).backward()
    optimizer.step()

    assert not torch.equal(network.weight, old)
    assert not any(module.training for module in metric.modules())
    assert not any(p.requires_grad or p.grad is not None for p in metric.parameters())
    assert all(torch.equal(value, before[key]) for key, value in metric.state_dict().items())
    assert torch.equal(metric(x, **reference), expected)


@every_metric
def test_casts_of_a_parent_change_no_score(name):
    metric = again(name)
    parent = beside(metric)
    x, reference, expected = probe(name)
    for cast in (parent.bfloat16, parent.half, parent.double, parent.float, lambda: parent.to("cpu", torch.float16)):
        cast()
        assert torch.equal(metric(x, **reference), expected)
    metric.half()
    metric.bfloat16()
    assert torch.equal(metric(x, **reference), expected)
    metric.double()  # the one way to float64
    parent.float()
    wide = metric(x.double(), **{key: value.double() for key, value in reference.items()})
    assert wide.dtype == torch.float64
    low, high = metric.card.score_range
    assert (wide - expected).abs() <= 1e-4 * (high - low)
    assert torch.equal(metric.float()(x, **reference), expected)


@every_metric
def test_initializing_or_loading_a_parent_changes_no_score(name):
    metric = again(name)
    parent = beside(metric)
    x, reference, expected = probe(name)

    def init(module):
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            nn.init.zeros_(tensor)

    parent.apply(init)
    assert torch.equal(metric(x, **reference), expected)

    state = parent.state_dict()
    assert set(state) == {"network.weight", "network.bias"}
    old = {f"metric.{key}": torch.zeros_like(value) for key, value in metric.state_dict().items()}
    for given in (state, {**state, **old}):
        parent.load_state_dict(given, strict=True)
        assert torch.equal(metric(x, **reference), expected)


@every_metric
def test_what_would_change_it_is_refused(name):
    metric = again(name)
    with pytest.raises(ValueError, match="frozen"):
        metric.requires_grad_(True)
    with pytest.raises(ValueError, match="create_metric"):
        metric.load_state_dict(metric.state_dict())


@every_metric
def test_copies_are_the_same_metric(name):
    parent = beside(again(name))
    x, reference, expected = probe(name)
    file = io.BytesIO()
    torch.save(parent, file)
    file.seek(0)
    average = AveragedModel(parent, use_buffers=True)
    for _ in range(2):
        average.update_parameters(parent)
    copies = copy.deepcopy(parent), pickle.loads(pickle.dumps(parent)), torch.load(file, weights_only=False)
    for each in (*copies, average.module):
        assert torch.equal(each["metric"](x, **reference), expected)
        assert each["metric"].card == parent["metric"].card


FRESH = """
import pickle, sys, torch
torch.set_num_threads(1)
for name, (parent, x, reference, expected) in pickle.load(open(sys.argv[1], "rb")).items():
    assert torch.allclose(pickle.loads(parent)["metric"](x, **reference), expected, rtol=1e-5, atol=1e-6), name
print("the same")
"""


@pytest.mark.slow
def test_every_metric_is_unpickled_in_a_fresh_process(tmp_path):
    """As a spawned worker does: timm is imported by the pickle alone."""
    names = [name for name in list_metrics() if name != "leiq-ensemble"]  # whose parts are read from a folder
    content = {name: (pickle.dumps(beside(again(name))), *probe(name)) for name in names}
    (tmp_path / "metrics.pickle").write_bytes(pickle.dumps(content))
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "metrics.pickle")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "the same", done.stderr


@every_metric
def test_a_metric_made_and_first_called_in_inference_mode_trains_a_network(name):
    x, reference, _ = probe(name)
    with torch.inference_mode():
        metric = create_metric(name) if is_bundled(name) else make(name)
        metric(x, **reference)
    leaf = x.clone().requires_grad_()
    metric.loss(leaf, **reference).backward()
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("device", ["gpu", "", 99, "meta", "cuda:99", None.__class__])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match="'cpu'"):
        create_metric("exposure", device=device)


def test_a_device_that_is_there_is_taken():
    assert create_metric("exposure", device="cpu").device.type == "cpu"
    assert get_card("exposure").name == "exposure"
