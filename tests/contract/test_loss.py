"""The loss: its scale, its reductions, what it forgives, and what it never waits for."""

import pytest
import torch
from support.contract import every_metric, loss, make, photo, reference_of, score, side
from torch.utils._python_dispatch import TorchDispatchMode

from lowlight_iqa import create_metric
from lowlight_iqa.registry import get_card


@every_metric
def test_it_is_0_at_the_good_end_and_1_at_the_bad_end(name):
    metric = make(name)
    good, bad = metric.card.loss_range
    low, high = metric.card.score_range
    assert (good < bad) == metric.card.lower_better
    assert low <= min(good, bad) < max(good, bad) <= high
    ends = metric.to_loss(torch.tensor([good, bad, (good + bad) / 2, 2 * bad - good]))
    assert ends.tolist() == pytest.approx([0, 1, 0.5, 2], abs=1e-6)


@every_metric
def test_reductions(name):
    metric, x = make(name), torch.stack([photo(side(name)), photo(side(name)) * 0.2])
    reference = reference_of(name, x)
    each = metric.loss(x, **reference, reduction="none")
    assert each.shape == (2,)
    assert torch.equal(each, metric.to_loss(score(name, x)))
    assert torch.equal(loss(name, x, reference), each.mean())
    assert torch.equal(metric.loss(x, **reference, reduction="sum"), each.sum())
    assert torch.allclose(metric.loss(list(x), **{k: list(v) for k, v in reference.items()}), each.mean(), atol=1e-5)
    with pytest.raises(ValueError, match="'median'"):
        metric.loss(x, **reference, reduction="median")
    with pytest.raises(ValueError, match="'lax'"):
        metric.loss(x, **reference, check="lax")
    with pytest.raises(TypeError, match="texture"):
        metric.loss(x, **reference, texture="rough")


@every_metric
def test_a_network_s_output_just_outside_is_taken_and_pulled_back(name):
    metric, inside = make(name), 0.2 + 0.6 * photo(side(name))[None]
    reference = reference_of(name, inside)
    x = inside.clone()
    x[0, :, 3, 4], x[0, :, 5, 6] = 1.08, -0.08
    leaf = x.requires_grad_()
    value = metric.loss(leaf, **reference)
    value.backward()
    expected = metric.loss(x.detach().clamp(0, 1), **reference) + 0.08 * 6 / x.numel()
    assert torch.allclose(value, expected, rtol=0, atol=1e-6)
    assert (leaf.grad[0, :, 3, 4] > 0).all()
    assert (leaf.grad[0, :, 5, 6] < 0).all()

    for refused in (x.detach(), (inside + 1.2).requires_grad_(), (inside * float("nan")).requires_grad_()):
        with pytest.raises(ValueError, match="picture"):
            metric.loss(refused, **reference)
    with pytest.raises(ValueError, match="picture"):
        metric(leaf, **reference)  # a score does not forgive


class Waits(TorchDispatchMode):
    """Counts what copies a value off the device, which a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


SYNCHRONIZE = {  # on a CPU, and why
    "niqe": "one branch of the normalization, which a GPU does not ask for",
    "brisque": "the same",
    "brisque-dark": "the same",
    "piqe": "the same",
    "leiq-ensemble": "its parts check their pictures",
}


@every_metric
def test_a_fast_check_waits_for_nothing(name):
    metric, x = make(name), photo(side(name))[None].clone().requires_grad_()
    reference = reference_of(name, x.detach())
    said = {"text": "dim brightness, severe noise"} if hasattr(metric, "caption") else {}
    counts = {}
    for check in ("strict", "fast"):
        with Waits() as waits:
            metric.loss(x, **reference, **said, check=check).backward()
        counts[check] = waits.count
    assert counts["fast"] <= counts["strict"] - 2
    if name not in SYNCHRONIZE:
        assert counts["fast"] == 0
    assert torch.equal(metric.loss(x, **reference, check="fast"), metric.loss(x, **reference))
    assert metric.loss(x * 3, **reference, check="fast").isfinite()


@every_metric
def test_as_loss_is_the_loss(name):
    metric, x = make(name), photo(side(name))[None]
    reference = reference_of(name, x)
    if get_card(name).weights:
        criterion = create_metric(name, as_loss=True)
        assert torch.equal(criterion(x, **reference), metric.loss(x, **reference))
        assert torch.equal(criterion(x, **reference, reduction="none"), metric.loss(x, **reference, reduction="none"))
        assert not list(criterion.parameters())


def test_a_caption_that_is_given_is_held_fixed():
    metric, x = make("bmqa"), photo(128)[None].clone().requires_grad_()
    text = metric.caption(x.detach())[0]
    assert torch.allclose(metric.loss(x, text=text), metric.loss(x), atol=1e-5)
    other = metric.loss(x, text="bright brightness, slight noise")
    assert torch.allclose(other, metric.to_loss(metric(x, text="bright brightness, slight noise")).mean())
    assert not torch.allclose(other, metric.loss(x, text="dim brightness, severe noise"))


@every_metric
def test_transforms_of_torch_func_and_double_backward_are_right_or_refused_by_name(name):
    if name == "leiq-ensemble":
        pytest.skip("it is the mean of two metrics that are tried themselves")
    metric, x = make(name), photo(side(name))[None].clone()
    reference = reference_of(name, x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(metric.loss(leaf, **reference), leaf, create_graph=True)

    found, refusal = outcome(lambda: torch.func.grad(lambda y: metric.loss(y, **reference, check="fast"))(x))
    if refusal is None:
        torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-6)
    else:
        assert isinstance(refusal, TypeError)
        assert name in str(refusal)

    found, refusal = outcome(lambda: torch.autograd.grad(expected.square().sum(), leaf)[0])
    if refusal is None:
        assert found.isfinite().all()
    else:  # in torch's words, as it is met outside of the metric
        told = ("once_differentiable", "does not require grad", "not implemented")
        assert any(words in str(refusal) for words in told), refusal


def outcome(call):
    """What a call returns, and what it raises."""
    try:
        return call(), None
    except (TypeError, RuntimeError) as error:
        return None, error
