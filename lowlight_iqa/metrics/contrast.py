"""Contrast: the standard deviation of the luminance.

Peli, "Contrast in complex images", JOSA A 1990, section 1 (root-mean-square contrast).
"""

from __future__ import annotations

from torch import Tensor

from ..card import Card
from ..functional.color import luma, working
from ..functional.rows import in_bands
from ..metric import Metric
from ..registry import register


@register(
    Card(
        name="contrast",
        summary="root-mean-square contrast: the standard deviation of the luminance",
        source="Peli, JOSA A 1990, root-mean-square contrast",
        lower_better=False,
        score_range=(0.0, 0.5),
        typical_range=(0.358, 0.00624),
        license="Apache-2.0 (nothing is trained)",
        gradient="exact; on pictures of pure black and white it points out of [0, 1], where no step is left",
        min_size=2,
        sees=("contrast", "exposure"),
        blind_spots="noise raises it as structure does; half black and half white is its ideal",
    )
)
class Contrast(Metric):
    """RMS contrast of the luminance in [0, 1]."""

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,), higher is better."""
        gray = in_bands(lambda rows: luma(working(rows)), x)
        variance = gray.flatten(1).var(1, correction=0)
        return (variance + 1e-12).sqrt().to(x.dtype)  # 1e-12 keeps the root's slope finite
