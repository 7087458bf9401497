"""BMQA's method on a compact trunk: a score from the picture and a description of its quality.

References:
    BMQA, IJCV 2024, doi 10.1007/s11263-024-02239-9 (arXiv 2303.10369): an image and a text tower, an alignment block
    for each, a linear probe on both; without a given text, a captioner writes one.
    Show, attend and tell, Xu et al., ICML 2015, arXiv 1502.03044: the captioner.
    docs/bmqa.md describes the choices made where the paper is unclear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from ...card import Card, license_of
from ...functional.exportable import exporting
from ...functional.logistic import logistic
from ...functional.maps import spread
from ...functional.once import once
from ...functional.resize import SHORT_SIDE
from ...metric import Assessment, Metric, Pictures, as_list, full_precision
from ...registry import register
from ...weights.facts import Facts
from ...weights.files import Loaded, load_strictly
from .network import MODALITIES, BmqaNetwork, Config
from .slots import SLOTS, levels_of, plain_sentence
from .towers import GRID, TEXT_TOWERS
from .vocabulary import END, Vocabulary, padded

CAPTIONERS = ("learned", "rules")
EXPORTED = 30  # words of a caption in an exported graph; where that is too short the score is NaN
PAPER = {"resnet50": "bmqa-rn50", "vit_base_patch32_224": "bmqa-vitb32", "convnext_base": "bmqa-convnext"}

_SOURCE = "BMQA, IJCV 2024, doi 10.1007/s11263-024-02239-9; captioner: show, attend and tell, arXiv 1502.03044"
_GRADIENT = (
    "through the image alone: the caption is constant where its words do not change, and the score may jump there"
)
_ORIGIN = "your own training: `lowlight-iqa train bmqa --stage pretrain` (align, score, caption)"


def _paper_card(name: str, tower: str, trunk: str) -> Card:
    return Card(
        name=name,
        summary=f"BMQA with the paper's towers, {trunk} and Transformer; nobody published weights, train your own.",
        source=_SOURCE,
        lower_better=False,
        score_range=(0.0, 1.0),
        license="your own weights; the paper published none",
        gradient=_GRADIENT,
        piecewise=True,
        learned=True,
        preprocessing="resized to 224x224, bilinear, antialiased",
        origin=f"{_ORIGIN} with --tower {tower} writes RUN/{name}",
    )


def checked_config(facts: Facts) -> Config:
    """Read the architecture from a weights file's config and check its bounds.

    Only listed trunks are accepted: timm takes other names for repositories to download or folders to read.
    """
    from ...backbones import COMPACT

    choices = {"tower": (*COMPACT, *PAPER), "text": TEXT_TOWERS, "modalities": MODALITIES}
    limits = {"expansion": 16, "text_layers": 64, "longest": 1000}
    unknown = facts.keys() - {field.name for field in fields(Config)}
    if unknown:
        raise ValueError(f"{facts.where} has {', '.join(sorted(unknown))[:60]}, which no architecture here has")

    values: dict[str, Any] = {}
    for field in fields(Config):
        if field.name in choices:
            values[field.name] = facts.choice(field.name, choices[field.name])
        else:
            values[field.name] = facts.integer(field.name, 1, limits.get(field.name, 10_000))
    return Config(**values)


@register(
    Card(
        name="bmqa",
        summary="BMQA's method on a compact trunk, of this project's own training; not the authors' weights.",
        source=f"{_SOURCE}; trunk EfficientNet-Lite, narrower, docs/bmqa.md",
        lower_better=False,
        score_range=(0.0, 1.0),
        typical_range=(0.827, 0.18),
        license=license_of("bmqa", "BIQ2021, MLE"),
        gradient=_GRADIENT,
        piecewise=True,
        learned=True,
        commercial=False,
        looks=6,
        sees=("exposure", "noise"),
        preprocessing=f"shorter side reduced to {SHORT_SIDE} where it is larger, bilinear, antialiased",
        blind_spots="it says what was measured, not what was meant: a low-key picture is 'dim'; names no objects",
        trained_on="9,054 pictures of BIQ2021's training list with people's scores (MOS) and descriptions of them made "
        "by measuring; 650 descriptions of MLE with their scores; trunk that of leiq",
        datasets=("BIQ2021", "MLE", "LOL"),
        base_model="timm/tf_efficientnet_lite2.in1k",
        reached={
            "SRCC, BIQ2021 test split, 2000 pictures": "0.872 [0.861, 0.883]",
            "PLCC (raw), BIQ2021 test split, 2000 pictures": "0.885 [0.873, 0.897]",
            "SRCC, BIQ2021 test split, 409 dark pictures (mean luma < 70)": "0.914 [0.895, 0.929]",
            "LOL, dark picture below its normal-light one": "37 of 37 pairs",
            "right words and BLEU-4, top-5 accuracy, captions of 946 held-out pictures": "brightness 0.97, "
            "contrast 0.93, noise 1.00, exposure 0.93, appearance 0.85; 75.76, 100.0",
            "words that follow a change, 100 held-out pictures": "darker 1.00, brighter 1.00 (exposure: 0.96), "
            "noise 1.00, less color 0.99",
            "SRCC from MLE's descriptions alone, held-out scenes": "0.54",
        },
        weights="bmqa.safetensors",
        sha256="59934fc9f605f8b46d4e65e619fc6a12ba5a45c697ee10eb7cc7a7b92604319d",
    ),
    _paper_card("bmqa-rn50", "resnet50", "ResNet-50"),
    _paper_card("bmqa-vitb32", "vit_base_patch32_224", "ViT-B/32"),
    _paper_card("bmqa-convnext", "convnext_base", "ConvNeXt-B"),
)
class Bmqa(Metric):
    """Score on BIQ2021's 0..1 from a picture and a description of it, given by the caller or by the captioner."""

    options = ("captioner",)

    def __init__(
        self,
        card: Card,
        network: BmqaNetwork,
        mapping: Sequence[float],
        rules: Mapping[str, Sequence[float]],
        captioner: str = CAPTIONERS[0],
    ) -> None:
        """Build it; ``mapping``: parameters of ``logistic``; ``rules``: the thresholds of each slot's words.

        The captioner is "learned", the network's, or "rules": each slot's word follows from a measurement
        (``measure``) and thresholds, and the appearance from the score with the other words.
        """
        if captioner not in CAPTIONERS:
            raise ValueError(f"the captioners are {' and '.join(map(repr, CAPTIONERS))}, not {captioner!r}")
        super().__init__(card)
        self.network, self.mapping, self.captioner = network, list(mapping), captioner
        self.rules = {name: list(values) for name, values in rules.items()}
        self.eval().requires_grad_(False)

    @classmethod
    def from_weights(cls, loaded: Loaded, captioner: str = CAPTIONERS[0]) -> Bmqa:  # type: ignore[override]
        """Build it from a weights file."""
        config = loaded.config
        words, rules = config.strings("words"), config.part("rules")
        architecture = checked_config(config.part("network"))
        thresholds = {name: rules.numbers(name, len(slot.words) - 1) for name, slot in SLOTS.items()}
        # On the meta device shapes are checked before memory is allocated; timm's trunks have tensors that no weights
        # file holds and are built on the CPU.
        with torch.device("cpu" if architecture.tower in PAPER else "meta"):
            network = BmqaNetwork(architecture, Vocabulary(words))
        metric = cls(loaded.card, network, config.curve("mapping"), thresholds, captioner)
        load_strictly(metric, loaded.tensors, assign=True)
        return metric

    def weight_config(self) -> dict[str, Any]:
        """Return architecture, vocabulary, mapping and thresholds."""
        return {
            "network": asdict(self.network.config),
            "words": list(self.network.vocabulary.words),
            "mapping": self.mapping,
            "rules": self.rules,
        }

    def forward(
        self, img: Pictures, reference: Pictures | None = None, *, text: str | Sequence[str] | None = None
    ) -> Tensor:
        """Score pictures.

        Args:
            img: as for every metric.
            reference: refused, as by every no-reference metric.
            text: a description of the pictures' quality, in English: one for all, or one for each. None: the
                captioner's. Words outside the vocabulary become the unknown token.

        Returns:
            Scores (N,), differentiable with respect to tensor input while the text is fixed.

        Raises:
            TypeError, ValueError, OSError: unusable input. A text is unusable if it is empty, too long, or if less than
                a third of its words is known; the message says which.
        """
        with self._named_transforms():
            return self._scores(*self._checked(img, reference), text=text)

    def _scores(
        self,
        x: Tensor | Iterable[Tensor],
        reference: Tensor | Iterable[Tensor] | None = None,
        *,
        text: str | Sequence[str] | None = None,
        **extra: Any,
    ) -> Tensor:
        """Return the scores (N,) of checked pictures with their text, or the captioner's; ``loss`` passes ``text``."""
        if text is None:
            return super()._scores(x, reference, **extra)

        pictures = [x] if isinstance(x, Tensor) else list(x)
        count = sum(map(len, pictures))
        texts = [text] * count if isinstance(text, str) else list(text)
        if len(texts) != count:
            raise ValueError(f"{count} pictures but {len(texts)} texts; give one text, or one for each")
        tokens = [self.network.vocabulary.read(each, self.network.config.longest) for each in texts]

        scores, start = [], 0
        with full_precision(self.device.type):
            for batch in pictures:
                own = tokens[start : start + len(batch)]
                start += len(batch)
                scores.append(self._fused(self._features(batch), own).to(batch.dtype))
        return torch.cat(scores)

    def _features(self, x: Tensor) -> Tensor:
        x = once(x, self.card.name)  # torch's fused attention has no second derivative
        return self.network.features(x.to(self.network.center.dtype))

    def _fused(self, features: Tensor, tokens: Sequence[Sequence[int]] | Tensor) -> Tensor:
        tokens = tokens if isinstance(tokens, Tensor) else padded(tokens, features.device)
        text = self.network.text(tokens)
        return logistic(self.network.fuse(self.network.image(features), text), self.mapping)  # type: ignore[no-any-return]

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return MOS (N,) on 0..1, with the captioner's words."""
        features = self._features(x)
        if exporting() and self.captioner == "learned":
            best, _ = self.network.captioner.best_beams(features, longest=EXPORTED)
            score = self._fused(features, best)
            return torch.where((best == END).any(1), score, torch.full_like(score, torch.nan))
        return self._fused(features, [tokens for tokens, _ in self._captions(x, features)])

    @torch.no_grad()
    def caption(self, img: Pictures) -> list[str]:
        """Return the caption of each picture; ``metric(img, text=metric.caption(img))`` equals ``metric(img)``."""
        captions = []
        for picture in as_list(img):
            x = self._check_one(picture)
            ((tokens, _),) = self._captions(x, self._features(x))
            captions.append(self.network.vocabulary.decode(tokens))
        return captions

    @torch.no_grad()
    def _captions(self, x: Tensor, features: Tensor) -> list[tuple[list[int], Tensor]]:
        """Return each picture's caption as tokens, with the attention of each word, which is empty by rules."""
        if self.captioner == "learned":
            return self.network.caption(features)

        vocabulary = self.network.vocabulary
        captions = []
        for row in range(len(x)):
            levels = levels_of(x[row : row + 1], self.rules)
            score = self._fused(features[row : row + 1], [vocabulary.encode(plain_sentence(levels))])
            levels["appearance"] = int((score > score.new_tensor(self.rules["appearance"])).sum())
            captions.append((vocabulary.encode(plain_sentence(levels)), features.new_zeros(0, 1)))
        return captions

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Return for each of the 7x7 cells the score of a picture that looks like it everywhere, on 0..1.

        The cell's features replace those of the whole picture and of every other cell; the words are those of the
        picture. The attention is not linear, so the score is not the mean of the map.
        """
        features = self._features(x)  # (N, 1 + GRID^2, F)
        maps = []
        for (tokens, _), cells in zip(self._captions(x, features), features[:, 1:], strict=True):
            uniform = repeat(cells, "cells f -> cells positions f", positions=features.shape[1])
            scores = self._fused(uniform, [tokens] * len(cells))
            maps.append(rearrange(scores, "(h w) -> 1 1 h w", h=GRID))
        return {"score": spread(torch.cat(maps), x.shape[2:])[:, 0]}

    def explain(self, x: Tensor) -> Assessment:
        """Return the score, the caption and, of a learned caption, the attention map of each word."""
        features = self._features(x)
        ((tokens, attention),) = self._captions(x, features)  # (words, 1 + GRID^2)
        score = self._fused(features, [tokens])
        vocabulary = self.network.vocabulary
        if self.captioner == "rules":
            return Assessment(score=score.item(), description=vocabulary.decode(tokens))

        # The first position stands for the whole picture: its share of the attention is spread over all cells.
        cells = attention[:, 1:] + attention[:, :1] / (GRID * GRID)
        cells = rearrange(cells, "words (h w) -> words 1 h w", h=GRID)
        maps = F.interpolate(cells, size=x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        words = [vocabulary.word(token) for token in tokens[:-1]]
        return Assessment(
            score=score.item(),
            description=vocabulary.decode(tokens),
            words=tuple(zip(words, maps, strict=True)),
        )
