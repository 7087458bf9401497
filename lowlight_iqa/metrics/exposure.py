"""Exposure: distance of a picture's patches from good exposure.

Guo et al., "Zero-reference deep curve estimation for low-light image enhancement", CVPR 2020, eq. 3.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..card import Card
from ..functional.color import working
from ..functional.maps import tile
from ..functional.rows import in_bands
from ..metric import Metric
from ..registry import register

PATCH = 16
TARGET = 0.6  # the well-exposedness level of the paper


@register(
    Card(
        name="exposure",
        summary="mean distance of the patches' brightness from 0.6; nothing trained",
        source="Guo et al., Zero-DCE, CVPR 2020, eq. 3 (exposure control loss)",
        lower_better=True,
        score_range=(0.0, 0.6),
        typical_range=(0.104, 0.591),
        license="Apache-2.0 (nothing is trained)",
        min_size=PATCH,
        sees=("exposure",),
        blind_spots="sees nothing but the patches' mean: noise, blur and color casts of the same brightness do not "
        "change it, a gray card of 0.6 is its ideal and a good night picture is judged as underexposed",
    )
)
class Exposure(Metric):
    """Distance from well-exposedness; patches at the right and lower border may be smaller than 16x16."""

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,), lower is better."""
        return _distances(x).mean((1, 2)).to(x.dtype)

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Return each patch's distance from 0.6: the mean over the patches is the score."""
        return {"score": tile(_distances(x), PATCH, x.shape[2:]).to(x.dtype)}


def _distances(x: Tensor) -> Tensor:
    """Return the distance of each patch from the target, (N, h, w)."""
    return in_bands(lambda rows: (_patches(rows) - TARGET).abs(), x)


def _patches(x: Tensor) -> Tensor:
    """Return the mean brightness of each patch, (N, h, w)."""
    brightness = working(x).mean(1, keepdim=True)
    return avg_pool2d(brightness, PATCH, ceil_mode=True)[:, 0]
