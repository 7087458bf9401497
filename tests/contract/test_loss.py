"""The loss of our own metrics: what it never waits for, and what torch.func may do with it."""

import torch
from support.contract import photo, subject_of
from torch.utils._python_dispatch import TorchDispatchMode

from lowlight_iqa import create_metric


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


def test_a_fast_check_waits_for_nothing(subject):
    metric, x = subject.metric(), subject.picture()[None].clone().requires_grad_()
    reference = subject.reference_of(x.detach())
    said = {"text": "dim brightness, severe noise"} if hasattr(metric, "caption") else {}
    counts = {}
    for check in ("strict", "fast"):
        with Waits() as waits:
            metric.loss(x, **reference, **said, check=check).backward()
        counts[check] = waits.count
    assert counts["fast"] <= counts["strict"] - 2
    if subject.name not in SYNCHRONIZE:
        assert counts["fast"] == 0
    assert torch.equal(metric.loss(x, **reference, check="fast"), metric.loss(x, **reference))
    assert metric.loss(x * 3, **reference, check="fast").isfinite()
    spoiled = x.detach().clone()
    spoiled[0, 0, 3, 4] = float("nan")
    assert metric.loss(spoiled, **reference, **said, check="fast").isnan()


def test_as_loss_is_the_loss(subject):
    metric, x = subject.metric(), subject.picture()[None]
    reference = subject.reference_of(x)
    if subject.card.weights:
        criterion = create_metric(subject.name, as_loss=True)
        assert torch.equal(criterion(x, **reference), metric.loss(x, **reference))
        assert torch.equal(criterion(x, **reference, reduction="none"), metric.loss(x, **reference, reduction="none"))
        assert not list(criterion.parameters())


def test_a_caption_that_is_given_is_held_fixed():
    metric, x = subject_of("bmqa").metric(), photo(128)[None].clone().requires_grad_()
    text = metric.caption(x.detach())[0]
    assert torch.allclose(metric.loss(x, text=text), metric.loss(x), atol=1e-5)
    other = metric.loss(x, text="bright brightness, slight noise")
    assert torch.allclose(other, metric.to_loss(metric(x, text="bright brightness, slight noise")).mean())
    assert not torch.allclose(other, metric.loss(x, text="dim brightness, severe noise"))


def test_transforms_of_torch_func_are_right_or_refused_by_name(subject):
    metric, x = subject.metric(), subject.picture()[None].clone()
    reference = subject.reference_of(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(metric.loss(leaf, **reference), leaf)

    found, refusal = outcome(lambda: torch.func.grad(lambda y: metric.loss(y, **reference, check="fast"))(x))
    if refusal is None:
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    else:
        assert isinstance(refusal, TypeError)
        assert subject.name in str(refusal)


def outcome(call):
    """What a call returns, and what it raises."""
    try:
        return call(), None
    except (TypeError, RuntimeError) as error:
        return None, error
