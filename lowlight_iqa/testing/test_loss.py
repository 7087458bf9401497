"""The loss: its scale, its reductions, and the overshoot that it tolerates."""

from typing import Any

import pytest
import torch

from .subject import Subject


def test_it_is_0_at_the_good_end_and_1_at_the_bad_end(subject: Subject) -> None:
    metric = subject.metric()
    good, bad = metric.card.loss_range
    low, high = metric.card.score_range
    assert (good < bad) == metric.card.lower_better
    assert low <= min(good, bad) < max(good, bad) <= high
    ends = metric.to_loss(torch.tensor([good, bad, (good + bad) / 2, 2 * bad - good]))
    assert ends.tolist() == pytest.approx([0, 1, 0.5, 2], abs=1e-6)


def test_reductions(subject: Subject) -> None:
    metric, x = subject.metric(), torch.stack([subject.picture(), subject.picture() * 0.2])
    reference = subject.reference_of(x)
    each = metric.loss(x, **reference, reduction="none")
    assert each.shape == (2,)
    assert torch.equal(each, metric.to_loss(subject.score(x)))
    assert torch.equal(metric.loss(x, **reference), each.mean())
    assert torch.equal(metric.loss(x, **reference, reduction="sum"), each.sum())
    lists: dict[str, Any] = {key: list(value) for key, value in reference.items()}
    assert torch.allclose(metric.loss(list(x), **lists), each.mean(), atol=1e-5)
    with pytest.raises(ValueError, match="'median'"):
        metric.loss(x, **reference, reduction="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'lax'"):
        metric.loss(x, **reference, check="lax")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="texture"):
        metric.loss(x, **reference, texture="rough")


def test_a_network_s_output_just_outside_is_taken_and_pulled_back(subject: Subject) -> None:
    metric, inside = subject.metric(), 0.2 + 0.6 * subject.picture()[None]
    reference = subject.reference_of(inside)
    x = inside.clone()
    x[0, :, 3, 4], x[0, :, 5, 6] = 1.08, -0.08
    leaf = x.requires_grad_()
    value = metric.loss(leaf, **reference)
    (found,) = torch.autograd.grad(value, leaf)
    expected = metric.loss(x.detach().clamp(0, 1), **reference) + 0.08 * 6 / x.numel()
    assert torch.allclose(value, expected, rtol=0, atol=1e-6)
    assert (found[0, :, 3, 4] > 0).all()
    assert (found[0, :, 5, 6] < 0).all()

    for refused in (x.detach(), (inside + 1.2).requires_grad_(), (inside * float("nan")).requires_grad_()):
        with pytest.raises(ValueError, match="picture"):
            metric.loss(refused, **reference)
    with pytest.raises(ValueError, match="picture"):
        metric(leaf, **reference)  # a score does not forgive
