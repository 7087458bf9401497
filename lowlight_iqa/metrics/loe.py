"""LOE: how much of the dark input's order of lightness an enhancement has turned around.

Wang, Zheng, Hu, Li, "Naturalness preserved enhancement algorithm for non-uniform illumination images", IEEE TIP 2013;
and the definition of Guo, Li, Ling, "LIME: low-light image enhancement via illumination map estimation", TIP 2017.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from ..card import Card
from ..functional.color import working
from ..functional.resize import imresize
from ..metric import Metric
from ..registry import register

SAMPLES = 50  # along the shorter side
RADIUS = 7  # of the local maximum, in pixels
TURN = {"loe": (0.5, 0.1), "loe-lime": (0.05, 0.01)}  # gray levels: "at least as light" turns at -margin, over width
CHUNK = 256  # samples compared with all others at a time

_GRADIENT = "exact, of the relaxed order: 'at least as light' turns smoothly just below equality"
_BLIND = (
    "judges the order of lightness alone, not its amount: the dark input itself scores best; needs that input; "
    "equal gray levels of a dark 8-bit input count as an order that the enhancement must keep"
)


@register(
    Card(
        name="loe",
        summary="lightness order error against the dark input, as the code of Wang et al. counts it (the default)",
        source="Wang et al., IEEE TIP 2013, eq. 17 to 19, with the local maximum and sampling of the authors' code",
        lower_better=True,
        score_range=(0.0, 5000.0),  # the number of samples bounds it: 2500 for a square, 4400 for 16:9
        license="Apache-2.0 (nothing is trained)",
        gradient=_GRADIENT,
        needs_reference=True,
        min_size=SAMPLES,
        sees=("lightness order",),
        blind_spots=_BLIND,
        preprocessing="maximum of R, G and B and of the 15x15 neighborhood, sampled every floor(side / 50) pixels",
    ),
    Card(
        name="loe-lime",
        summary="lightness order error against the dark input, as LIME's comparison counts it",
        source="Guo et al., LIME, IEEE TIP 2017, section IV",
        lower_better=True,
        score_range=(0.0, 5000.0),
        license="Apache-2.0 (nothing is trained)",
        gradient=_GRADIENT,
        needs_reference=True,
        min_size=SAMPLES,
        sees=("lightness order",),
        blind_spots=_BLIND,
        preprocessing="maximum of R, G and B, resized as MATLAB's imresize to a shorter side of 50",
    ),
)
class LOE(Metric):
    """Lightness order error: the mean number of samples whose order with a sample has turned around."""

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Scores (N,), lower is better."""
        if reference is None:
            raise TypeError(f"{self.card.name} compares with the dark input: call metric(enhanced, reference=dark)")
        if self.card.name == "loe":
            enhanced, dark = _local_maximum(x), _local_maximum(reference.detach()).round()
        else:
            enhanced, dark = _resized(x), _resized(reference.detach())
        margin, width = TURN[self.card.name]
        pairs = zip(enhanced, dark, strict=True)
        scores = [_Disorder.apply(after, before, margin, width) for after, before in pairs]  # type: ignore[no-untyped-call]
        return torch.stack(scores).to(x.dtype)


def _local_maximum(x: Tensor) -> Tensor:
    """Lightness samples (N, S) from 0 to 255 as Wang et al. take them."""
    lightness = 255 * working(x).amax(1, keepdim=True)
    lightness = max_pool2d(pad(lightness, (RADIUS,) * 4, mode="reflect"), 2 * RADIUS + 1, stride=1)[:, 0]
    step = min(lightness.shape[1:]) // SAMPLES
    return lightness[:, step - 1 :: step, step - 1 :: step].flatten(1)


def _resized(x: Tensor) -> Tensor:
    """Lightness samples (N, S) from 0 to 255 as LIME's comparison takes them."""
    lightness = 255 * working(x).amax(1)
    height, width = lightness.shape[1:]
    shorter = min(height, width)
    size = (2 * height * SAMPLES + shorter) // (2 * shorter), (2 * width * SAMPLES + shorter) // (2 * shorter)
    return imresize(lightness, size=size).flatten(1)


class _Disorder(torch.autograd.Function):
    """Mean over samples of how many others have changed sides; the gradient is taken on the way, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, enhanced: Tensor, dark: Tensor, margin: float, width: float) -> Tensor:
        total = enhanced.new_zeros(())
        slope = torch.zeros_like(enhanced)
        for start in range(0, len(enhanced), CHUNK):
            part = slice(start, start + CHUNK)
            was = (dark >= dark[part, None]).to(enhanced)
            now = torch.sigmoid((enhanced - enhanced[part, None] + margin) / width)  # (chunk, S)
            total += (was + now - 2 * was * now).sum()
            turning = (1 - 2 * was) * now * (1 - now) / width
            slope += turning.sum(0)
            slope[part] -= turning.sum(1)
        ctx.save_for_backward(slope / len(enhanced))
        return total / len(enhanced)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None, None
