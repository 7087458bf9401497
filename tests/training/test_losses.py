import numpy as np
import pytest
import torch

from lowlight_iqa.training.losses import correlation, order_loss, plcc_loss


def test_plcc_loss_is_the_published_sum_of_two_squares():
    rng = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(32, generator=rng).double(), torch.randn(32, generator=rng).double()
    p = (prediction - prediction.mean()) / prediction.std(correction=0)
    t = (target - target.mean()) / target.std(correction=0)
    rho = (p * t).mean()
    published = 0.5 * (((p - t) ** 2).mean() / 4 + ((rho * p - t) ** 2).mean() / 4)
    assert plcc_loss(prediction, target).item() == pytest.approx(published.item(), abs=1e-12)


@pytest.mark.parametrize(("sign", "loss"), [(1, 0.0), (-1, 0.5)])
def test_plcc_loss_at_its_ends_whatever_scale_and_offset(sign, loss):
    target = torch.linspace(0, 1, 9).double()
    assert plcc_loss(sign * 7 * target + 3, target).item() == pytest.approx(loss, abs=1e-9)


def test_constant_predictions_give_a_finite_gradient():
    prediction = torch.full((8,), 0.3, requires_grad=True)
    plcc_loss(prediction, torch.rand(8)).backward()
    assert torch.isfinite(prediction.grad).all()


def test_gradient_is_true():
    target = torch.rand(6, dtype=torch.float64)
    prediction = torch.rand(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: plcc_loss(p, target), prediction)


@pytest.mark.parametrize("shapes", [((1,), (1,)), ((3,), (4,)), ((2, 2), (2, 2))])
def test_unusable_vectors_are_named(shapes):
    with pytest.raises(ValueError, match=r"two vectors of one length"):
        correlation(torch.rand(shapes[0]), torch.rand(shapes[1]))


def test_order_loss_counts_only_what_is_out_of_order():
    assert order_loss(torch.tensor([[3.0, 2.0, 1.0]]), 0.5).item() == 0
    assert order_loss(torch.tensor([[1.0, 2.0]]), 0.5).item() == pytest.approx(1.5)


def test_correlation_agrees_with_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.normal(size=50)
    assert correlation(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
