"""Colorfulness: spread and strength of a picture's opponent colors.

Hasler, Suesstrunk, "Measuring colorfulness in natural images", SPIE Human Vision and Electronic Imaging 2003.
"""

from __future__ import annotations

from torch import Tensor

from ..card import Card
from ..functional.color import working
from ..functional.rows import in_bands
from ..metric import Metric
from ..registry import register


@register(
    Card(
        name="colorfulness",
        summary="Hasler and Suesstrunk's M3: 0 is gray, 33 moderately, 59 quite, 109 extremely colorful",
        source="Hasler and Suesstrunk, SPIE HVEI 2003, section 6 (third metric)",
        lower_better=False,
        score_range=(0.0, 298.0),  # the largest value that any picture can have; photographs have up to about 150
        typical_range=(103.0, 0.516),
        license="Apache-2.0 (nothing is trained)",
        zero_gradient=("gray", "noise of one step", "checker", "edge", "one star", "stars"),
        gradient="exact; zero on a picture without any color, where the measure has its minimum",
        min_size=2,
        sees=("color", "exposure"),
        blind_spots="more is not better without end: color noise and casts raise it, oversaturated beats natural",
    )
)
class Colorfulness(Metric):
    """M3 on RGB from 0 to 255, with signed opponent colors."""

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,), higher is more colorful."""
        return colorfulness(x)


def colorfulness(x: Tensor) -> Tensor:
    """Return the measure M3 (N,) of pictures (N, 3, H, W), RGB in [0, 1]."""
    spread = strength = working(x.new_zeros(len(x)))
    for opponent in (_red_green, _yellow_blue):
        values = in_bands(opponent, x).flatten(1)
        spread = spread + values.var(1, correction=0)
        strength = strength + values.mean(1).square()

    # 1e-8 keeps the roots' slope finite on gray pictures.
    return ((spread + 1e-8).sqrt() + 0.3 * (strength + 1e-8).sqrt()).to(x.dtype)


def _red_green(x: Tensor) -> Tensor:
    red, green, _ = (working(x) * 255).unbind(1)
    return red - green


def _yellow_blue(x: Tensor) -> Tensor:
    red, green, blue = (working(x) * 255).unbind(1)
    return (red + green) / 2 - blue
