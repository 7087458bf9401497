import numpy as np
import pytest
import torch
from PIL import Image

import lowlight_iqa
from lowlight_iqa.training.degradations import (
    ATTRIBUTES,
    RAMPS,
    Degradation,
    degrade,
    departures,
    hues,
    lightness,
    mixture,
    render,
    to_linear,
    to_scale,
    to_srgb,
)


@pytest.fixture(scope="module")
def photo():
    picture = lowlight_iqa.read_image("samples/coffee.jpg")[:, :192, :192]
    return (picture * 255).round() / 255


def test_no_degradation_leaves_the_picture_and_every_attribute_at_five(photo):
    picture, targets = degrade(photo, Degradation(), np.random.default_rng(0))
    assert np.abs(picture / 255 - photo.permute(1, 2, 0).numpy()).max() < 1e-6
    assert targets == [5.0] * len(ATTRIBUTES)


@pytest.mark.parametrize(
    ("ramp", "attribute"),
    [
        ("under", "light"),
        ("over", "exposure"),
        ("noise", "noise"),
        ("enhanced", "noise"),
        ("warm", "color"),
        ("cold", "color"),
        ("green", "color"),
        ("desaturate", "color"),
        ("oversaturate", "color"),
        ("halo", "nature"),
        ("smooth", "content_recovery"),
        ("under", "content_recovery"),
    ],
)
def test_an_attribute_falls_along_its_own_ramp(photo, ramp, attribute):
    place = ATTRIBUTES.index(attribute)
    values = [5.0] + [degrade(photo, how, np.random.default_rng(0))[1][place] for how in RAMPS[ramp]]
    assert (np.diff(values) < 0).all(), values


def test_a_typical_picture_is_well_exposed_and_colored(photo):
    from lowlight_iqa.training.degradations import is_typical

    typical = lowlight_iqa.read_image("samples/chelsea.jpg")
    assert is_typical(typical)
    assert not is_typical(render(typical, Degradation(exposure=-3)))
    assert not is_typical(render(typical, Degradation(exposure=2)))
    assert not is_typical(render(typical, Degradation(saturation=0)))


@pytest.mark.parametrize(
    ("ramp", "untouched"),
    [("under", ["noise", "exposure"]), ("noise", ["light", "exposure", "content_recovery"])],
)
def test_what_a_ramp_does_not_touch_stays(photo, ramp, untouched):
    targets = dict(zip(ATTRIBUTES, degrade(photo, RAMPS[ramp][2], np.random.default_rng(0))[1], strict=True))
    assert all(targets[name] > 4.2 for name in untouched), targets


def test_exposure_is_linear_light(photo):
    dark = render(photo, Degradation(exposure=-1))
    middle = (photo > 0.3) & (photo < 0.9)
    assert (to_linear(dark) / to_linear(photo))[middle].mean().item() == pytest.approx(0.5, abs=0.01)


def test_noise_has_the_stated_variance():
    gray = torch.full((3, 256, 256), 0.5)
    normal = torch.randn(gray.shape, generator=torch.Generator().manual_seed(0))
    light = to_linear(gray)[0, 0, 0].item()
    noisy = to_linear(render(gray, Degradation(noise=0.5), normal))
    assert noisy.var().item() == pytest.approx(0.04 * 0.25 * light + 0.01**2, rel=0.05)


def test_color_spaces_against_known_values():
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    assert lightness(red).item() == pytest.approx(0.5324, abs=1e-3)
    assert hues(red).flatten().tolist() == pytest.approx([0.8009, 0.6720], abs=2e-3)
    codes = torch.arange(256) / 255
    assert (to_srgb(to_linear(codes)) - codes).abs().max() < 1e-6


def test_the_same_generator_makes_the_same_picture(photo):
    made = [degrade(photo, mixture(rng), rng) for rng in (np.random.default_rng(5), np.random.default_rng(5))]
    assert (made[0][0] == made[1][0]).all()
    assert made[0][1] == made[1][1]


def test_black_and_white_pictures_have_finite_departures():
    for level in (0.0, 1.0):
        flat = torch.full((3, 64, 64), level)
        found = departures(flat, render(flat, Degradation(exposure=1, cast=(0.5, -0.5))), flat)
        assert np.isfinite(list(found.values())).all()


def test_scale_is_five_at_no_departure_and_three_at_half():
    assert to_scale("noise", 0.0) == 5
    assert to_scale("noise", 0.035) == 3


def test_jpeg_is_pillows(photo):
    import io

    buffer = io.BytesIO()
    Image.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=20)
    expected = np.asarray(Image.open(buffer))
    assert (degrade(photo, Degradation(jpeg=20), np.random.default_rng(0))[0] == expected).all()
