"""The subject of the tests: one metric, and pictures that fit it."""

from typing import Any

import torch
from torch import Tensor

from .. import Metric, create_metric
from ..registry import get_card
from .pictures import exposures, hard_cases, scene

DOUBLE = torch.float64
ERRORS = (TypeError, ValueError, OSError)  # for bad input


class Subject:
    """A metric under test, created once for each precision."""

    def __init__(self, name: str) -> None:
        self.name, self.card = name, get_card(name)
        self.side = max(128, self.card.min_size)  # of the pictures
        low, high = self.card.score_range
        self.span = high - low
        self.smooth = not self.card.piecewise  # whether the gradient is that of the whole score
        self.made: dict[torch.dtype, Metric] = {}

    def build(self) -> Metric:
        """Create the metric."""
        return create_metric(self.name)

    def metric(self, dtype: torch.dtype = torch.float32) -> Metric:
        """Return the metric, computing in a precision."""
        if dtype not in self.made:
            self.made[dtype] = self.build().to(dtype)
        return self.made[dtype]

    def picture(self, seed: int = 0, side: int | None = None) -> Tensor:
        """Return a well-exposed picture (3, side, side) with little noise, another one for each seed."""
        return scene(side or self.side, seed)

    def samples(self) -> Tensor:
        """Return four pictures (4, 3, side, side)."""
        return torch.stack([self.picture(seed) for seed in range(4)])

    def pictures(self) -> dict[str, Tensor]:
        """Return a picture, its exposures, and hard cases, (3, side, side) each, by name."""
        return {"picture": self.picture(), **exposures(self.picture()), **hard_cases(self.side)}

    def interior(self) -> Tensor:
        """Return a picture (1, 3, side, side), float64, away from 0, 1 and ties between neighbors."""
        draw = torch.Generator().manual_seed(1)
        x = 0.1 + 0.75 * self.picture().double()
        return (x + 0.02 * torch.rand(x.shape, generator=draw, dtype=DOUBLE))[None]

    def reference_of(self, x: Tensor) -> dict[str, Any]:
        """Return the dark input of pictures, if the metric needs one: the same view, darker and unevenly lit."""
        if not self.card.needs_reference:
            return {}
        light = torch.linspace(0.2, 0.5, x.shape[-1], dtype=x.dtype)
        return {"reference": (0.02 + light * x.detach()).clamp(0, 1)}

    def fixed(self, x: Tensor) -> dict[str, Any]:
        """Return what stays constant when pictures change a little."""
        return self.reference_of(x)

    def score(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return scores (N,) of pictures."""
        scores: Tensor = self.metric(dtype)(x, **self.reference_of(x))
        return scores

    def gradient(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the gradient of the sum of the scores."""
        x = x.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(self.score(x, dtype).sum(), x)
        return found
