"""LEIQ's method on a compact trunk: a quality score and six attributes.

References:
    LEIQ-Assessor, QoMEX 2026, arXiv 2606.29752: one shared trunk, for each task a head of two linear layers without an
    activation between them, the PLCC loss summed over the tasks, a 4-parameter logistic to the labels' scale.
    Here the trunk is EfficientNet-Lite instead of SigLIP2, its seven stages pooled to means and deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..attributes import ATTRIBUTES, sentence
from ..card import Card, license_of
from ..functional.logistic import logistic
from ..functional.maps import spread
from ..functional.resize import SHORT_SIDE, reduce
from ..metric import Metric
from ..registry import register
from ..weights.files import Loaded, load_strictly

TASKS = ("mos", *ATTRIBUTES)
MAX_HIDDEN = 100_000
GRID_STAGE = 3  # the stage whose resolution the maps have: stride 16


class LeiqNetwork(nn.Module):
    """Trunk ("lite0", "lite1" or "lite2"), pooled statistics and seven heads; ``hidden``: width inside a head."""

    def __init__(self, trunk: str = "lite2", hidden: int = 128) -> None:
        super().__init__()
        from ..backbones import CompactTrunk

        self.hidden = hidden
        self.trunk = CompactTrunk(trunk)
        width = 2 * sum(self.trunk.widths)
        self.center: Tensor
        self.scale: Tensor
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.heads = nn.ModuleDict(
            {task: nn.Sequential(nn.Linear(width, hidden), nn.Linear(hidden, 1)) for task in TASKS}
        )

    def statistics(self, x: Tensor, frozen: int = 0, half: bool = False) -> Tensor:
        """Return mean and deviation of every channel of every stage, (N, F), of pictures (N, 3, H, W) in [0, 1]."""
        pooled = []
        for stage in self.trunk(x, frozen, half):
            flat = rearrange(stage, "n c h w -> n c (h w)").to(self.center.dtype)
            mean = flat.mean(2)
            variance = (flat - mean[..., None]).square().mean(2)
            pooled += [mean, (variance + 1e-6).sqrt()]
        return torch.cat(pooled, 1)

    def maps(self, x: Tensor) -> Tensor:
        """Return maps (N, 7, h, w) of each task's raw output on the fourth stage's grid; their means are the outputs.

        With m the mean and d the root of the variance + 1e-6 of a channel, d is the mean of ((x - m)^2 + 1e-6) / d.
        """
        # Each head as one linear map of the pooled statistics.
        layers = [(cast(nn.Linear, head[0]), cast(nn.Linear, head[1])) for head in self._heads()]
        slopes = torch.stack([(outer.weight @ inner.weight)[0] for inner, outer in layers]) / self.scale  # (7, F)
        offsets = torch.stack([outer(inner.bias)[0] for inner, outer in layers]) - slopes @ self.center  # (7,)

        stages = [stage.to(self.center.dtype) for stage in self.trunk(x)]
        total, grid, first = offsets[:, None, None], stages[GRID_STAGE].shape[2:], 0
        for stage in stages:
            width = stage.shape[1]
            for_mean, for_deviation = slopes[:, first : first + 2 * width].split(width, 1)
            first += 2 * width
            squares = (stage - stage.mean((2, 3), keepdim=True)).square() + 1e-6
            shares = squares / squares.mean((2, 3), keepdim=True).sqrt()
            local = torch.einsum("tc,nchw->nthw", for_mean, stage)
            local = local + torch.einsum("tc,nchw->nthw", for_deviation, shares)
            total = total + spread(F.adaptive_avg_pool2d(local, grid), grid, like=local)
        return total

    def _heads(self) -> list[nn.Sequential]:
        return [cast(nn.Sequential, self.heads[task]) for task in TASKS]

    def forward(self, x: Tensor, frozen: int = 0, dropout: float = 0.0, half: bool = False) -> dict[str, Tensor]:
        """Return raw outputs (N,) of each task, whose scale is arbitrary; all arguments but ``x`` are for training."""
        features = (self.statistics(x, frozen, half) - self.center) / self.scale
        features = F.dropout(features, dropout, dropout > 0)
        return {task: head(features)[:, 0] for task, head in self.heads.items()}


@register(
    Card(
        name="leiq",
        summary="LEIQ's method on a compact trunk, trained by this project on BIQ2021; not the authors' checkpoint.",
        source="LEIQ-Assessor, QoMEX 2026, arXiv 2606.29752; heads and loss as published, trunk EfficientNet-Lite",
        lower_better=False,
        score_range=(0.0, 10.0),
        typical_range=(8.34, 1.73),
        license=license_of("leiq"),
        learned=True,
        commercial=False,
        looks=10,
        sees=("exposure", "noise"),
        preprocessing=f"shorter side reduced to {SHORT_SIDE} where it is larger, bilinear, antialiased",
        blind_spots="what was meant: a low-key or misty picture can pass for a failed one; hardly sees halos of local "
        "tone mapping; of all attributes, color says least, as one cannot see what color was lost; the attributes "
        "were learned from synthetic degradations of clean pictures, not from people's ratings of them; a change that "
        "nobody sees, made for it, moves the score as far as it likes: docs/robustness.md",
        trained_on="9,054 pictures of BIQ2021's training list with people's scores (MOS); 1,200 groups of synthetic "
        "degradations of its clean pictures and of 22 LOL normal-light pictures (attributes); trunk EfficientNet-Lite2 "
        "from ImageNet, by way of an earlier leiq (2,445 of the pictures, order of MOS in the groups)",
        datasets=("BIQ2021", "LOL"),
        base_model="timm/tf_efficientnet_lite2.in1k",
        reached={
            "SRCC, BIQ2021 test split, 2000 pictures": "0.863 [0.851, 0.875]",
            "PLCC (raw), BIQ2021 test split, 2000 pictures": "0.878 [0.866, 0.891]",
            "SRCC, BIQ2021 test split, 409 dark pictures (mean luma < 70)": "0.904 [0.882, 0.921]",
            "LOL, dark picture below its normal-light one": "37 of 37 pairs",
            "score strictly falling over exposure x1, x0.5, x0.2, x0.1, x0.05": "95 of 100 pictures; light: 100",
        },
        weights="leiq.safetensors",
        sha256="35b8ab56ddab4e9e233678b232396b6ef43e783b6853b60eeff7cbfd2f187c5d",
    ),
    Card(
        name="leiq-robust",
        summary="leiq trained against change nobody sees, which raises its score a quarter as far; agrees "
        "less with people.",
        source="LEIQ-Assessor, QoMEX 2026, arXiv 2606.29752; adversarial training as Wong et al., ICLR 2020, "
        "arXiv 2001.03994",
        lower_better=False,
        score_range=(0.0, 10.0),
        typical_range=(7.96, 2.09),
        license=license_of("leiq-robust"),
        learned=True,
        commercial=False,
        looks=2,
        sees=("exposure", "noise"),
        preprocessing="shorter side reduced to 320 where it is larger, bilinear, antialiased",
        blind_spots="as leiq",
        datasets=("BIQ2021", "LOL"),
        base_model="timm/tf_efficientnet_lite2.in1k",
        trained_on="9,054 pictures of BIQ2021's training list with people's scores (MOS), each changed by up to 4/255 "
        "against its score; order of exposures and noise; synthetic degradations as leiq; trunk from leiq",
        reached={
            "SRCC, BIQ2021 test split, 2000 pictures": "0.675 [0.645, 0.699]",
            "PLCC (raw), BIQ2021 test split, 2000 pictures": "0.734 [0.707, 0.758]",
            "SRCC, BIQ2021 test split, 409 dark pictures (mean luma < 70)": "0.782 [0.736, 0.820]",
            "LOL, dark picture below its normal-light one": "37 of 37 pairs",
            "score strictly falling over exposure x1, x0.5, x0.2, x0.1, x0.05": "95 of 100 pictures; light: 99",
        },
        weights="leiq-robust.safetensors",
        sha256="182af1fe06093ee4f04fe9e892f9753f0cf1802dd77a6953614a3e08d45af016",
    ),
)
class Leiq(Metric):
    """Score on MLE's 0..10 and six attributes on 1..5 (5: no loss) for pictures taken or enhanced in low light."""

    def __init__(
        self, card: Card, network: LeiqNetwork, mappings: Mapping[str, list[float]], view: int = SHORT_SIDE
    ) -> None:
        """Build it; ``mappings``: ``logistic``'s parameters by task; ``view``: shorter side of reduced pictures."""
        super().__init__(card)
        self.network, self.mappings, self.view = network, dict(mappings), view
        self.eval().requires_grad_(False)

    @classmethod
    def from_weights(cls, loaded: Loaded) -> Leiq:  # type: ignore[override]
        """Build it from a weights file."""
        from ..backbones import COMPACT

        trunk, hidden = loaded.config.choice("trunk", COMPACT), loaded.config.integer("hidden", 1, MAX_HIDDEN)
        curves = loaded.config.part("mappings")
        with torch.device("meta"):  # so that shapes are checked before memory is allocated
            network = LeiqNetwork(trunk, hidden)
        view = loaded.config.integer("view", 32, 4096) if "view" in loaded.config else SHORT_SIDE
        metric = cls(loaded.card, network, {task: curves.curve(task) for task in TASKS}, view)
        load_strictly(metric, loaded.tensors, assign=True)
        return metric

    def weight_config(self) -> dict[str, Any]:
        """Return architecture, mappings and view."""
        trunk = self.network.trunk.name
        return {"trunk": trunk, "hidden": self.network.hidden, "mappings": self.mappings, "view": self.view}

    def _mapped(self, x: Tensor) -> dict[str, Tensor]:
        raw = self.network(reduce(x.to(self.network.center.dtype), self.view))
        return {task: logistic(raw[task], self.mappings[task]) for task in TASKS}

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return MOS (N,) on 0..10."""
        return self._mapped(x)["mos"]

    def explain_batch(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return MOS and the six attributes on 1..5."""
        mapped = self._mapped(x)
        return mapped["mos"], {task: mapped[task] for task in TASKS[1:]}

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Return maps of the heads' linear outputs, *before* the mapping to the scale: larger is better.

        Each head is linear in the trunk's pooled means and deviations, which are means over the positions of a stage.
        So an output is exactly the mean of its map: ``logistic(map.mean(), metric.mappings["mos"])`` is the score.
        """
        raw = self.network.maps(reduce(x.to(self.network.center.dtype), self.view))
        local = spread(raw, x.shape[2:])  # (N, 7, H, W)
        return {"score" if task == "mos" else task: local[:, index] for index, task in enumerate(TASKS)}

    def describe(self, score: float, attributes: Mapping[str, float]) -> str:
        """Describe the attributes in the words of MLE's descriptions."""
        return sentence(attributes)
