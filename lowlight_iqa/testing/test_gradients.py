"""Gradients: finite, not zero, equal to central differences, leading to a better score."""

import math

import pytest
import torch
from torch import Tensor

from .pictures import CONSTANT, VANISHING, pictures
from .subject import DOUBLE, Subject


def test_the_gradient_is_finite_on_every_picture(subject: Subject) -> None:
    for kind, x in subject.pictures().items():
        found = subject.gradient(x[None])
        assert found.shape == (1, *x.shape), kind
        assert found.isfinite().all(), kind


def test_the_gradient_is_twice_the_same(subject: Subject) -> None:
    for kind in ("picture", "dim", "half black"):
        x = subject.pictures()[kind][None]
        assert torch.equal(subject.gradient(x), subject.gradient(x)), kind


def test_the_gradient_is_alive_but_on_the_pictures_that_the_card_names(subject: Subject) -> None:
    varying = {kind: x for kind, x in pictures(subject.side).items() if kind not in CONSTANT}
    found = subject.gradient(torch.stack([*varying.values()]))
    largest = dict(zip(varying, (found.abs().amax((1, 2, 3)) / subject.span).tolist(), strict=True))
    vanishing = {kind for kind in varying if largest[kind] < VANISHING}
    assert vanishing == set(subject.card.zero_gradient), f"zero_gradient of the card names what vanishes: {largest}"


def test_the_gradient_equals_central_differences(subject: Subject) -> None:
    if not subject.smooth:
        pytest.skip("a part of its score is constant by pieces, as its card says")
    x = subject.interior()
    metric, fixed = subject.metric(DOUBLE), subject.fixed(x)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(metric(leaf, **fixed).sum(), leaf)
    draw = torch.Generator().manual_seed(4)
    directions = [torch.randn(x.shape, generator=draw, dtype=DOUBLE) for _ in range(3)]
    directions.append(found / found.abs().max())
    for direction in directions:
        expected = (found * direction).sum()
        scale = max(expected.abs(), 0.3 * found.norm() * direction.norm() / math.sqrt(x.numel()))
        errors = []
        for step in (1e-5, 1e-7, 1e-8, 1e-9):  # whichever meets neither a kink nor rounding
            with torch.no_grad():
                ahead, behind = (metric(x + sign * step * direction, **fixed) for sign in (1, -1))
            errors.append(abs((ahead - behind).item() / (2 * step) - expected) / scale)
        assert min(errors) < 1e-3


def test_a_second_derivative_equals_central_differences_or_is_refused_by_name(subject: Subject) -> None:
    x = subject.interior()
    metric, fixed = subject.metric(DOUBLE), subject.fixed(x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)

    def slope(at: Tensor, again: bool = False) -> Tensor:
        return torch.autograd.grad(metric.loss(at, **fixed), at, create_graph=again)[0]

    leaf = x.clone().requires_grad_()
    first = slope(leaf, again=True)
    found, refusal = first, ""
    try:
        (found,) = torch.autograd.grad((first * direction).sum() + 0 * leaf.sum(), leaf)
    except TypeError as error:
        refusal = str(error)
    if refusal:
        assert subject.name in refusal
        return
    if not subject.smooth:
        pytest.skip("a part of its score is constant by pieces, as its card says")
    errors = []
    for step in (1e-7, 1e-8, 1e-9, 1e-5):  # whichever meets neither a kink nor rounding
        ahead, behind = (slope((x + sign * step * direction).requires_grad_()) for sign in (1, -1))
        expected = (ahead - behind) / (2 * step)
        errors.append(((found - expected).norm() / (expected.norm() + 0.01 * first.norm())).item())
        if errors[-1] < 1e-2:
            return
    pytest.fail(f"differences of the gradient are off by {errors} of their size")


@pytest.mark.parametrize("exposure", ["bright", "dim"])
def test_a_small_step_against_the_loss_improves_it(subject: Subject, exposure: str) -> None:
    x = subject.interior() if exposure == "bright" else subject.pictures()["dim"][None].double() + 0.01
    metric, reference = subject.metric(DOUBLE), subject.reference_of(x)
    leaf = x.clone().requires_grad_()
    before = metric.loss(leaf, **reference)
    (found,) = torch.autograd.grad(before, leaf)
    with torch.no_grad():
        for step in (1e-2, 1e-3, 1e-4, 1e-5):
            if metric.loss((x - step * found / found.abs().max()).clamp(0, 1), **reference) < before:
                return
    pytest.fail(f"no step improves the loss of {before.item():g}")


def test_the_caller_s_grad_mode_decides(subject: Subject) -> None:
    x = subject.picture()[None].clone().requires_grad_()
    assert subject.score(x).requires_grad
    assert not subject.score(x.detach()).requires_grad  # the parameters ask for nothing
    with torch.no_grad():
        assert not subject.score(x).requires_grad
    with torch.inference_mode():
        assert subject.score(x).isfinite().all()
