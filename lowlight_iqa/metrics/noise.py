"""Noise: the standard deviation of white noise, estimated from what a plane cannot explain.

Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 1996.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..card import Card
from ..functional.color import luma, working
from ..metric import Metric
from ..registry import register


@register(
    Card(
        name="noise",
        summary="Immerkaer's estimate of the noise's standard deviation, in gray levels",
        source="Immerkaer, CVIU 1996, eq. 3",
        lower_better=True,
        score_range=(0.0, 427.0),  # a checkerboard of single pixels has 427; white noise of photographs under 60
        license="Apache-2.0 (nothing is trained)",
        min_size=3,
        sees=("noise",),
        blind_spots="takes fine texture for noise; a darker picture has less of both and scores better, a black one "
        "scores best; noise with a grain above a pixel is missed",
    )
)
class Noise(Metric):
    """Mean absolute response to the difference of two Laplacians, scaled to a standard deviation."""

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Scores (N,), lower is better."""
        gray = 255 * luma(working(x))
        # The mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]] is one second difference after another.
        vertical = gray[:, :-2] - 2 * gray[:, 1:-1] + gray[:, 2:]
        response = vertical[:, :, :-2] - 2 * vertical[:, :, 1:-1] + vertical[:, :, 2:]
        return (math.sqrt(math.pi / 2) / 6 * response.abs().mean((1, 2))).to(x.dtype)
