"""PIQE: visible distortion in the blocks of a picture, without any training.

Venkatanath, Praneeth, Maruthi, Channappayya, Medasani, "Blind image quality evaluation using perception based
features", NCC 2015. docs/handcrafted.md compares with the official scores.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..card import Card
from ..functional import nss
from ..functional.maps import tile
from ..functional.rows import in_bands
from ..metric import Metric
from ..registry import register

BLOCK = 16
SEGMENT = 6  # pixels of a block's edge whose deviation is measured together
ACTIVE, ACTIVE_WIDTH = 0.1, 0.0002  # a block with a larger variance is active; the width of the smooth decision
EVEN, EVEN_WIDTH = 0.1, 0.0001  # a segment of an edge with a smaller deviation is unnaturally even
NOISY_WIDTH = 0.0002


@register(
    Card(
        name="piqe",
        summary="share of visibly distorted blocks, weighted by their variance; nothing trained",
        source="Venkatanath et al., NCC 2015, sections II and III",
        lower_better=True,
        score_range=(0.0, 100.0),
        typical_range=(14.4, 100.0),
        license="Apache-2.0 (nothing is trained)",
        zero_gradient=("blue noise of one step",),
        gradient="exact, of the relaxed rules: the official code's three yes-or-no decisions on a block turn over a "
        "narrow width, beyond which all but the blocks' variance is nearly constant; zero on a picture whose gray "
        "levels all round to one",
        min_size=BLOCK,
        sees=("blocking", "noise", "blur"),
        blind_spots="judges blocks of locally normalized luminance: a noisy dark picture can score as excellent; a "
        "picture without active blocks, such as a black one, gets 100",
        preprocessing="gray levels as MATLAB's rgb2gray, mirrored up to whole blocks of 16x16",
    )
)
class PIQE(Metric):
    """Perception-based image quality evaluator."""

    second_derivatives = False

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,), lower is better."""
        distortion, active = (each.flatten(1) for each in self._blocks(x))
        score = 100 * ((distortion * active).sum(1) + 1) / (active.sum(1) + 1)
        return score.to(x.dtype)

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Return 100 times the distortion of each active block, 0 in the others, which the score ignores.

        The score is (sum over the blocks + 100) / (number of active blocks + 1).
        """
        distortion, active = self._blocks(x)
        return {"score": tile(100 * distortion * active, BLOCK, x.shape[2:]).to(x.dtype)}

    def _blocks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distortion of each block, and whether it is active, from 0 to 1; both (N, h, w)."""
        gray = nss.gray_levels(x)
        for dim in (1, 2):
            if gray.shape[dim] % BLOCK:
                gray = gray.index_select(dim, _mirror(gray.shape[dim], gray.device))
        distortion, active = in_bands(_judge, nss.pad(gray, "replicate"), halo=6)
        return distortion, active


def _judge(padded: Tensor) -> Tensor:
    """Return distortion and activity (2, N, h, w) of the blocks of gray levels (N, H + 6, W + 6)."""
    normalized = nss.normalize_padded(padded, padded.dtype)[0]
    n, height, width = normalized.shape
    blocks = rearrange(normalized, "n (h a) (w b) -> n (h w) a b", a=BLOCK, b=BLOCK)

    variance = blocks.var((2, 3))  # (N, B)
    active = _step((variance - ACTIVE) / ACTIVE_WIDTH)
    even = _step((EVEN - _most_even_segment(blocks)) / EVEN_WIDTH)
    noisy = _step(_noisiness(blocks, variance) / NOISY_WIDTH)
    distortion = (1 - variance) * even + variance * noisy
    return torch.stack([distortion, active]).view(2, n, height // BLOCK, width // BLOCK)


def _step(x: Tensor) -> Tensor:
    """Return a smooth step from 0 to 1 at x = 0, whose slow tails leave a gradient far away."""
    return (1 + x / (1 + x * x).sqrt()) / 2


def _mirror(side: int, device: torch.device) -> Tensor:
    """Return indices that extend a side to whole blocks by mirroring its end."""
    index = torch.arange(-(-side // BLOCK) * BLOCK, device=device)
    return torch.minimum(index, 2 * side - 1 - index)


def _deviation(variance: Tensor) -> Tensor:
    return (variance + 1e-12).sqrt()  # 1e-12 keeps the slope finite on constant blocks


def _most_even_segment(blocks: Tensor) -> Tensor:
    """Return the smallest deviation (N, B) of six neighbors on the edges of blocks (N, B, 16, 16).

    It is low at blocking and clipping.
    """
    edges = torch.stack([blocks[:, :, 0], blocks[:, :, -1], blocks[..., 0], blocks[..., -1]], 2)  # (N, B, 4, 16)
    return _deviation(edges.unfold(-1, SEGMENT, 1).var(-1).amin((2, 3)))


def _noisiness(blocks: Tensor, variance: Tensor) -> Tensor:
    """Return a value (N, B) above 0 where the two center columns vary as the rest does: noise, not structure."""
    center = blocks[..., 7:9]
    # The official code removes the eighth column and then the ninth of the remaining ones, so that the second center
    # column stays.
    around = torch.cat([blocks[..., :7], blocks[..., 8:9], blocks[..., 10:]], -1)
    ratio = _deviation(center.flatten(2).var(-1)) / _deviation(around.flatten(2).var(-1))
    deviation = _deviation(variance)
    return deviation - 2 * (deviation - ratio).abs() / torch.maximum(deviation, ratio)
