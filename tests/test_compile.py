"""Metrics as one compiled graph: the same scores and gradients, without a break."""

import pytest
import torch
from support import ROOT

from lowlight_iqa import create_metric, read_image

QUICK = ("colorfulness", "contrast", "entropy", "exposure", "noise", "piqe")
SLOW = ("brisque", "iaca", "leiq", "loe", "niqe")


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_metric_compiles_to_one_graph(name):
    torch._dynamo.reset()
    metric = create_metric(name)
    x = read_image(ROOT / "samples" / "coffee.jpg")[None, :, :112, :104].contiguous()
    reference = {"reference": x.flip(3) * 0.1} if metric.card.needs_reference else {}
    compiled = torch.compile(metric, fullgraph=True, backend="aot_eager")
    results = []
    for call in (compiled, metric):
        leaf = x.clone().requires_grad_()
        score = call(leaf, **reference)
        score.sum().backward()
        results.append((score.detach(), leaf.grad))
    (score, slope), (expected, expected_slope) = results
    assert torch.allclose(score, expected, rtol=1e-5)
    assert torch.allclose(slope, expected_slope, rtol=1e-3, atol=1e-4 * expected_slope.abs().max().item())
