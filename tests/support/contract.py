"""What the contract tests share: each metric once, and the pictures that it is tried on."""

import copy
import functools
import math

import pytest
import torch
from torch import nn

from lowlight_iqa import Metric, WeightsNotFound, create_metric, list_metrics, read_image
from lowlight_iqa.registry import get_card, get_class
from support import ROOT
from support.small_metrics import small_towers, stand_in

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
PICTURES = (
    *("photo", "dim", "dark", "dark_8_bit", "dark_16_bit", "near_black", "half_black", "clipped"),
    *("black", "constant"),
)
CHANGING = PICTURES[:-2]  # those that are not constant
DOUBLE, OWN = torch.float64, (TypeError, ValueError, OSError)

every_metric = pytest.mark.parametrize("name", list_metrics())


@functools.cache
def make(name, dtype=torch.float32):
    """The metric; on stand-in weights where none are at hand, but for bundled ones, which must be there."""
    try:
        return create_metric(name).to(dtype)
    except WeightsNotFound:
        if get_card(name).weights:
            raise
    with small_towers():
        return stand_in(name).to(dtype)


def again(name, **options):
    """Another one, made anew; a stand-in is copied."""
    return create_metric(name, **options) if is_bundled(name) else copy.deepcopy(make(name))


def is_bundled(name):
    """Whether it needs no stand-in: it has its weights here, or has none."""
    card = get_card(name)
    return bool(card.weights) or (
        get_class(name).from_weights.__func__ is Metric.from_weights.__func__
        and (get_class(name).from_source.__func__ is Metric.from_source.__func__)
    )


def side(name):
    return max(128, get_card(name).min_size)


@functools.cache
def photo(side, sample="astronaut"):
    whole = read_image(ROOT / "samples" / f"{sample}.jpg")
    scale = max(1.0, side / min(whole.shape[1:]))
    if scale > 1:
        size = [math.ceil(length * scale) for length in whole.shape[1:]]
        whole = nn.functional.interpolate(whole[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    top, left = ((length - side) // 2 for length in whole.shape[1:])
    return whole[:, top : top + side, left : left + side].contiguous()


@functools.cache
def pictures(side):
    """By name, (3, side, side)."""
    x = photo(side)
    draw = torch.Generator().manual_seed(0)
    half = x.clone()
    half[:, :, : side // 2] = 0
    return {
        "photo": x,
        "dim": x * 0.05,
        "dark": x * 0.01,
        "dark_8_bit": (x * 0.03 * 255).round() / 255,
        "dark_16_bit": (x * 0.01 * 65535).round() / 65535,
        "near_black": torch.rand(x.shape, generator=draw) / 255,
        "half_black": half,
        "clipped": (x * 4).clamp(0, 1),
        "black": torch.zeros_like(x),
        "constant": torch.full_like(x, 0.5),
    }


def interior(name):
    """A picture (1, 3, side, side), float64, away from 0, 1 and ties between neighbors."""
    draw = torch.Generator().manual_seed(1)
    x = 0.1 + 0.75 * photo(side(name)).double()
    return (x + 0.02 * torch.rand(x.shape, generator=draw, dtype=DOUBLE))[None]


def reference_of(name, x):
    """The dark input that the metrics with two arguments get: another exposure of the same view, unevenly lit."""
    if not get_card(name).needs_reference:
        return {}
    light = torch.linspace(0.2, 0.5, x.shape[-1], dtype=x.dtype)
    return {"reference": (0.02 + light * x).clamp(0, 1)}


def score(name, x, dtype=torch.float32):
    return make(name, dtype)(x, **reference_of(name, x.detach()))


def loss(name, x, reference, dtype=torch.float32):
    return make(name, dtype).loss(x, **reference)


def gradient(name, x, dtype=torch.float32):
    x = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(score(name, x, dtype).sum(), x)
    return found


def span(name):
    low, high = get_card(name).score_range
    return high - low
