"""Test pictures, computed: a smooth scene, its dark versions, and hard cases.

A card's ``zero_gradient`` names those that vary but on which the metric's gradient vanishes.
"""

import functools
import math

import torch
from torch import Tensor

CONSTANT = ("black", "constant")
VANISHING = 1e-9  # a smaller gradient counts as zero; share of the score range, for a sample from black to white
STEP = 1 / 255  # between two 8-bit levels


@functools.cache
def scene(side: int, seed: int = 0) -> Tensor:
    """Return a picture (3, side, side) in 0.05..0.95: waves of many sizes, colored blocks and fine texture."""
    draw = torch.Generator().manual_seed(seed)
    down, across = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    x = torch.full((3, side, side), 0.45)
    for octave in range(1, 6):
        direction = torch.randn(3, 2, 1, 1, generator=draw) * 2**octave
        x = x + 0.25 / octave * torch.sin(2 * math.pi * (direction[:, 0] * down + direction[:, 1] * across))
    for _ in range(6):
        top, left = (int(torch.randint(side, (), generator=draw)) for _ in range(2))
        x[:, top : top + side // 4, left : left + side // 5] += 0.4 * torch.randn(3, 1, 1, generator=draw)
    return (x + 0.02 * torch.randn(x.shape, generator=draw)).clamp(0.05, 0.95)


def exposures(x: Tensor) -> dict[str, Tensor]:
    """Return dark versions of a picture (3, H, W), in 8 and 16 bits, and an overexposed one, by name."""
    half = x.clone()
    half[:, :, : x.shape[2] // 2] = 0
    draw = torch.Generator().manual_seed(0)
    return {
        "dim": x * 0.05,
        "dark": x * 0.01,
        "dark in 8 bits": (x * 0.03 * 255).round() / 255,
        "dark in 16 bits": (x * 0.01 * 65535).round() / 65535,
        "near black": torch.rand(x.shape, generator=draw) / 255,
        "half black": half,
        "clipped": (x * 4).clamp(0, 1),
    }


@functools.cache
def hard_cases(side: int) -> dict[str, Tensor]:
    """Return pictures (3, side, side) with little content, by name."""
    draw = torch.Generator().manual_seed(1)
    places = torch.arange(side)
    checker = (places[:, None] + places) % 2
    noise = (torch.rand(side, side, generator=draw) > 0.5).float() * STEP
    stars = torch.zeros(side * side)
    stars[torch.randint(side * side, (side,), generator=draw)] = 0.2 + 0.8 * torch.rand(side, generator=draw)
    star, edge, blue = torch.zeros(3, 3, side, side).unbind()
    star[:, side // 2, side // 2] = 1
    edge[:, :, side // 2 :] = 1
    blue[2] = noise
    return {
        "gray": scene(side).mean(0).expand(3, -1, -1).clone(),
        "noise of one step": noise.expand(3, -1, -1).clone(),
        "blue noise of one step": blue,
        "checker": checker.float().expand(3, -1, -1).clone(),
        "edge": edge,
        "one star": star,
        "stars": stars.view(side, side).expand(3, -1, -1).clone(),
        "black": torch.zeros(3, side, side),
        "constant": torch.full((3, side, side), 0.5),
    }


def pictures(side: int) -> dict[str, Tensor]:
    """Return the pictures that a card's ``zero_gradient`` may name."""
    return {"scene": scene(side), **exposures(scene(side)), **hard_cases(side)}
