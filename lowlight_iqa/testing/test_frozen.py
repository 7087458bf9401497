"""Nothing done to a parent module changes a metric, and a copy is the same metric."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .. import Metric
from .subject import Subject


def probe(subject: Subject) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Return a picture, its reference, and its score."""
    x = subject.picture()[None] * 0.5
    return x, subject.reference_of(x), subject.score(x)


def beside(metric: Metric) -> nn.ModuleDict:
    """Return a parent that holds the metric and a network."""
    return nn.ModuleDict({"network": nn.Conv2d(3, 3, 3, padding=1), "metric": metric})


def test_training_beside_it_changes_nothing(subject: Subject) -> None:
    metric = subject.build()
    parent = beside(metric)
    x, reference, expected = probe(subject)
    network: Any = parent["network"]
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


def test_casts_of_a_parent_change_no_score(subject: Subject) -> None:
    metric = subject.build()
    parent = beside(metric)
    x, reference, expected = probe(subject)
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
    assert (wide - expected).abs() <= 1e-4 * subject.span
    assert torch.equal(metric.float()(x, **reference), expected)


def test_initializing_or_loading_a_parent_changes_no_score(subject: Subject) -> None:
    metric = subject.build()
    parent = beside(metric)
    x, reference, expected = probe(subject)

    def init(module: nn.Module) -> None:
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


def test_what_would_change_it_is_refused(subject: Subject) -> None:
    metric = subject.build()
    with pytest.raises(ValueError, match="frozen"):
        metric.requires_grad_(True)
    with pytest.raises(ValueError, match="create_metric"):
        metric.load_state_dict(metric.state_dict())


def test_copies_are_the_same_metric(subject: Subject) -> None:
    parent = beside(subject.build())
    x, reference, expected = probe(subject)
    file = io.BytesIO()
    torch.save(parent, file)
    file.seek(0)
    average = AveragedModel(parent, use_buffers=True)
    for _ in range(2):
        average.update_parameters(parent)
    copies = copy.deepcopy(parent), pickle.loads(pickle.dumps(parent)), torch.load(file, weights_only=False)
    for each in (*copies, average.module):
        assert torch.equal(each["metric"](x, **reference), expected)  # type: ignore[index]
        assert each["metric"].card == subject.card  # type: ignore[index]


def test_a_metric_made_and_first_called_in_inference_mode_trains_a_network(subject: Subject) -> None:
    x, reference, _ = probe(subject)
    with torch.inference_mode():
        metric = subject.build()
        metric(x, **reference)
    leaf = x.clone().requires_grad_()
    metric.loss(leaf, **reference).backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
