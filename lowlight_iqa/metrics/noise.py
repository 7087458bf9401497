"""Noise: the standard deviation of white noise, estimated from the deviation of neighborhoods from a plane.

Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 1996.
"""

from __future__ import annotations

from torch import Tensor

from ..card import Card
from ..functional.color import luma, working
from ..functional.noise import TO_DEVIATION, residual
from ..functional.rows import in_bands
from ..metric import Metric
from ..registry import register


@register(
    Card(
        name="noise",
        summary="Immerkaer's estimate of the noise's standard deviation, in gray levels",
        source="Immerkaer, CVIU 1996, eq. 3",
        lower_better=True,
        score_range=(0.0, 427.0),  # a checkerboard of single pixels has 427; white noise of photographs under 60
        typical_range=(0.0187, 7.12),
        license="Apache-2.0 (nothing is trained)",
        zero_gradient=("edge",),
        gradient="exact; zero where the score is zero, as on ramps and straight edges along the sides",
        min_size=3,
        sees=("noise",),
        blind_spots="takes fine texture for noise; a darker picture has less of both and scores better, a black one "
        "scores best; noise with a grain above a pixel is missed",
    )
)
class Noise(Metric):
    """Mean absolute response to the difference of two Laplacians, scaled to a standard deviation."""

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,), lower is better."""
        response = in_bands(lambda rows: residual(255 * luma(working(rows))).abs(), x, halo=2)
        return (TO_DEVIATION * response.mean((1, 2))).to(x.dtype)

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Return the mask's response at each pixel, as a deviation in gray levels: its mean is the score.

        The border of one pixel has no response and is set to the mean.
        """
        local = TO_DEVIATION * residual(255 * luma(working(x))).abs()
        whole = local.mean((1, 2), keepdim=True).expand(-1, *x.shape[2:]).clone()
        whole[:, 1:-1, 1:-1] = local
        return {"score": whole.to(x.dtype)}
