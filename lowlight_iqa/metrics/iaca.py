"""IACA's method on a compact trunk: positions are weighted by illumination, channels are gated by content.

References:
    IACA, IEEE TMM 2023, arXiv 2302.11464, code github.com/Baoliang93/IACA_For_Lowlight_IQA: two stages of the trunk are
    weighted by a map computed from the picture's brightest channel; each channel's mean, through a small network, gates
    its deviation; three outputs are trained by the norm-in-norm loss of LinearityIQA (Li et al., ACM MM 2020).
    Here the trunk is EfficientNet-Lite instead of ResNeXt-101, with layer norm instead of batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..card import Card, license_of
from ..functional.exportable import cell_maxima, exporting
from ..functional.logistic import logistic
from ..functional.maps import spread
from ..functional.resize import SHORT_SIDE, reduce
from ..metric import Metric
from ..registry import register
from ..weights.files import Loaded, load_strictly

WINDOW = 4  # side of a map's window, about, on the first tap's grid: 64 pixels plus the trunk's receptive field
TINY = 1e-12  # added to a variance: its root changes by less than 1e-6, and its slope stays finite


def deviation(x: Tensor) -> Tensor:
    """Return the population standard deviation (N, C) of maps (N, C, h, w).

    It is var / sqrt(var + 1e-12): 0 on flat maps (1e-8 by rounding), within 4e-7 of sqrt(var), its gradient is finite.
    """
    flat = rearrange(x, "n c h w -> n c (h w)")
    variance = (flat - flat.mean(2, keepdim=True)).square().mean(2)
    return variance / (variance + TINY).sqrt()


def illumination_net() -> nn.Sequential:
    """Build the map from the brightest channel (N, 1, h, w) to weights of at least 0 (IACA's getw5 and getw6)."""
    return nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 3, padding=1), nn.ReLU())


def gate_net(width: int) -> nn.Sequential:
    """Build the map from the channels' means (N, C) to their gates in 0..1 (IACA's att6 and att7)."""
    widths = (width, 256, 64, 256, width)
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


class Tap(nn.Module):
    """The layers after a stage of ``width`` channels: 64 features and an output; either mechanism may be off."""

    def __init__(self, width: int, illumination: bool, gating: bool) -> None:
        super().__init__()
        self.weigh = illumination_net() if illumination else None
        self.gate = gate_net(width) if gating else None
        self.reduce = nn.Sequential(  # IACA's dr6 and dr7, with layer norm
            nn.Linear(width, 1024), nn.LayerNorm(1024),
            nn.Linear(1024, 256), nn.LayerNorm(256),
            nn.Linear(256, 64), nn.LayerNorm(64), nn.ReLU(),
        )  # fmt: skip
        self.output = nn.Linear(64, 1)
        if self.weigh is not None:  # start at weight 1: a map that is 0 everywhere has no gradient
            nn.init.normal_(self.weigh[2].weight, std=0.01)  # type: ignore[arg-type]
            nn.init.ones_(self.weigh[2].bias)  # type: ignore[arg-type]

    def forward(self, stage: Tensor, brightest: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, 64) and output (N, 1) of a stage (N, C, h, w) and the brightest channel (N, 1, H, W)."""
        if self.weigh is not None:
            pool = cell_maxima if exporting() else F.adaptive_max_pool2d
            stage = stage * self.weigh(pool(brightest, stage.shape[2:]))
        pooled = deviation(stage)
        if self.gate is not None:
            pooled = pooled * self.gate(stage.mean((2, 3)))
        features = self.reduce(pooled)
        return features, self.output(features)

    def local(self, stage: Tensor, brightest: Tensor, window: int) -> Tensor:
        """Return features (N, 64, h, w) of the window around each position of a stage (N, C, h, w)."""
        if self.weigh is not None:
            stage = stage * self.weigh(F.adaptive_max_pool2d(brightest, stage.shape[2:]))
        mean, square = (F.avg_pool2d(x, window, 1, window // 2, count_include_pad=False) for x in (stage, stage**2))
        variance = (square - mean.square()).relu()
        pooled = rearrange(variance / (variance + TINY).sqrt(), "n c h w -> n h w c")
        if self.gate is not None:
            pooled = pooled * self.gate(rearrange(mean, "n c h w -> n h w c"))
        features: Tensor = self.reduce(pooled)
        return rearrange(features, "n h w c -> n c h w")


class IacaNetwork(nn.Module):
    """Trunk ("lite0", "lite1" or "lite2"), taps and the output of all taps.

    ``taps`` are the trunk's stages that are pooled; 4 and 6 are the last ones at strides 16 and 32, as IACA's layer3
    and layer4 are. ``illumination`` and ``gating`` are off for ablations.
    """

    def __init__(
        self, trunk: str = "lite2", taps: Sequence[int] = (4, 6), illumination: bool = True, gating: bool = True
    ) -> None:
        super().__init__()
        from ..backbones import CompactTrunk

        self.trunk = CompactTrunk(trunk)
        if not taps or not set(taps) <= set(range(len(self.trunk.widths))):
            raise ValueError(f"taps are stages of the trunk, 0 to {len(self.trunk.widths) - 1}, not {tuple(taps)}")
        self.config = {"trunk": trunk, "taps": list(taps), "illumination": illumination, "gating": gating}
        self.taps = nn.ModuleDict({str(tap): Tap(self.trunk.widths[tap], illumination, gating) for tap in taps})
        self.output = nn.Linear(64 * len(taps), 1)

    def forward(self, x: Tensor, half: bool = False) -> Tensor:
        """Return raw outputs (N, taps + 1) of pictures (N, 3, H, W) in [0, 1]: each tap's own, then that of all taps.

        Their scale is arbitrary. ``half`` is for training, see ``CompactTrunk``.
        """
        brightest = x.amax(1, keepdim=True)  # (N, 1, H, W)
        stages = self.trunk(x, half=half)
        features, outputs = [], []
        for index, tap in self.taps.items():
            own_features, own_output = tap(stages[int(index)].to(x.dtype), brightest)
            features.append(own_features)
            outputs.append(own_output)
        return torch.cat([*outputs, self.output(torch.cat(features, 1))], 1)

    def local(self, x: Tensor) -> Tensor:
        """Return the raw output (N, 1, h, w) of all taps for the window around each position of the first tap."""
        brightest = x.amax(1, keepdim=True)  # (N, 1, H, W)
        stages = self.trunk(x)
        grid = stages[min(map(int, self.taps))].shape[2:]
        features = []
        for index, tap in self.taps.items():
            stage = stages[int(index)].to(x.dtype)
            window = 2 * round(WINDOW * stage.shape[2] / grid[0] / 2) + 1  # odd, of the same size in the picture
            own = tap.local(stage, brightest, window)  # type: ignore[operator]  # (N, 64, h', w')
            features.append(F.interpolate(own, size=grid, mode="bilinear", align_corners=False))
        return F.conv2d(torch.cat(features, 1), self.output.weight[..., None, None], self.output.bias)


@register(
    Card(
        name="iaca",
        summary="IACA's method on a compact trunk, trained by this project on BIQ2021; not the authors' checkpoint.",
        source="IACA, IEEE TMM 2023, arXiv 2302.11464; pooling, outputs and loss as published, trunk EfficientNet-Lite "
        "and layer norm instead of ResNeXt-101 and batch norm",
        lower_better=False,
        score_range=(0.0, 1.0),
        typical_range=(0.81, 0.206),
        license=license_of("iaca"),
        learned=True,
        commercial=False,
        looks=4,
        sees=("exposure", "noise"),
        preprocessing=f"shorter side reduced to {SHORT_SIDE} where it is larger, bilinear, antialiased",
        blind_spots="gives no reasons; what was meant: a low-key or misty picture can pass for a failed one",
        trained_on="9,054 pictures of BIQ2021's training list with people's scores (MOS), on leiq's trunk, which had "
        "learned leiq's tasks on them and on degradations of BIQ2021's and LOL's clean pictures, after ImageNet",
        datasets=("BIQ2021", "LOL"),
        base_model="timm/tf_efficientnet_lite2.in1k",
        reached={
            "SRCC, BIQ2021 test split, 2000 pictures": "0.871 [0.859, 0.883]",
            "PLCC (raw), BIQ2021 test split, 2000 pictures": "0.881 [0.868, 0.894]",
            "SRCC, BIQ2021 test split, 409 dark pictures (mean luma < 70)": "0.912 [0.891, 0.928]",
        },
        weights="iaca.safetensors",
        sha256="fc86c56a73ea59b8be0d150cf5a07e3e09c5e37b5dc9cfd6c3488df8259abdc2",
    )
)
class Iaca(Metric):
    """Score on BIQ2021's 0..1 (MOS, 1 is best) for pictures taken or enhanced in low light."""

    def __init__(self, card: Card, network: IacaNetwork, mapping: Sequence[float]) -> None:
        """Build it around a network; ``mapping`` holds the parameters of ``logistic``."""
        super().__init__(card)
        self.network, self.mapping = network, list(mapping)
        self.eval().requires_grad_(False)

    @classmethod
    def from_weights(cls, loaded: Loaded) -> Iaca:  # type: ignore[override]
        """Build it from a weights file."""
        from ..backbones import COMPACT

        facts = loaded.config.part("network")
        taps = [int(tap) for tap in facts.numbers("taps")]
        with torch.device("meta"):  # so that shapes are checked before memory is allocated
            network = IacaNetwork(
                facts.choice("trunk", COMPACT), taps, facts.flag("illumination"), facts.flag("gating")
            )
        metric = cls(loaded.card, network, loaded.config.curve("mapping"))
        load_strictly(metric, loaded.tensors, assign=True)
        return metric

    def weight_config(self) -> dict[str, Any]:
        """Return architecture and mapping."""
        return {"network": self.network.config, "mapping": self.mapping}

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return MOS (N,) on 0..1."""
        dtype = self.network.output.weight.dtype
        return logistic(self.network(reduce(x.to(dtype), SHORT_SIDE))[:, -1], self.mapping)  # type: ignore[no-any-return]

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Return the network's output for the window around each position, *after* the mapping to 0..1.

        Means and deviations are those of the window instead of the picture. The pooling is not linear, so the score is
        not the mean of the map.
        """
        dtype = self.network.output.weight.dtype
        local = logistic(self.network.local(reduce(x.to(dtype), SHORT_SIDE)), self.mapping)
        return {"score": spread(local, x.shape[2:])[:, 0]}
