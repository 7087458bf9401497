"""LOE: how much of the dark input's order of lightness an enhancement reverses.

Wang, Zheng, Hu, Li, "Naturalness preserved enhancement algorithm for non-uniform illumination images", IEEE TIP 2013;
and the definition of Guo, Li, Ling, "LIME: low-light image enhancement via illumination map estimation", TIP 2017.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..card import Card
from ..functional.color import working
from ..functional.once import once_differentiable
from ..functional.resize import imresize
from ..functional.rows import in_bands
from ..metric import Metric
from ..registry import register

SAMPLES = 50  # along the shorter side
MAX_SAMPLES = 10000  # in all: every sample is compared with every other
RADIUS = 7  # of the local maximum, in pixels
RELAXATION = {"loe": (0.5, 0.05), "loe-lime": (0.05, 0.005)}  # margin and width of "at least as light", in gray levels
TIE = 1e-6  # gray levels of the dark input closer than this are equal
CHUNK = 256  # samples compared with all others at a time

_GRADIENT = (
    "exact, of the relaxed order: 'at least as light' turns smoothly just below equality; zero where the order is "
    "kept altogether, as by the dark input itself, which is the minimum"
)
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
        score_range=(0.0, float(MAX_SAMPLES)),  # a sample's order can be reversed with all others at most
        typical_range=(0.0, 595.0),
        license="Apache-2.0 (nothing is trained)",
        gradient=_GRADIENT,
        zero_gradient=("one star",),
        needs_reference=True,
        min_size=SAMPLES,
        sees=("lightness order",),
        blind_spots=_BLIND,
        preprocessing="maximum of R, G and B and of the 15x15 neighborhood, sampled every floor(side / 50) "
        "pixels, or farther apart where that would be more than 10,000 samples",
    ),
    Card(
        name="loe-lime",
        summary="lightness order error against the dark input, as LIME's comparison counts it",
        source="Guo et al., LIME, IEEE TIP 2017, section IV",
        lower_better=True,
        score_range=(0.0, float(MAX_SAMPLES)),
        typical_range=(0.0, 463.0),
        license="Apache-2.0 (nothing is trained)",
        gradient=_GRADIENT,
        zero_gradient=("one star",),
        needs_reference=True,
        min_size=SAMPLES,
        sees=("lightness order",),
        blind_spots=_BLIND,
        preprocessing="maximum of R, G and B, resized as MATLAB's imresize to a shorter side of 50, or less "
        "where that would be more than 10,000 samples",
    ),
)
class LOE(Metric):
    """Lightness order error: the mean number of samples whose order with a sample is reversed."""

    second_derivatives = False

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,), lower is better."""
        if reference is None:
            raise TypeError(f"{self.card.name} compares with the dark input: call metric(enhanced, reference=dark)")
        samples = _local_maximum if self.card.name == "loe" else _resized
        margin, width = RELAXATION[self.card.name]
        pairs = zip(samples(x), samples(reference.detach()), strict=True)
        scores = [_Disorder.apply(after, before, margin, width, x.dtype) for after, before in pairs]  # type: ignore[no-untyped-call]
        return torch.stack(scores).to(x.dtype)


def _local_maximum(x: Tensor) -> Tensor:
    """Return lightness samples (N, S) from 0 to 255 as Wang et al. take them."""
    for dim, centers in zip((2, 3), _grid(x.shape[2], x.shape[3]), strict=True):
        # Select only the samples' neighborhoods: (samples, 2 RADIUS + 1) indices along each side.
        around = centers[:, None] + torch.arange(-RADIUS, RADIUS + 1)
        x = x.index_select(dim, _reflect(around, x.shape[dim]).flatten().to(x.device))
    lightness = 255 * working(x.amax(1))
    windows = rearrange(lightness, "n (h a) (w b) -> n (h w) (a b)", a=2 * RADIUS + 1, b=2 * RADIUS + 1)
    return windows.amax(2)


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the samples: the last pixel of every ``step``, as MATLAB's ``step:step:end``."""
    step = max(1, min(height, width) // SAMPLES)
    while max(1, height // step) * max(1, width // step) > MAX_SAMPLES:
        step += 1
    rows, columns = (torch.arange(min(step, side) - 1, side, step) for side in (height, width))
    return rows, columns


def _reflect(index: Tensor, side: int) -> Tensor:
    """Mirror indices at both ends of a side, whose outermost pixels are not repeated."""
    index = index.abs()
    return torch.minimum(index, 2 * (side - 1) - index)


def _resized(x: Tensor) -> Tensor:
    """Return lightness samples (N, S) from 0 to 255 as LIME's comparison takes them."""
    lightness = in_bands(lambda rows: 255 * working(rows.amax(1)), x)
    return imresize(lightness, size=_small(*lightness.shape[1:])).flatten(1)


def _small(height: int, width: int) -> tuple[int, int]:
    """Return a size with a shorter side of 50, the other in proportion; smaller if that makes too many samples."""
    shorter = min(height, width)
    size = (2 * height * SAMPLES + shorter) // (2 * shorter), (2 * width * SAMPLES + shorter) // (2 * shorter)
    if size[0] * size[1] <= MAX_SAMPLES:
        return size

    factor = math.sqrt(MAX_SAMPLES / (height * width))
    short = max(1, math.floor(shorter * factor))
    long = min(MAX_SAMPLES // short, math.floor(max(height, width) * factor))
    return (short, long) if height < width else (long, short)


class _Disorder(torch.autograd.Function):
    """Mean over samples of the number of others whose order with it is reversed.

    The gradient is computed in the forward pass, chunk by chunk, as all pairs of samples do not fit into memory. Both
    orders are relaxed by the same function, so the dark input is in perfect order with itself whatever its steps are.
    Where two of its samples are less than a step apart, their distance replaces the step.
    """

    @staticmethod
    def forward(
        ctx: Any, enhanced: Tensor, dark: Tensor, margin: float, width: float, precision: torch.dtype
    ) -> Tensor:
        total = enhanced.new_zeros(())
        slope = torch.zeros_like(enhanced)
        for start in range(0, len(enhanced), CHUNK):
            part = slice(start, start + CHUNK)
            gap = (dark - dark[part, None]).to(precision)  # (chunk, S)
            step = (gap.abs() / (2 * margin)).clamp_max(1)
            step = torch.where(gap.abs() <= TIE, 1, step)
            before = torch.sigmoid((gap / step + margin) / width)
            logit = ((enhanced - enhanced[part, None]).to(precision) / step + margin) / width
            after = torch.sigmoid(logit)
            total += (after - before).square().sum(dtype=total.dtype)

            if ctx.needs_input_grad[0]:
                # d (after - before)^2 / d (difference of the two enhanced samples)
                pair_slope = 2 * (after - before) * after * torch.sigmoid(-logit) / (width * step)
                slope += pair_slope.sum(0, dtype=slope.dtype)
                slope[part] -= pair_slope.sum(1, dtype=slope.dtype)
        ctx.save_for_backward(slope / len(enhanced))
        return total / len(enhanced)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None, None, None
