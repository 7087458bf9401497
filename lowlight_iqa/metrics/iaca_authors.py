"""The authors' IACA, with their state dict: ResNeXt-101, illumination weighting, content-adaptive gating.

References:
    IACA, IEEE TMM 2023, arXiv 2302.11464; IQA_Model.py and demo of github.com/Baoliang93/IACA_For_Lowlight_IQA.
    The pooling, outputs and loss are those of LinearityIQA (Li et al., ACM MM 2020).

As in the authors' code, RGB in [0, 1] is not normalized, the whole picture is read at its own size, the next layer's
input is unweighted, and a branch whose illumination weight is 0 everywhere has no gradient. Changed: the root of the
variance has a finite slope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..card import Card
from ..metric import Metric
from ..registry import register
from ..weights.files import Loaded, load_strictly
from .iaca import deviation, gate_net, illumination_net

# The map from q to the labels' scale, of the authors' demo for their released checkpoint; another one has its own.
SLOPE, INTERCEPT = 0.09627324560431309, 0.5154855778833177


def dimension_reduction(width: int) -> nn.Sequential:
    """Build the layers from C pooled numbers to 64 features."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.BatchNorm1d(1024),
        nn.Linear(1024, 256), nn.BatchNorm1d(256),
        nn.Linear(256, 64), nn.BatchNorm1d(64), nn.ReLU(),
    )  # fmt: skip


class IacaResNeXt101Network(nn.Module):
    """The authors' network; the keys of its state dict are theirs."""

    def __init__(self) -> None:
        super().__init__()
        from ..backbones import import_torchvision

        resnext = import_torchvision().models.resnext101_32x8d(weights=None)
        self.features = nn.Sequential(*list(resnext.children())[:-2])
        self.dr6, self.dr7 = dimension_reduction(1024), dimension_reduction(2048)
        self.att6, self.att7 = gate_net(1024), gate_net(2048)
        self.getw5, self.getw6 = illumination_net(), illumination_net()
        self.regr6, self.regr7, self.regression = nn.Linear(64, 1), nn.Linear(64, 1), nn.Linear(128, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the authors' q6, q7 and q, (N, 3), of pictures (N, 3, H, W) in [0, 1]."""
        brightest = x.amax(1, keepdim=True)  # (N, 1, H, W)
        third = self.features[:7](x)  # (N, 1024, h, w), stride 16
        fourth = self.features[7](third)  # (N, 2048, h, w), stride 32
        sixth = self.dr6(pool(third, brightest, self.getw5, self.att6))  # (N, 64)
        seventh = self.dr7(pool(fourth, brightest, self.getw6, self.att7))
        both = self.regression(torch.cat([sixth, seventh], 1))
        return torch.cat([self.regr6(sixth), self.regr7(seventh), both], 1)


@register(
    Card(
        name="iaca-resnext101",
        summary="IACA, the authors' network on ResNeXt-101 32x8d, for the authors' checkpoint.",
        source="IACA, IEEE TMM 2023, arXiv 2302.11464; github.com/Baoliang93/IACA_For_Lowlight_IQA",
        lower_better=False,
        score_range=(0.0, 1.0),
        license="the authors' repository is MIT; of the checkpoint apart from it nothing is stated",
        learned=True,
        commercial=False,
        blind_spots="its labels compare ten enhancements of one scene (share of comparisons won) and say nothing of "
        "one scene against another; knowing the enhancer alone predicts them at SRCC 0.817",
        trained_on="SQUARE-LOL, 2,470 enhanced pictures of 247 dark scenes, by the authors",
        checkpoint="resnext101_32x8d_last*",
        origin="the authors' release, checkpoints/resnext101_32x8d_last (MEGA; see "
        "https://github.com/Baoliang93/IACA_For_Lowlight_IQA), and `lowlight-iqa convert iaca-resnext101 FILE`",
    )
)
class IacaResNeXt101(Metric):
    """Share of comparisons that a picture would win among enhancements of its scene, 0..1; 1 is best."""

    def __init__(
        self, card: Card, network: IacaResNeXt101Network, slope: float = SLOPE, intercept: float = INTERCEPT
    ) -> None:
        """Build it around a network: score = slope * q + intercept.

        The defaults belong to the authors' released checkpoint; for another one both must be fitted to its outputs and
        labels, as the loss does not determine them.
        """
        super().__init__(card)
        self.network, self.slope, self.intercept = network, slope, intercept
        self.eval().requires_grad_(False)

    @classmethod
    def from_weights(cls, loaded: Loaded) -> IacaResNeXt101:  # type: ignore[override]
        """Build it from a weights file."""
        config = loaded.config
        return cls.from_tensors(loaded.card, loaded.tensors, config.number("slope"), config.number("intercept"))

    @classmethod
    def from_tensors(
        cls, card: Card, tensors: Mapping[str, Tensor], slope: float = SLOPE, intercept: float = INTERCEPT
    ) -> IacaResNeXt101:
        """Build it from a checkpoint's ``model`` tensors, all 696 of them, under the authors' keys.

        Raises:
            ValueError: keys or shapes differ; the message lists them.
        """
        with torch.device("meta"):  # saves initializing 92 million parameters that are overwritten
            network = IacaResNeXt101Network()
        network.to_empty(device="cpu")
        load_strictly(network, tensors)
        return cls(card, network, slope, intercept)

    def weight_module(self) -> nn.Module:
        """Return the network: weights files hold the authors' keys."""
        return self.network

    def weight_config(self) -> dict[str, Any]:
        """Return the affine map to the score."""
        return {"slope": self.slope, "intercept": self.intercept}

    def outputs(self, x: Tensor) -> Tensor:
        """Return the authors' q6, q7 and q, (N, 3), of pictures (N, 3, H, W) in [0, 1]."""
        return self.network(x)  # type: ignore[no-any-return]

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,)."""
        return self.slope * self.outputs(x.to(self.network.regression.weight.dtype))[:, 2] + self.intercept


def pool(stage: Tensor, brightest: Tensor, weigh: nn.Module, gate: nn.Module) -> Tensor:
    """Return gated deviations (N, C) of a stage (N, C, h, w), weighted by the illumination (N, 1, H, W)."""
    weighted = stage * weigh(F.adaptive_max_pool2d(brightest, stage.shape[2:]))
    gates: Tensor = gate(weighted.mean((2, 3)))
    return gates * deviation(weighted)
