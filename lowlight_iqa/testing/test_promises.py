"""What every metric promises: scores, gradients, being frozen, input that is refused, explanations, copies."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .. import Assessment, Metric, create_metric
from ..registry import get_card
from .pictures import CONSTANT, VANISHING, pictures, scene

ERRORS = (TypeError, ValueError, OSError)


@functools.cache
def make(name: str, dtype: torch.dtype = torch.float32) -> Metric:
    """The metric, made once."""
    return create_metric(name).to(dtype)


def side(name: str) -> int:
    """Of the test pictures: large enough for the metric."""
    return max(128, get_card(name).min_size)


def reference_of(name: str, x: Tensor) -> dict[str, Any]:
    """The dark input, for a metric that needs one."""
    if not get_card(name).needs_reference:
        return {}
    light = torch.linspace(0.2, 0.5, x.shape[-1], dtype=x.dtype)
    return {"reference": (0.02 + light * x.detach()).clamp(0, 1)}


def score(name: str, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scores of pictures."""
    return make(name, dtype)(x, **reference_of(name, x))  # type: ignore[no-any-return]


def span(name: str) -> float:
    """Length of the metric's scale."""
    low, high = get_card(name).score_range
    return high - low


def test_the_card_is_complete(name: str) -> None:
    card = get_card(name)
    assert card.name == name
    for fact in (card.summary, card.source, card.license, card.gradient):
        assert fact.strip(), "summary, source, license and gradient of the card are one line each"
        assert "\n" not in fact
    low, high = card.score_range
    assert -math.inf < low < high < math.inf
    assert name in str(card)


def test_one_finite_score_for_each_picture_twice_the_same(name: str) -> None:
    for kind, x in pictures(side(name)).items():
        batch = torch.stack([x, x])
        scores = score(name, batch)
        assert scores.shape == (2,), kind
        assert scores.dtype == torch.float32, kind
        assert scores.isfinite().all(), kind
        assert torch.equal(scores, score(name, batch)), kind


def test_scores_stay_in_the_range_of_the_card(name: str) -> None:
    low, high = get_card(name).score_range
    for kind, x in pictures(side(name)).items():
        assert low - 0.05 * (high - low) <= score(name, x).item() <= high + 0.05 * (high - low), kind


def test_a_batch_equals_its_pictures_and_a_list_keeps_its_order(name: str) -> None:
    kinds = ("scene", "dim", "clipped")
    x = torch.stack([pictures(side(name))[kind] for kind in kinds])
    singles = torch.cat([score(name, each) for each in x])
    torch.testing.assert_close(score(name, x), singles, rtol=0, atol=1e-5 * span(name))

    mixed = [x[0], scene(side(name) + 16, 1), x[1]]
    references = [reference_of(name, each).get("reference") for each in mixed]
    scores = make(name)(mixed, references) if get_card(name).needs_reference else make(name)(mixed)
    singles = torch.cat([score(name, each) for each in mixed])
    torch.testing.assert_close(scores, singles, rtol=0, atol=1e-5 * span(name))


def test_precision(name: str) -> None:
    x = scene(side(name))[None]
    assert score(name, x.double(), torch.float64).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(score(name, x), make(name)(x, **reference_of(name, x)))
    half = make(name)(x.half(), **reference_of(name, x))
    assert half.dtype == torch.float32
    assert abs(half - score(name, x)) <= 1e-2 * span(name)


def test_the_gradient_is_finite_everywhere_and_alive(name: str) -> None:
    vanishing = set()
    for kind, x in pictures(side(name)).items():
        leaf = x[None].clone().requires_grad_()
        (found,) = torch.autograd.grad(score(name, leaf).sum(), leaf)
        assert found.isfinite().all(), kind
        if kind not in CONSTANT and found.abs().max() < VANISHING * span(name):
            vanishing.add(kind)
    assert vanishing == set(get_card(name).zero_gradient), "zero_gradient of the card names these pictures, no others"


def test_the_gradient_is_that_of_the_score(name: str) -> None:
    if get_card(name).piecewise:
        pytest.skip("a part of its score is constant by pieces, as its card says")
    x = (0.1 + 0.75 * scene(side(name)).double())[None]
    metric, reference = make(name, torch.float64), reference_of(name, x)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(metric(leaf, **reference).sum(), leaf)
    direction = found / found.abs().max()
    expected = (found * direction).sum().item()
    errors = []
    for step in (1e-5, 1e-7, 1e-8):
        with torch.no_grad():
            ahead, behind = (metric(x + sign * step * direction, **reference).item() for sign in (1, -1))
        errors.append(abs((ahead - behind) / (2 * step) - expected) / abs(expected))
    assert min(errors) < 1e-3


def test_a_small_step_against_the_loss_improves_it(name: str) -> None:
    x = (0.1 + 0.75 * scene(side(name)).double())[None]
    metric, reference = make(name, torch.float64), reference_of(name, x)
    leaf = x.clone().requires_grad_()
    before = metric.loss(leaf, **reference)
    (found,) = torch.autograd.grad(before, leaf)
    with torch.no_grad():
        steps = (metric.loss(x - step * found / found.abs().max(), **reference) for step in (1e-2, 1e-3, 1e-4, 1e-5))
        assert any(after < before for after in steps)


def test_training_beside_it_changes_nothing(name: str) -> None:
    metric = create_metric(name)
    network = nn.Conv2d(3, 3, 3, padding=1)
    parent = nn.ModuleDict({"network": network, "metric": metric}).train()
    x = scene(side(name))[None] * 0.5
    reference = reference_of(name, x)
    expected = metric(x, **reference)

    optimizer = torch.optim.AdamW(parent.parameters(), lr=0.1, weight_decay=0.5)
    metric.loss((x + 0.01 * network(x)).clamp(0, 1), **reference).backward()
    optimizer.step()

    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert not any(module.training for module in metric.modules())
    assert torch.equal(metric(x, **reference), expected)


def test_copies_are_the_same_metric(name: str) -> None:
    x = scene(side(name))
    for again in (copy.deepcopy(make(name)), pickle.loads(pickle.dumps(make(name)))):
        assert torch.equal(again(x, **reference_of(name, x)), score(name, x))


def test_bad_input_is_refused_with_advice(name: str) -> None:
    x = scene(side(name))
    spoiled = x.clone()
    spoiled[0, 3, 4] = math.nan
    for case, bad in {
        "uint8": (x * 255).byte(),
        "0 to 255": x * 255,
        "-1 to 1": x * 2 - 1,
        "NaN": spoiled,
        "gray": x[:1],
        "channels last": x.permute(1, 2, 0),
        "empty batch": x[None][:0],
        "nothing": None,
        "a missing file": "no/such/picture.png",
    }.items():
        reference = {"reference": x} if get_card(name).needs_reference else {}
        with pytest.raises(ERRORS) as caught:
            make(name)(bad, **reference)
        assert len(str(caught.value)) > 20, case


def test_the_smallest_picture_is_scored(name: str) -> None:
    least = get_card(name).min_size
    assert score(name, scene(side(name))[:, :least, : least + 1]).isfinite().all()


def test_an_assessment(name: str) -> None:
    x = scene(side(name))
    if get_card(name).needs_reference:
        pytest.skip("it compares two pictures")
    found = make(name).assess(x)
    assert isinstance(found, Assessment)
    assert found.score == pytest.approx(score(name, x).item(), abs=1e-5 * span(name))
    assert len(found.description) > 10
    for each in (found.map, *found.maps.values()):
        assert each is None or (each.shape == x.shape[1:] and each.isfinite().all())
