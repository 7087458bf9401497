"""Entropy of the gray levels of a picture, in bits.

Shannon, "A mathematical theory of communication", Bell System Technical Journal 1948, on a smooth histogram.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..card import Card
from ..functional.color import luma, working
from ..functional.rows import sum_rows
from ..metric import Metric
from ..registry import register

BINS = 256


@register(
    Card(
        name="entropy",
        summary="Shannon entropy of the gray levels' smooth histogram, in bits",
        source="Shannon 1948; histogram of 256 bins with a quadratic B-spline for each pixel",
        lower_better=False,
        score_range=(0.0, 8.02),
        typical_range=(7.83, 2.29),
        license="Apache-2.0 (nothing is trained)",
        zero_gradient=("checker", "edge", "one star"),
        gradient="exact; next to zero on pictures of few gray levels far apart, such as black with a white edge",
        min_size=2,
        sees=("exposure", "contrast"),
        blind_spots="noise raises it; where things are is not looked at; a constant picture has about one bit, as "
        "every pixel is spread over three bins",
    )
)
class Entropy(Metric):
    """Entropy of a histogram in which every pixel is spread over three bins, so that it has a gradient.

    Compared with 256 plain bins of rounded gray levels it is a few hundredths of a bit higher on photographs and up to
    1.06 bits higher on pictures with few levels.
    """

    second_derivatives = False

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,), higher is better."""
        share = sum_rows(_histogram, x) / (x.shape[2] * x.shape[3])
        return -(share * torch.log2(share + 1e-12)).sum(1).to(x.dtype)


def _histogram(x: Tensor) -> Tensor:
    """Count the pixels of pictures (N, 3, h, W) on each level, (N, 258): one more bin beyond black and beyond white."""
    gray = 255 * luma(working(x)).flatten(1)  # (N, P)
    center = gray.detach().round()
    offset = gray - center  # -1/2 to 1/2
    histogram = gray.new_zeros(len(gray), BINS + 2)
    index = center.long().clamp(0, BINS - 1) + 1  # NaN, which an unchecked loss may hold, is no index
    for step, weight in ((-1, (0.5 - offset) ** 2 / 2), (0, 0.75 - offset**2), (1, (0.5 + offset) ** 2 / 2)):
        histogram = histogram.scatter_add(1, index + step, weight)
    return histogram
