"""Operations for exported graphs against those of torch that they stand for."""

import pytest
import torch
import torch.nn.functional as F

from lowlight_iqa.functional import exportable


@pytest.mark.parametrize(("height", "width"), [(30, 17), (7, 100), (5, 9)])
def test_pooling_by_cells(height, width):
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    assert torch.allclose(exportable.cell_means(x, 7), F.adaptive_avg_pool2d(x, 7))
    assert torch.equal(exportable.cell_maxima(x, (4, 3)), F.adaptive_max_pool2d(x, (4, 3)))


def test_the_quadratic_form_of_the_inverse():
    factor = torch.randn(3, 36, 36, dtype=torch.float64)
    matrix, vector = factor @ factor.mT + 1e-3 * torch.eye(36), torch.randn(3, 36, dtype=torch.float64)
    expected = torch.einsum("ni,nij,nj->n", vector, torch.linalg.inv(matrix), vector)
    assert torch.allclose(exportable.quadratic_form(matrix, vector), expected)


def test_the_logarithm_of_gamma_in_a_graph(monkeypatch):
    x = torch.linspace(0.05, 60, 1000, dtype=torch.float64)
    monkeypatch.setattr(exportable, "exporting", lambda: True)
    assert torch.allclose(exportable.lgamma(x), torch.lgamma(x), rtol=0, atol=1e-11)
