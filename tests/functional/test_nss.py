"""Statistics: fits to full precision, exact gradients, and the official window's rounding."""

import math

import numpy as np
import pytest
import torch
from scipy.special import gamma

from lowlight_iqa.functional import nss

DOUBLE = torch.float64


def ratio(alpha):
    return gamma(2 / alpha) ** 2 / (gamma(1 / alpha) * gamma(3 / alpha))


def test_the_shape_is_solved_to_full_precision():
    alpha = np.array([0.21, 0.3, 0.5, 1.0, 1.234567, 2.0, 3.3, 7.0, 9.9])
    found = nss.solve_shape(torch.from_numpy(ratio(alpha)))
    assert found.numpy() == pytest.approx(alpha, rel=1e-10)
    assert nss.solve_shape(torch.tensor([0.5], dtype=DOUBLE)).item() == pytest.approx(1, rel=1e-12)  # Laplacian
    assert nss.solve_shape(torch.tensor([2 / math.pi], dtype=DOUBLE)).item() == pytest.approx(2, rel=1e-12)


def test_the_shape_equals_the_official_table_within_its_step():
    table = np.arange(0.2, 10.0005, 0.001)
    values = np.linspace(ratio(0.25), ratio(9.5), 50)
    nearest = table[np.abs(ratio(table)[None] - values[:, None]).argmin(1)]
    assert np.abs(nss.solve_shape(torch.from_numpy(values)).numpy() - nearest).max() < 6e-4


def test_the_shape_has_the_gradient_of_the_implicit_function():
    values = torch.from_numpy(ratio(np.array([0.25, 0.6, 1.0, 2.0, 5.0]))).requires_grad_()
    assert torch.autograd.gradcheck(nss.solve_shape, values, eps=1e-8, rtol=1e-5)
    (found,) = torch.autograd.grad(nss.solve_shape(values).sum(), values)
    step = 1e-8
    with torch.no_grad():
        central = (nss.solve_shape(values + step) - nss.solve_shape(values - step)) / (2 * step)
    assert torch.allclose(found, central, rtol=1e-6)


def test_beyond_the_official_range_the_shape_is_limited_and_flat():
    values = torch.tensor([0.0, 1e-9, 0.76, 5.0], dtype=DOUBLE, requires_grad=True)
    alpha = nss.solve_shape(values)
    assert alpha.tolist() == pytest.approx([0.2, 0.2, 10, 10])
    (found,) = torch.autograd.grad(alpha.sum(), values)
    assert found.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("padding", ["replicate", "zero"])
def test_the_filter_equals_the_window_and_has_its_adjoint_as_gradient(padding):
    x = torch.rand(2, 9, 8, dtype=DOUBLE, requires_grad=True)
    window = torch.tensor(nss.WINDOW, dtype=DOUBLE)
    padded = nss.pad(x, padding)
    full = torch.nn.functional.conv2d(padded[:, None], torch.outer(window, window)[None, None])[:, 0]
    assert torch.allclose(nss.local_mean(padded), full, atol=1e-12)
    assert torch.autograd.gradcheck(lambda y: nss.local_mean(nss.pad(y, padding)), x)


def test_gray_levels_equal_rounded_ones_on_8_bit_pictures_and_have_a_true_gradient():
    draw = torch.Generator().manual_seed(0)
    stored = torch.randint(0, 256, (1, 3, 16, 16), generator=draw).double() / 255
    exact = nss.luma(stored * 255)
    assert torch.allclose(nss.gray_levels(stored), torch.floor(exact + 0.5), atol=1e-9)
    assert torch.allclose(nss.gray_levels(stored.float()), torch.floor(exact + 0.5), atol=1e-6)
    between = (stored + 0.5 / 255).clamp(0, 1)
    assert torch.allclose(nss.gray_levels(between), nss.luma(between * 255), atol=0.6)
    for x in (stored[..., :3, :3], stored[..., :3, :3] * 0.9 + 0.03 / 255):
        leaf = x.clone().requires_grad_()
        assert torch.autograd.gradcheck(nss.gray_levels, leaf, eps=1e-7, atol=1e-3)


def as_maps(x):
    """(4, T, h, w) of values (T, h, w)."""
    sign = x.detach().sign()
    return torch.stack([x, sign, sign.abs(), torch.zeros_like(x)])


@pytest.mark.parametrize(("count", "side"), [(1, 40), (3, 12), (50, 6)])
def test_moments_in_parts_are_those_of_whole_patches(count, side, monkeypatch):
    maps = torch.randn(4, count, side, side + 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    shifts = [(0, 1), (1, 0), (1, 1), (-1, 1), (1, -1)]
    monkeypatch.setattr("lowlight_iqa.functional.rows.AT_A_TIME", 200)
    x = maps.clone().requires_grad_()
    own, pairs = nss.moments(x, shifts)
    pairs_too = [maps[:3] * maps[:3].roll(shift, (2, 3)) for shift in shifts]
    for products, found in zip(
        [maps[:3], *pairs_too], [own, *(nss.Moments(*(y[k] for y in pairs[:5]), 1) for k in range(5))], strict=True
    ):
        values, sign, presence = products
        assert torch.allclose(found.absolute, values.abs().sum((1, 2)))
        assert torch.allclose(found.left + found.right, values.square().sum((1, 2)))
        assert torch.allclose(found.right - found.left, (values * values.abs()).sum((1, 2)))
        assert torch.allclose(found.count_right - found.count_left, sign.sum((1, 2)))
        assert torch.allclose(found.count_right + found.count_left, presence.sum((1, 2)))

    def some(y):
        own, pairs = nss.moments(y, shifts)
        return (own.absolute.sum() + (own.left * pairs.right).sum() + (pairs.count_left * pairs.absolute).sum()) / 100

    if count < 50:
        assert torch.autograd.gradcheck(some, maps[:, :, :6, :6].clone().requires_grad_())


def test_fits_recover_what_was_drawn():
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(1, 512, 512))
    x = torch.from_numpy(np.where(rng.random(x.shape) < 2 / 3, -2 * x, x))  # the left scale is twice the right one
    own, _ = nss.moments(as_maps(x), [])
    fit = nss.fit_aggd(own)
    assert fit.alpha.item() == pytest.approx(1, abs=0.02)
    assert fit.left.item() == pytest.approx(2 * fit.right.item(), rel=0.02)


@pytest.mark.parametrize("fill", ["zero", "one-sided", "half"])
def test_degenerate_patches_have_finite_fits_and_gradients(fill):
    x = torch.zeros(1, 8, 8, dtype=DOUBLE)
    if fill == "one-sided":
        x += 0.3
    if fill == "half":
        x[..., :4] = torch.linspace(-1, 1, 4, dtype=DOUBLE)
    x.requires_grad_()
    own, pairs = nss.moments(as_maps(x), [(0, 1), (1, -1)])
    outputs = [*nss.fit_aggd(own)[:3], *nss.fit_ggd(own), *nss.fit_aggd(pairs)[:3]]
    assert all(output.isfinite().all() for output in outputs)
    (found,) = torch.autograd.grad(sum(output.sum() for output in outputs), x)
    assert found.isfinite().all()


def test_flat_regions_count_on_the_side_of_the_official_filters_residue():
    side = nss.flat_side()
    assert side.shape == (256,)
    # What the official scores of I06, I08 and I19 tell; docs/handcrafted.md.
    known = {74: -1, 85: 0, 103: 0, 140: -1, 162: -1, 249: 0, 53: 0, 78: 0, 128: 0, 153: 1}
    assert {level: int(side[level]) for level in known} == known
