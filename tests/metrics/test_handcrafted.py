"""NIQE, BRISQUE, PIQE and the baselines against the official scores, on hard pictures, fitted and saved."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from support import GOLDEN, ROOT

from lowlight_iqa import create_metric, read_image
from lowlight_iqa.metrics.brisque import Brisque
from lowlight_iqa.metrics.niqe import NIQE, patch_features

CALIBRATION = Path(os.environ.get("LOWLIGHT_IQA_CALIBRATION", ROOT.parent / "shared" / "calibration"))
PINNED = json.loads((GOLDEN / "handcrafted.json").read_text())
DOUBLE = torch.float64


@pytest.mark.parametrize("name", ["niqe", "brisque", "piqe"])
def test_official_scores(name):
    table = CALIBRATION / "official.csv"
    if not table.is_file():
        pytest.skip(f"the official pictures are not at {CALIBRATION}; set LOWLIGHT_IQA_CALIBRATION")
    with table.open() as file:
        (official,) = (row for row in csv.DictReader(file) if row.pop("Method") == name and row)
    scores = create_metric(name)([CALIBRATION / picture for picture in official]).tolist()
    for score, expected in zip(scores, map(float, official.values()), strict=True):
        tolerance = {"abs": 0.5} if name == "brisque" else {"rel": 0.005}
        assert score == pytest.approx(expected, **tolerance)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_pinned_scores(name):
    """Taken on the project's pictures when the official check held; they guard it where its pictures are missing."""
    pictures = [ROOT / "samples" / picture for picture in PINNED[name]]
    assert create_metric(name)(pictures).tolist() == pytest.approx(list(PINNED[name].values()), rel=1e-4)


def crop(size):
    x = read_image(ROOT / "samples" / "coffee.jpg").double()[None, :, 20 : 20 + size, 40 : 40 + size]
    return 0.05 + 0.9 * x + 0.01 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)


@pytest.mark.parametrize(("name", "size"), [("niqe", 96), ("brisque", 32)])
def test_gradcheck_end_to_end(name, size):
    metric = create_metric(name)
    assert torch.autograd.gradcheck(metric, crop(size).requires_grad_(), eps=1e-7, atol=1e-4, fast_mode=True)


def test_piqe_has_a_gradient():
    metric, x = create_metric("piqe"), crop(64).requires_grad_()
    (found,) = torch.autograd.grad(metric(x).sum(), x)
    assert found.count_nonzero() > 0
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    with torch.no_grad():
        central = (metric(x + 1e-8 * direction) - metric(x - 1e-8 * direction)) / 2e-8
    assert (found * direction).sum().item() == pytest.approx(central.item(), rel=1e-3)


def strange():
    photo = read_image(ROOT / "samples" / "astronaut.jpg")[:, :192, :192]
    half, white = photo.clone(), torch.ones_like(photo)
    half[:, :, :96] = 0
    white[:, :50, :50] = photo[:, :50, :50]
    noise = (torch.rand(3, 192, 192, generator=torch.Generator().manual_seed(0)) > 0.5).float() / 255
    pictures = {"black": photo * 0, "white": photo * 0 + 1, "half black": half, "1 LSB": noise, "clipped": white}
    for level in (74, 128, 153):  # flat regions on either side of zero and on none
        pictures[f"constant {level}"] = torch.full_like(photo, level / 255)
    return pictures


@pytest.mark.parametrize("name", ["niqe", "brisque", "piqe"])
@pytest.mark.parametrize("picture", sorted(strange()))
def test_finite_on_the_dark_and_the_flat(name, picture):
    x = strange()[picture][None].requires_grad_()
    metric = create_metric(name)
    score = metric(x)
    assert score.isfinite().all()
    (found,) = torch.autograd.grad(score.sum(), x)
    assert found.isfinite().all()


def test_niqe_fit_saves_and_loads(tmp_path):
    pictures = [ROOT / "samples" / f"{name}.jpg" for name in ("astronaut", "chelsea", "coffee")]
    metric = NIQE.fit(pictures, trained_on="three samples")
    dark = ROOT / "samples" / "coffee_dark.png"
    assert metric(dark).isfinite().all()  # few patches make the covariance singular
    again = create_metric("niqe", weights=metric.save_pretrained(tmp_path))
    assert torch.equal(again(dark), metric(dark))
    assert again.card.trained_on == "three samples"
    assert not torch.equal(again(dark), create_metric("niqe")(dark))
    with pytest.raises(ValueError, match="too few"):
        NIQE.fit([])


def test_brisque_fit_saves_and_loads(tmp_path):
    pytest.importorskip("sklearn")
    photo = read_image(ROOT / "samples" / "coffee.jpg")[:, :96, :96]
    draw = torch.Generator().manual_seed(0)
    sigmas = [0.01 * k for k in range(12)]
    pictures = [(photo + s * torch.randn(photo.shape, generator=draw)).clamp(0, 1) for s in sigmas]
    metric = Brisque.fit(pictures, [1 - s for s in sigmas], cost=10.0)
    scores = metric(torch.stack(pictures))
    assert scores[0] > scores[6] > scores[-1]
    assert not metric.card.lower_better
    again = create_metric("brisque", weights=metric.save_pretrained(tmp_path))
    assert torch.equal(again(photo), metric(photo))
    assert again.card.score_range == pytest.approx((0.89, 1))
    with pytest.raises(ValueError, match="one for each"):
        Brisque.fit(pictures, [1.0])
    with pytest.raises(ValueError, match="differ"):
        Brisque.fit(pictures, [1.0] * len(pictures))


def test_niqe_features_of_flat_patches_are_the_official_ones():
    x = torch.zeros(1, 3, 96, 192)
    x[..., 96:] = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    features, valid, _ = patch_features(x)
    shapes = [0, 2, 6, 10, 14]
    assert features[0, 0, shapes].tolist() == pytest.approx([0.2] * 5)  # MATLAB's min() over NaN is the first entry
    assert valid[0, 0, shapes].all()
    assert not valid[0, 0].all()
    assert valid[0, 1].all()


def test_entropy_is_close_to_the_plain_histogram():
    x = read_image(ROOT / "samples" / "coffee.jpg")
    from lowlight_iqa.functional.color import luma

    counts = torch.bincount((luma(x[None]) * 255).round().long().flatten(), minlength=256).double()
    share = counts[counts > 0] / counts.sum()
    assert create_metric("entropy")(x).item() == pytest.approx(-(share * share.log2()).sum().item(), abs=0.1)


def test_noise_measures_white_noise():
    noise = 0.5 + torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)) * 0.04
    assert create_metric("noise")(noise.expand(1, 3, 256, 256)).item() == pytest.approx(0.04 * 255, rel=0.02)


def test_colorfulness_keeps_the_sign_of_the_opponents():
    x = torch.zeros(1, 3, 32, 32)
    x[:, 0, :, :16] = 1  # half red, half cyan: the opponents' means are zero
    x[:, 1:, :, 16:] = 1
    expected = (255**2 + 127.5**2) ** 0.5
    assert create_metric("colorfulness")(x).item() == pytest.approx(expected, rel=1e-4)
