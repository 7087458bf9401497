"""Noise where texture is not: near the truth on flat and textured pictures alike."""

import pytest
import torch
import torch.nn.functional as F
from support import ROOT

from lowlight_iqa import read_image
from lowlight_iqa.functional.color import luma
from lowlight_iqa.functional.noise import TO_DEVIATION, homogeneous_noise, residual


def textured(name: str = "coffee") -> torch.Tensor:
    """Gray levels (1, H, W) of a sample at half its size, where little of the camera's noise is left."""
    picture = read_image(ROOT / "samples" / f"{name}.jpg")[None].double()
    return luma(F.interpolate(picture, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1))


def normal(like: torch.Tensor) -> torch.Tensor:
    """White noise of deviation 1."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype)


def test_a_plane_has_no_noise():
    down, across = torch.linspace(0, 0.4, 48).double(), torch.linspace(0, 0.6, 64).double()
    assert homogeneous_noise((down[:, None] + across)[None]).item() < 1e-7


@pytest.mark.parametrize("deviation", [0.01, 0.03, 0.1])
def test_white_noise_is_measured_right_on_a_flat_picture(deviation):
    gray = torch.full((1, 200, 300), 0.5).double()
    assert homogeneous_noise(gray + deviation * normal(gray)).item() == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize("name", ["coffee", "rocket", "chelsea", "astronaut"])
def test_texture_is_no_noise_and_noise_is_found_in_it(name):
    gray = textured(name)
    everywhere = TO_DEVIATION * residual(gray).abs().mean().item()
    assert homogeneous_noise(gray).item() < min(0.015, 0.7 * everywhere)
    assert homogeneous_noise(gray + 0.04 * normal(gray)).item() == pytest.approx(0.04, rel=0.15)


def test_a_clipped_half_hides_no_noise():
    gray = textured("chelsea")
    gray = gray + 0.04 * normal(gray)
    gray[:, :, : gray.shape[2] // 3] = 1
    assert homogeneous_noise(gray).item() > 0.03


def test_a_batch_equals_its_pictures_and_small_ones_are_taken():
    pair = torch.cat([textured("coffee")[:, :64, :80], textured("chelsea")[:, :64, :80]])
    torch.testing.assert_close(homogeneous_noise(pair), torch.cat([homogeneous_noise(x[None]) for x in pair]))
    assert homogeneous_noise(pair[:, :9, :5]).isfinite().all()
