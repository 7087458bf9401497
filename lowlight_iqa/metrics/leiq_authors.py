"""The authors' LEIQ-Assessor, reproduced exactly: single task, multi task, and the mean of both, on SigLIP2 towers.

References:
    LEIQ-Assessor, QoMEX 2026, arXiv 2606.29752; https://github.com/sunwei925/LEIQ-Assessor, whose checkpoints have
    these keys and shapes. MOS is mapped by the 4-parameter logistic that its test code fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..attributes import WORDS, sentence
from ..card import Card
from ..functional.logistic import fit_logistic, logistic
from ..functional.once import once, once_differentiable
from ..metric import Metric, full_precision, inside_transform
from ..registry import get_card, register
from ..weights.files import Loaded, load_strictly, save_splits
from ..weights.resolve import on_hub, splits
from .leiq import TASKS

SHORT_SIDE = 432  # every picture is resized to it and center-cropped
HIDDEN = 128  # width between the two layers of a head
TOWERS = {  # timm's name, side of the center crop, tasks
    "leiq-b16": ("vit_base_patch16_siglip_384", 384, TASKS[:1]),
    "leiq-so400m": ("vit_so400m_patch14_siglip_378", 378, TASKS),
}


# Preprocessing


def new_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width with a short side of ``SHORT_SIDE``; the long one is rounded down."""
    long = int(SHORT_SIDE * max(height, width) / min(height, width))
    return (SHORT_SIDE, long) if height <= width else (long, SHORT_SIDE)


def resize(x: Tensor) -> Tensor:
    """Resize pictures (N, 3, H, W) to a short side of ``SHORT_SIDE``: bilinear, antialiased, in floats."""
    size = new_size(*x.shape[2:])
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def resize_8_bit(levels: Tensor) -> Tensor:
    """Resize (1, 3, H, W) uint8 with PIL as the authors do; return (1, 3, h, w) in [0, 1], rounded to 8 bits."""
    import numpy as np
    from PIL import Image

    height, width = new_size(*levels.shape[2:])
    image = Image.fromarray(rearrange(levels, "1 c h w -> h w c").contiguous().numpy())
    resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    return rearrange(torch.from_numpy(resized), "h w c -> 1 c h w") / 255


def center_crop(x: Tensor, side: int) -> Tensor:
    """Crop the center square of (N, 3, H, W), rounding its position as torchvision's CenterCrop does."""
    top, left = (round((length - side) / 2) for length in x.shape[2:])
    return x[:, :, top : top + side, left : left + side]


def trim(x: Tensor) -> Tensor:
    """Cut off the ends of resized pictures (N, 3, h, w) that no ``center_crop`` contains.

    Multiples of four pixels are removed, so that the center crop rounds its position as before.
    """
    top, left = ((length - SHORT_SIDE) // 4 * 2 for length in x.shape[2:])
    return x[:, :, top : x.shape[2] - top, left : x.shape[3] - left]


# The mean of several models


class _ScoreAndRelease(torch.autograd.Function):
    """Scores of pictures by a metric that may be released before ``backward``: the gradient is computed at once.

    A score depends on its picture alone, so the gradient of the sum holds that of each.
    """

    @staticmethod
    def forward(ctx: Any, metric: Metric, *pictures: Tensor) -> Tensor:
        with torch.enable_grad():
            leaves = [picture.detach().requires_grad_() for picture in pictures]
            scores = score_singly(metric, leaves)
            ctx.slopes = torch.autograd.grad(scores.sum(), leaves)
        return scores.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(factor * slope for factor, slope in zip(grad, ctx.slopes, strict=True))


def score_singly(metric: Metric, pictures: list[Tensor]) -> Tensor:
    """Score checked pictures (3, H, W) one by one on a CPU, together on other devices.

    On a CPU a batch is no faster, and its products round differently.
    """
    singles = [picture[None] for picture in pictures]
    if pictures[0].device.type == "cpu" and not isinstance(metric, LeiqMean):  # which reads its parts for every call
        return torch.cat([metric._score(single) for single in singles])
    return metric._score_list(singles, None)


def preprocess(pixels: Tensor) -> Tensor:
    """Resize pixels (3, H, W) in [0, 1] and trim them to (3, h, w), as the authors prepare a file.

    If all samples are 8-bit values, the result is rounded to 8 bits as in the authors' code; anything finer, such as a
    16-bit file, is resized in floats.
    """
    x = pixels[None]
    levels = (x * 255).round().byte()
    exact = torch.equal(levels / 255, x)
    return trim(resize_8_bit(levels) if exact else resize(x))[0]


class LeiqAuthors(Metric):
    """What the authors' models and their means share."""

    half_precision: torch.dtype | None = None  # see LeiqMean

    def describe(self, score: float, attributes: Mapping[str, float]) -> str:
        """Describe the six attributes if all are calibrated, else the score."""
        return sentence(attributes) if attributes.keys() == WORDS.keys() else super().describe(score, attributes)

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Resize and round as the authors do."""
        return preprocess(super().preprocess(pixels))


class LeiqMean(LeiqAuthors):
    """The mean of metrics, of which one at a time is in memory; ``keep_loaded = True`` holds all of them in memory.

    Without ``keep_loaded`` every call reads them from disk, so give many pictures as one list. ``half_precision =
    torch.float16`` is faster and less exact: the matrix products in the towers' blocks are computed in it, all else in
    float32. torch.bfloat16 is far less exact.
    """

    concurrent = False
    second_derivatives = False
    keep_loaded = False

    def __init__(self, card: Card, parts: Mapping[str, Callable[[], Metric]]) -> None:
        """Build it from functions that load its parts, by the name of the folder in which each part is saved."""
        super().__init__(card)
        self.parts = dict(parts)
        self._loaded: dict[str, Metric] = {}

    def _part(self, name: str) -> Metric:
        if not self.keep_loaded:
            self._loaded.clear()
        part = self._loaded.get(name)
        if part is None or (part.device, part._anchor.dtype) != (self.device, self._anchor.dtype):
            part = self._load(name, part)
        if self.keep_loaded:
            self._loaded[name] = part
        if isinstance(part, LeiqMean):
            part.keep_loaded = self.keep_loaded
        if isinstance(part, LeiqAuthors):
            part.half_precision = self.half_precision
        return part

    def _load(self, name: str, part: Metric | None) -> Metric:
        """Load a part, or take the loaded one, and bring it to this metric's device and precision."""
        if inside_transform():
            advice = "set keep_loaded = True and score a picture before"
            raise TypeError(f"{self.card.name} cannot load {name} inside torch.func; {advice}")
        with torch.inference_mode(False):  # a part that is kept may be trained through later
            return (part or self.parts[name]()).to(self.device, self._anchor.dtype)

    def components(self) -> Iterator[Metric]:
        """Yield the parts."""
        return (self._part(name) for name in self.parts)

    def _part_scores(self, name: str, pictures: list[Tensor]) -> Tensor:
        part = self._part(name)
        release = not self.keep_loaded and torch.is_grad_enabled() and any(x.requires_grad for x in pictures)
        if not release:
            return score_singly(part, pictures)
        return _ScoreAndRelease.apply(part, *(once(x, self.card.name) for x in pictures))  # type: ignore[no-any-return,no-untyped-call]

    def _mean(self, pictures: list[Tensor]) -> Tensor:
        return torch.stack([self._part_scores(name, pictures) for name in self.parts]).mean(0)

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return the mean MOS (N,) on 0..10."""
        return self._mean(list(x))

    def _score_list(self, pictures: Iterable[Tensor], references: Iterable[Tensor] | None) -> Tensor:
        """Score all pictures with one part before the next is loaded."""
        with full_precision(self.device.type):
            return self._mean([picture[0] for picture in pictures])

    def explain_batch(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean MOS, and the mean of each attribute over the parts that have it."""
        scores: list[Tensor] = []
        by_attribute: dict[str, list[Tensor]] = {}
        for name in self.parts:
            part = self._part(name)
            score, attributes = part.explain_batch(x)
            self.uncalibrated |= part.uncalibrated
            del part  # before the next one is loaded

            scores.append(score)
            for key, value in attributes.items():
                by_attribute.setdefault(key, []).append(value)
        means = {key: torch.stack(values).mean(0) for key, values in by_attribute.items()}
        return torch.stack(scores).mean(0), means

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write each part to a folder of its own, and a config that lists them."""
        for name in self.parts:
            self._part(name).save_pretrained(Path(directory) / name)
        return save_splits(self.card, Path(directory), list(self.parts))


# The authors' models


class SiglipNetwork(nn.Module):
    """Tower (``backbones.siglip_tower``) and heads of "leiq-b16" or "leiq-so400m"; state-dict keys are the authors'."""

    def __init__(self, name: str, tower: nn.Module) -> None:
        super().__init__()
        self.name = name
        _, self.side, self.tasks = TOWERS[name]
        width = int(tower.num_features)  # type: ignore[arg-type]
        heads = [nn.Sequential(nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, 1)) for _ in self.tasks]
        self.feature_extraction = nn.ModuleDict({"trunk": tower})
        if len(heads) == 1:
            self.quality = heads[0]
        else:
            self.heads = nn.ModuleDict(dict(zip(self.tasks, heads, strict=True)))

    @classmethod
    def of_tensors(cls, name: str, tensors: Mapping[str, Tensor]) -> SiglipNetwork:
        """Build the network from a state dict, whose tensors become its parameters without a copy."""
        from ..backbones import siglip_tower

        network = cls(name, siglip_tower(TOWERS[name][0]))
        load_strictly(network, tensors, assign=True)
        return network

    def forward(self, x: Tensor, half: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return raw outputs (N,) by task of pictures (N, 3, H, W) in [0, 1]; their scale is arbitrary."""
        return self.outputs(center_crop(resize(x), self.side), half)

    def outputs(self, crops: Tensor, half: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return raw outputs (N,) by task of center crops (N, 3, side, side) in [0, 1].

        ``half`` is a narrower dtype for the matrix products in the tower's blocks.
        """
        trunk: Any = self.feature_extraction["trunk"]
        heads = [self.quality] if len(self.tasks) == 1 else self.heads.values()
        dtype = next(iter(heads))[0].weight.dtype  # type: ignore[index]
        with torch.autocast(crops.device.type, half, half is not None):
            tokens = trunk.forward_features((crops * 2 - 1).to(dtype))  # (N, tokens, C)
        features = trunk.forward_head(tokens.to(dtype))  # (N, C)
        return {task: head(features)[:, 0].to(crops.dtype) for task, head in zip(self.tasks, heads, strict=True)}


FACTS: dict[str, Any] = {
    "source": "LEIQ-Assessor, QoMEX 2026, arXiv 2606.29752; equal to https://github.com/sunwei925/LEIQ-Assessor",
    "lower_better": False,
    "score_range": (0.0, 10.0),
    "license": "Apache-2.0 by the badge of the authors' repository; MLE, the training data, states no license",
    "learned": True,
    "commercial": False,
    "trained_on": "MLE: 800 enhanced low-light pictures of 80 scenes with people's scores, by the authors",
    "datasets": ("MLE",),
}
PREPROCESSING = (
    f"short side resized to {SHORT_SIDE}, bilinear, antialiased, the {{}} in the middle; files and 8-bit arrays by PIL "
    "and rounded to 8 bits as the authors do, tensors in floats"
)
ORIGIN = (
    "the authors' release (see https://github.com/sunwei925/LEIQ-Assessor): {} with their .mat, "
    "and `lowlight-iqa convert {} FILE_OR_FOLDER --install`"
)
ST, MT = "SigLIP2_384_Image_MLE_v*_ep*_SRCC*.pth", "SigLIP2_ViTG_384_Image_MT_MLE_v*_ep*_SRCC*.pth"
BLIND_SPOTS = "whatever lies outside the middle square"


@register(
    Card(
        name="leiq-b16",
        summary="The authors' single-task LEIQ-Assessor, SigLIP2 ViT-B/16 at 384; their checkpoint is to be converted.",
        preprocessing=PREPROCESSING.format("384 x 384"),
        blind_spots=BLIND_SPOTS,
        base_model="timm/ViT-B-16-SigLIP2-384",
        checkpoint=ST,
        origin=ORIGIN.format(ST, "leiq-b16"),
        **FACTS,
    ),
    Card(
        name="leiq-so400m",
        summary="The authors' multi-task LEIQ-Assessor, SigLIP2 SO400M/14 at 378; their checkpoint is to be converted.",
        preprocessing=PREPROCESSING.format("378 x 378"),
        blind_spots=BLIND_SPOTS,
        base_model="timm/ViT-SO400M-14-SigLIP2-378",
        checkpoint=MT,
        origin=ORIGIN.format(MT, "leiq-so400m"),
        **FACTS,
    ),
)
class LeiqSiglip(LeiqAuthors):
    """One of the authors' models: MOS on 0..10, and six attributes with seven tasks."""

    second_derivatives = False  # torch's fused attention has none

    def __init__(
        self, card: Card, network: SiglipNetwork, mappings: Mapping[str, list[float]] = MappingProxyType({})
    ) -> None:
        """Build it; ``mappings``: parameters of ``logistic`` by task; a task without is uncalibrated."""
        super().__init__(card)
        self.network, self.mappings = network, dict(mappings)
        self.uncalibrated = frozenset(network.tasks) - self.mappings.keys()
        self.eval().requires_grad_(False)

    @classmethod
    def from_weights(cls, loaded: Loaded) -> LeiqSiglip:  # type: ignore[override]
        """Build it from a weights file."""
        curves, tasks = loaded.config.part("mappings"), TOWERS[loaded.card.name][2]
        mappings = {task: curves.curve(task) for task in tasks if task in curves or task == "mos"}
        return cls(loaded.card, SiglipNetwork.of_tensors(loaded.card.name, loaded.tensors), mappings)

    @classmethod
    def from_source(cls, card: Card, source: str | Path | None = None, **options: Any) -> Metric:
        """Build it, or the mean over the splits that the source holds."""
        sources = splits(card, source)
        if len(sources) == 1:
            return super().from_source(card, sources[0], **options)
        return LeiqMean(card, {Path(split).name: partial(cls.from_source, card, split) for split in sources})

    @classmethod
    def from_tensors(
        cls, card: Card, tensors: Mapping[str, Tensor], mat: Mapping[str, Any] | None = None
    ) -> LeiqSiglip:
        """Build it from a checkpoint's state dict and the .mat file of predictions and labels next to it.

        Raises:
            ValueError: keys or shapes that do not fit, or no predictions and labels of MOS.
        """
        mappings = fit_mappings(card.name, mat)
        own = {key: value.float() for key, value in tensors.items()}
        return cls(card, SiglipNetwork.of_tensors(card.name, own), mappings)

    def weight_module(self) -> nn.Module:
        """Return the network: weights files hold the authors' keys."""
        return self.network

    def weight_config(self) -> dict[str, Any]:
        """Return the mappings to the labels' scales."""
        return {"mappings": self.mappings}

    def raw(self, x: Tensor) -> dict[str, Tensor]:
        """Return the heads' outputs (N,) of pictures (N, 3, H, W) in [0, 1], by task; their scale is arbitrary."""
        return self.network(x, self.half_precision)  # type: ignore[no-any-return]

    def mapped(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map raw outputs to the labels' scales; those of uncalibrated tasks stay as they are."""
        return {
            task: logistic(value, self.mappings[task]) if task in self.mappings else value
            for task, value in raw.items()
        }

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return MOS (N,) on 0..10."""
        return self.mapped(self.raw(x))["mos"]

    def explain_batch(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return MOS and the attributes, on 1..5 except those in ``uncalibrated``."""
        mapped = self.mapped(self.raw(x))
        return mapped["mos"], {task: mapped[task] for task in self.network.tasks[1:]}


def fit_mappings(name: str, mat: Mapping[str, Any] | None) -> dict[str, list[float]]:
    """Fit the logistic of each task that the .mat file has predictions and labels of; those of MOS must be there.

    MOS is fitted as in the authors' code; the asymptotes of an attribute's curve are bounded to 1..5.
    """
    if mat is None:
        raise ValueError(
            f"{name} needs the .mat file of predictions and labels that comes with the checkpoint to scale its scores; "
            "put it next to the checkpoint under the same name, or give --mat"
        )

    mappings = {}
    for task in TOWERS[name][2]:
        keys = (f"{task}_pred", f"{task}_label")
        if task == "mos" and "y_output" in mat:
            keys = ("y_output", "label")
        if all(key in mat for key in keys):
            scores, labels = (mat[key].ravel() for key in keys)
            mappings[task] = list(fit_logistic(scores, labels, None if task == "mos" else (1.0, 5.0)))

    if "mos" not in mappings:
        present = ", ".join(key for key in mat if not key.startswith("__")) or "nothing"
        raise ValueError(f"the .mat holds {present}, but neither y_output and label nor mos_pred and mos_label")
    return mappings


@register(
    Card(
        name="leiq-ensemble",
        summary="The mean of the authors' two LEIQ-Assessor models, leiq-b16 and leiq-so400m, each over its splits.",
        preprocessing="that of leiq-b16 and leiq-so400m",
        blind_spots=BLIND_SPOTS,
        **FACTS,
    )
)
class LeiqEnsemble(LeiqMean):
    """MOS on 0..10, the attributes of ``leiq-so400m``, and one tower in memory at a time."""

    @classmethod
    def from_source(cls, card: Card, source: str | Path | None = None, **options: Any) -> Metric:
        """Build it from a folder that holds both models, or from the installed models."""
        if source is not None and on_hub(source):
            raise ValueError(
                f"{card.name} is loaded from a folder that holds {' and '.join(TOWERS)}, not from {source}; give such "
                "a folder"
            )
        parts = {}
        for name in TOWERS:
            own = None if source is None else Path(source) / name
            splits(get_card(name), own)  # raises now, rather than in the middle of a score, if weights are missing
            parts[name] = partial(LeiqSiglip.from_source, get_card(name), own)
        return cls(card, parts)
