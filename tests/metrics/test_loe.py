"""LOE against plain readings of both definitions, on 16-bit pictures, on extreme shapes, and within its range."""

import math
import time

import numpy as np
import pytest
import torch
from support import ROOT

from lowlight_iqa import create_metric, read_image

NAMES = ("loe", "loe-lime")


def disorder(enhanced, dark):
    """Eq. 17 to 19 of Wang et al.: mean over samples of the number of others whose order differs, loop and all."""
    enhanced, dark = enhanced.ravel(), dark.ravel()
    changed = [np.sum((dark >= dark[i]) != (enhanced >= enhanced[i])) for i in range(dark.size)]
    return float(np.mean(changed))


def naturalness(picture):
    """Samples of Wang et al.'s code: rounded maximum of R, G, B; maximum of 15x15; every step-th pixel from 1."""
    lightness = np.floor(picture.max(0) + 0.5)
    height, width = lightness.shape
    padded, step = np.pad(lightness, 7, mode="reflect"), min(height, width) // 50
    return np.array(
        [
            [
                padded[i * step - 1 : i * step + 14, j * step - 1 : j * step + 14].max()
                for j in range(1, width // step + 1)
            ]
            for i in range(1, height // step + 1)
        ]
    )


def bicubic(length, outputs):
    """imresize's weights (outputs, length) of one side, shrinking."""
    scale = outputs / length
    weights = np.zeros((outputs, length))
    for row in range(outputs):
        center = (row + 0.5) / scale - 0.5
        for k in range(math.floor(center - 2 / scale) - 1, math.ceil(center + 2 / scale) + 2):
            t = abs(center - k) * scale
            value = 0.0
            if t <= 1:
                value = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                value = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
            mirrored = k % (2 * length)
            weights[row, min(mirrored, 2 * length - 1 - mirrored)] += value
        weights[row] /= weights[row].sum()
    return weights


def lime(picture):
    """Samples of LIME's comparison: maximum of R, G, B, resized to a shorter side of 50."""
    lightness = picture.max(0)
    height, width = lightness.shape
    factor = 50 / min(height, width)
    rows, columns = (bicubic(side, math.floor(side * factor + 0.5)) for side in (height, width))
    return rows @ lightness @ columns.T


def pair(height, width, seed):
    """A dark 8-bit picture with flat parts and lone bright pixels, and an enhancement that disturbs its order."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 12, (3, height // 9 + 1, width // 9 + 1)).repeat(9, 1).repeat(9, 2)[:, :height, :width]
    dark = coarse + (rng.random((3, height, width)) < 0.01) * rng.integers(0, 30, (3, height, width))
    gain = 1 + 0.3 * np.sin(np.arange(width) / 7)
    enhanced = np.round(200 * (dark / 48) ** 0.6 * gain) + (rng.random(dark.shape) < 0.004) * 40
    return dark.astype(np.float64), enhanced.clip(0, 255)


def tensor(picture):
    return torch.from_numpy(picture / 255).float()


@pytest.mark.parametrize(("name", "samples"), [("loe", naturalness), ("loe-lime", lime)])
@pytest.mark.parametrize("size", [(64, 70), (121, 170), (210, 163)])
def test_scores_equal_a_plain_reading_of_the_definition(name, samples, size):
    dark, enhanced = pair(*size, seed=size[0])
    expected = disorder(samples(enhanced), samples(dark))
    assert expected > 100
    found = create_metric(name)(tensor(enhanced), reference=tensor(dark)).item()
    assert found == pytest.approx(expected, rel=5e-4 if name == "loe" else 5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_dark_input_is_in_perfect_order_with_itself_at_any_depth(name):
    metric, photo = create_metric(name), read_image(ROOT / "samples" / "coffee.jpg")
    for steps in (255, 65535, 2**24):
        dark = (photo * 0.02 * steps).round() / steps
        assert metric(dark, reference=dark).item() == 0
        assert metric(dark * 20, reference=dark).item() < 0.01  # the order is kept
        assert metric(1 - dark, reference=dark).item() > 1000
    eight = (dark * 20 * 255).round() / 255  # ties where there was an order: some disorder, no more
    assert metric(eight, reference=dark).item() < 50


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(99, 99), (99, 200), (50, 4000), (50, 20000), (101, 300)])
def test_extreme_shapes_stay_quick_and_in_range(name, size):
    metric = create_metric(name)
    ramp = torch.linspace(0.1, 0.9, size[0] * size[1]).view(1, *size).expand(3, *size)
    start = time.perf_counter()
    reversed_order = metric(1 - ramp, reference=ramp).item()
    assert time.perf_counter() - start < 10
    low, high = metric.card.score_range
    assert (low, high) == (0, 10_000)
    assert 2000 < reversed_order <= high
    tall, dark = ((1 - ramp).mT, ramp.mT)
    assert metric(tall, reference=dark).item() == pytest.approx(reversed_order, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_turns_disorder_back(name):
    dark, enhanced = map(tensor, pair(64, 70, seed=1))
    metric, x = create_metric(name), enhanced.double().requires_grad_()
    before = metric(x, reference=dark)
    (found,) = torch.autograd.grad(before.sum(), x)
    assert metric(x - 1e-3 * found / found.abs().max(), reference=dark) < before


def test_loe_needs_the_dark_input_and_leaves_order_alone():
    dark = read_image(ROOT / "samples" / "coffee_dark.png")
    for name in NAMES:
        metric = create_metric(name)
        with pytest.raises(TypeError, match="reference"):
            metric(dark)
        brighter, turned = (dark * 1.5).clamp(0, 1), 1 - dark
        assert metric(brighter, reference=dark) < metric(turned, reference=dark)
