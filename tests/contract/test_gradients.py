"""Gradients: finite, alive, equal to central differences, a way to a better score."""

import math

import pytest
import torch
from support.contract import (
    CHANGING,
    DOUBLE,
    PICTURES,
    every_metric,
    gradient,
    interior,
    loss,
    make,
    photo,
    pictures,
    reference_of,
    score,
    side,
    span,
)

from lowlight_iqa.registry import get_card
from lowlight_iqa.testing.pictures import CONSTANT, VANISHING
from lowlight_iqa.testing.pictures import pictures as hard_pictures

ALIVE = {  # the share of samples that must have a gradient, where it is less than a third
    "loe": 1e-4,  # the maxima of neighborhoods alone are read
    "loe-lime": 1e-4,
    "niqe": 0.29,  # 0.299 on the half black picture
}


@every_metric
@pytest.mark.parametrize("picture", PICTURES)
def test_the_gradient_is_finite_and_alive(name, picture):
    x = pictures(side(name))[picture][None]
    found = gradient(name, x)
    assert found.shape == x.shape
    assert found.isfinite().all()
    if picture in CHANGING:
        assert found.count_nonzero() >= ALIVE.get(name, 0.3) * x.numel()
    assert torch.equal(found, gradient(name, x))


@every_metric
def test_the_gradient_vanishes_on_the_pictures_that_the_card_names_and_on_no_others(name):
    varying = {kind: x for kind, x in hard_pictures(side(name)).items() if kind not in CONSTANT}
    found = gradient(name, torch.stack([*varying.values()]))
    assert found.isfinite().all()
    largest = dict(zip(varying, (found.abs().amax((1, 2, 3)) / span(name)).tolist(), strict=True))
    assert {kind for kind in varying if largest[kind] < VANISHING} == set(get_card(name).zero_gradient), largest


@every_metric
def test_the_gradient_equals_central_differences(name):
    x = interior(name)
    metric = make(name, DOUBLE)
    captioned = hasattr(metric, "caption")
    assert captioned == metric.card.piecewise
    reference = {"text": metric.caption(x)} if captioned else reference_of(name, x)  # a caption is held fixed
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(metric(leaf, **reference).sum(), leaf)
    draw = torch.Generator().manual_seed(4)
    directions = [torch.randn(x.shape, generator=draw, dtype=DOUBLE) for _ in range(3)]
    directions.append(found / found.abs().max())
    for direction in directions:
        expected = (found * direction).sum()
        scale = max(expected.abs(), 0.3 * found.norm() * direction.norm() / math.sqrt(x.numel()))
        errors = []
        for step in (1e-5, 1e-7, 1e-8, 1e-9):  # whichever meets neither a kink nor rounding
            with torch.no_grad():
                ahead, behind = (metric(x + sign * step * direction, **reference) for sign in (1, -1))
            errors.append(abs((ahead - behind).item() / (2 * step) - expected) / scale)
        assert min(errors) < 1e-3


@every_metric
@pytest.mark.parametrize("picture", ["interior", "dim"])
def test_a_small_step_against_the_loss_improves_it(name, picture):
    x = interior(name) if picture == "interior" else pictures(side(name))["dim"][None].double() + 0.01
    reference = reference_of(name, x)
    leaf = x.clone().requires_grad_()
    before = loss(name, leaf, reference, DOUBLE)
    (found,) = torch.autograd.grad(before, leaf)
    with torch.no_grad():
        for step in (1e-2, 1e-3, 1e-4, 1e-5):
            after = loss(name, (x - step * found / found.abs().max()).clamp(0, 1), reference, DOUBLE)
            if after < before:
                return
    pytest.fail(f"no step improves the loss of {before.item():g}")


@every_metric
def test_the_caller_s_grad_mode_decides(name):
    x = photo(side(name))[None].clone().requires_grad_()
    assert score(name, x).requires_grad
    assert not score(name, x.detach()).requires_grad  # the parameters ask for nothing
    with torch.no_grad():
        assert not score(name, x).requires_grad
    with torch.inference_mode():
        assert score(name, x).isfinite().all()
