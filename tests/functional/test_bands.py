"""Large pictures are scored band by band: the same scores to the bit, and the same gradients."""

import pytest
import torch

from lowlight_iqa import create_metric
from lowlight_iqa.functional import patch_moments, rows
from lowlight_iqa.functional.rows import in_bands

METRICS = ["brisque", "brisque-dark", "colorfulness", "contrast", "exposure", "loe-lime", "niqe", "noise", "piqe"]


def pictures(height, width):
    return (
        torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.1, 0.9])[:, None, None, None]
    )


@pytest.mark.parametrize("size", [(517, 611), (400, 192)])
@pytest.mark.parametrize("name", METRICS)
def test_a_picture_in_bands_scores_as_a_whole_one(name, size, monkeypatch):
    metric, x = create_metric(name), pictures(*size)
    reference = {"reference": x.sqrt()} if metric.card.needs_reference else {}
    whole = metric(x, **reference)
    monkeypatch.setattr(rows, "BAND", 1 << 14)
    monkeypatch.setattr(patch_moments, "BAND", 1 << 14)
    assert torch.equal(metric(x, **reference), whole)


@pytest.mark.parametrize("name", ["contrast", "exposure", "noise", "piqe"])
def test_gradients_in_bands_are_those_of_a_whole_picture(name, monkeypatch):
    metric = create_metric(name)
    leaf = pictures(517, 611).double().requires_grad_()
    (whole,) = torch.autograd.grad(metric.loss(leaf), leaf)
    monkeypatch.setattr(rows, "BAND", 1 << 14)
    (found,) = torch.autograd.grad(metric.loss(leaf), leaf)
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-15)


def test_bands_cover_all_rows_once(monkeypatch):
    monkeypatch.setattr(rows, "BAND", 1)
    x = torch.arange(2 * 3 * 70 * 4.0).view(2, 3, 70, 4)
    seen = []

    def mean(part):
        seen.append(part.shape[2])
        return part.mean(1)

    assert torch.equal(in_bands(mean, x), x.mean(1))
    assert seen == [16, 16, 16, 16, 6]
    assert torch.equal(in_bands(lambda part: part[:, 0, 1:] - part[:, 0, :-1], x, halo=1), x[:, 0, 1:] - x[:, 0, :-1])
