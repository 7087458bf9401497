"""PSNR, SSIM and CIEDE2000 are what their definitions say."""

import numpy as np
import pytest
from PIL import Image

from lowlight_iqa.comparison.full_reference import IDENTICAL, ciede2000, measure, psnr, ssim

rng = np.random.default_rng(0)
A = rng.random((40, 50, 3))
B = (A + rng.normal(0, 0.05, A.shape)).clip(0, 1)


def flat(level):
    return np.full((32, 32, 3), float(level))


def test_psnr_is_its_formula_and_finite_for_identical_pictures():
    assert psnr(A, B) == pytest.approx(-10 * np.log10(((A - B) ** 2).mean()))
    assert psnr(A, A) == IDENTICAL


def test_ssim_of_flat_pictures_is_its_luminance_term():
    expected = (2 * 0.2 * 0.6 + 0.01**2) / (0.2**2 + 0.6**2 + 0.01**2)
    assert ssim(flat(0.2), flat(0.6)) == pytest.approx(expected, rel=1e-6)
    assert ssim(A, A) == pytest.approx(1)


def test_ciede2000_from_black_to_white_is_100():
    assert ciede2000(flat(0), flat(1)) == pytest.approx(100, abs=0.01)
    assert ciede2000(A, A) == 0


def test_files_are_measured_as_they_are_read(tmp_path):
    for name, values in {"a": A, "b": B}.items():
        Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
    found = measure(tmp_path / "a.png", tmp_path / "b.png")
    assert found["psnr"] == pytest.approx(psnr(A, B), abs=0.05)
    assert found["ssim"] == pytest.approx(ssim(A, B), abs=0.01)
    assert found["ciede2000"] == pytest.approx(ciede2000(A, B), abs=0.1)


def test_another_size_is_an_error_that_names_both(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (30, 40)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"a\.png is 40 x 30 and its reference .*b\.png 30 x 40"):
        measure(tmp_path / "a.png", tmp_path / "b.png")
