"""What is differentiated once alone refuses a second derivative, whatever the gradient is differentiated by."""

import copy
import pickle

import pytest
import torch
from support import ROOT

from lowlight_iqa import create_metric, read_image
from lowlight_iqa.functional.once import once

ONCE = ["brisque", "brisque-dark", "entropy", "loe", "loe-lime", "niqe", "piqe"]


def slope_of(metric, x, weight=1.0):
    reference = {"reference": x.detach() * 0.1} if metric.card.needs_reference else {}
    return torch.autograd.grad(weight * metric.loss(x, **reference), x, create_graph=True)[0]


@pytest.fixture
def x():
    return read_image(ROOT / "samples" / "coffee.jpg")[None, :, :112, :112].clone().requires_grad_()


@pytest.mark.parametrize("name", ONCE)
def test_second_derivatives_are_refused_by_name(name, x):
    metric = create_metric(name)
    for each in (metric, copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        penalty = slope_of(each, x).square().sum() + x.square().sum()
        with pytest.raises(TypeError, match=f"{name} has no second derivatives"):
            penalty.backward()


@pytest.mark.parametrize("name", ONCE)
def test_a_gradient_is_not_differentiated_by_the_weight_of_the_loss_either(name, x):
    weight = torch.tensor(2.0, requires_grad=True)
    slope = slope_of(create_metric(name), x, weight)
    with pytest.raises(TypeError, match=f"{name} has no second derivatives"):
        torch.autograd.grad(slope.square().sum(), weight)


def test_through_a_network_whose_output_is_penalized(x):
    network = torch.nn.Conv2d(3, 3, 1)
    enhanced = network(x.detach()).sigmoid()
    slope = slope_of(create_metric("niqe"), enhanced)
    with pytest.raises(TypeError, match="niqe has no second derivatives"):
        slope.square().sum().backward()


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_first_derivative_is_the_same(create_graph):
    x = torch.rand(3, 4, requires_grad=True)
    (found,) = torch.autograd.grad(once(x, "niqe").pow(3).sum(), x, create_graph=create_graph)
    assert torch.equal(found, 3 * x.detach() ** 2)


@pytest.mark.skipif(torch.__version__.startswith(("2.4.", "2.5.")), reason="older torch does not compile it whole")
def test_a_compiled_metric_is_refused_by_torch(x):
    torch._dynamo.reset()
    compiled = torch.compile(create_metric("entropy"), fullgraph=True, backend="aot_eager")
    (slope,) = torch.autograd.grad(compiled(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        slope.square().sum().backward()
