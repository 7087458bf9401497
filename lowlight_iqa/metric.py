"""Metric: the one base class. It checks input, groups pictures by size, orients the loss, words the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, Union, cast

import torch
from torch import Tensor, nn

from .card import Card
from .images import Picture, check_batch, read_image

if TYPE_CHECKING:
    from typing_extensions import Self

    from .weights.files import Loaded

Pictures: TypeAlias = Union[Picture, "Sequence[Picture]"]
GROUP = 16  # pictures of one size that a list is scored by at a time


@dataclass(frozen=True)
class Assessment:
    """What ``Metric.assess`` says of one picture."""

    score: float  # on the metric's card.score_range
    attributes: Mapping[str, float] = field(default_factory=dict)  # 1 (bad) to 5 (good); empty where there are none
    uncalibrated: Mapping[str, float] = field(default_factory=dict)  # on no known scale: larger is better, no more
    description: str = ""  # the same in a sentence
    map: Tensor | None = None  # (H, W), the score place by place, where the metric has one; see its ``maps_batch``
    maps: Mapping[str, Tensor] = field(default_factory=dict)  # the same of each attribute
    words: Sequence[tuple[str, Tensor]] = ()  # of a captioned description, each with where it was found, (H, W)


class Metric(nn.Module, ABC):
    """A quality metric: ``metric(img)`` scores, ``metric.loss(img)`` trains, ``metric.assess(img)`` explains.

    A subclass is built from its card and, where it has one, its network or parameters. It implements ``score_batch``
    and, if it has weights, ``from_weights``; it keeps the contract that tests/test_contract.py derives from the
    registry. Parameters are frozen and the module stays in evaluation mode whatever its parent does.
    """

    options: ClassVar[tuple[str, ...]] = ()  # names of what create_metric passes on to from_weights or the constructor

    concurrent: ClassVar[bool] = True  # several threads may score with it at once
    uncalibrated: frozenset[str] = frozenset()  # those attributes of explain_batch that are on no known scale

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self._anchor: Tensor
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)  # where .to(device) has put the metric

    @classmethod
    def from_weights(cls, loaded: Loaded, **options: Any) -> Self:
        """Build the metric from weights that were read; a metric with weights overrides this.

        Raises:
            ValueError: weights of another architecture, or a metric that has none.
        """
        raise ValueError(f"{loaded.card.name} has no weights to load; leave weights out")

    @classmethod
    def from_source(cls, card: Card, source: str | Path | None = None, **options: Any) -> Metric:
        """Build what ``create_metric(card.name, weights=source, **options)`` returns.

        Raises:
            ValueError: weights for a metric that has none, or weights that do not fit.
            WeightsNotFound: the weights are not at hand.
        """
        has_weights = cls.from_weights.__func__ is not Metric.from_weights.__func__  # type: ignore[attr-defined]
        if has_weights:
            from .weights.files import load

            return cls.from_weights(load(card, source), **options)
        if source is not None:
            raise ValueError(f"{card.name} has no weights to load; leave weights out")
        return cls(card, **options)

    @abstractmethod
    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Scores (N,) of checked pictures (N, 3, H, W), float32 or float64, RGB in [0, 1]."""

    def explain_batch(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (N,) and attributes {name: (N,)}, for ``assess``."""
        return self.score_batch(x), {}

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Local values (N, H, W) of the score, under "score", and of attributes, by name; empty where there are none.

        They are oriented as the score is. A metric that has them says in this place what they are and how they make up
        the score.
        """
        return {}

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Turn decoded pixels (3, H, W) in [0, 1] into the metric's checked input (3, h, w).

        Files, PIL images and arrays all come this way: for ``metric(path)``, the command line, ``evaluate`` and the
        validation of a training. Tensors that a caller gives to the metric are scored as they are. A metric whose
        reference implementation works on 8-bit pictures rounds here.

        Raises:
            TypeError, ValueError: unusable pixels; the message names the value and the remedy.
        """
        return check_batch(pixels, self.card.min_size, pixels.device)[0]

    @property
    def device(self) -> torch.device:
        """Where the metric computes."""
        return self._anchor.device

    def weight_module(self) -> nn.Module:
        """Return the module whose state dict a weights file holds: the metric, or its network alone."""
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the tensors that ``save_pretrained`` writes."""
        module = self.weight_module()
        found: dict[str, Any] = super().state_dict(*args, **kwargs) if module is self else module.state_dict()
        return found

    def train(self, mode: bool = True) -> Metric:
        """Stay in evaluation mode: a loss network must not change because its parent trains."""
        return super().train(False)

    def forward(self, img: Pictures, reference: Pictures | None = None) -> Tensor:
        """Score pictures.

        Args:
            img: a tensor (N, 3, H, W) or (3, H, W), RGB in [0, 1]; or a path, PIL image or ndarray; or a list
                of such, of any sizes.
            reference: the dark input of each picture, for metrics whose ``card.needs_reference`` is true only.

        Returns:
            Scores (N,) in the caller's order, float32 (float64 for float64 input), differentiable with respect
            to tensor input.

        Raises:
            TypeError, ValueError, OSError: unusable input; the message names the value and the remedy.
        """
        if self.card.needs_reference and reference is None:
            raise TypeError(f"{self.card.name} compares with the dark input: call metric(enhanced, reference=dark)")
        if not self.card.needs_reference and reference is not None:
            raise TypeError(f"{self.card.name} is a no-reference metric: call metric(img), without reference")
        if isinstance(img, Tensor) and (reference is None or isinstance(reference, Tensor)):
            x = check_batch(img, self.card.min_size, self.device)
            if reference is None:
                return self._score(x)
            return self._score(x, check_reference(x, check_batch(reference, self.card.min_size, self.device)))
        return self._score_list(as_list(img), None if reference is None else as_list(reference))

    def _score(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # scores are computed in float32 or better
            scores = self.score_batch(x) if reference is None else self.score_batch(x, reference)
        return scores.to(x.dtype)

    def _score_list(self, pictures: list[Picture], references: list[Picture] | None) -> Tensor:
        if references is not None and len(references) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures but {len(references)} references; give one for each")
        scores: list[Tensor | None] = [None] * len(pictures)
        waiting: dict[tuple[object, ...], list[tuple[int, list[Tensor]]]] = {}

        def flush(group: list[tuple[int, list[Tensor]]]) -> None:
            stacks = [torch.cat(column) for column in zip(*(tensors for _, tensors in group), strict=True)]
            for (place, _), score in zip(group, self._score(*stacks), strict=True):
                scores[place] = score

        for place, picture in enumerate(pictures):
            tensors = [self._single(picture)]
            if references is not None:
                tensors.append(check_reference(tensors[0], self._single(references[place])))
            group = waiting.setdefault((tensors[0].shape, tensors[0].dtype), [])
            group.append((place, tensors))
            if len(group) == GROUP:
                flush(group)
                group.clear()
        for group in waiting.values():
            if group:
                flush(group)
        return torch.stack([score for score in scores if score is not None])

    def _single(self, picture: Picture) -> Tensor:
        """One picture of a list as a checked (1, 3, H, W)."""
        if isinstance(picture, Tensor):
            if picture.ndim != 3:
                raise ValueError(f"a tensor inside a list is one picture (3, H, W), not {tuple(picture.shape)}")
            x = picture
        else:
            x = self.preprocess(read_image(picture)).to(self.device)
        return check_batch(x, self.card.min_size, self.device)

    def loss(self, img: Pictures, reference: Pictures | None = None) -> Tensor:
        """Scalar to minimize: 0 at the best end of ``card.score_range``, 1 at the worst; mean over pictures."""
        return self.to_loss(self(img, reference)).mean()

    def to_loss(self, scores: Tensor) -> Tensor:
        """Orient and scale scores: 0 at the best end of ``card.score_range``, 1 at the worst."""
        low, high = self.card.score_range
        return (scores - low if self.card.lower_better else high - scores) / (high - low)

    def assess(self, img: Picture, *, maps: bool = True) -> Assessment:
        """Score one picture and say why: attributes, a sentence and, where the metric has them, maps.

        Args:
            img: a path, PIL image, ndarray or tensor (3, H, W).
            maps: False leaves the maps out, which cost about as much as the score.
        """
        x = self._one(img)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            result = self.explain(x)
            found = {name: each[0] for name, each in self.maps_batch(x).items()} if maps else {}
        return replace(result, map=found.pop("score", None), maps=found)

    def map(self, img: Picture, attribute: str = "score") -> Tensor:
        """Score one picture place by place: (H, W), oriented as the score is.

        Args:
            img: a path, PIL image, ndarray or tensor (3, H, W).
            attribute: one of the metric's attributes instead of its score.

        Raises:
            ValueError: the metric has no such map; the message names those that it has.
        """
        x = self._one(img)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            found = self.maps_batch(x)
        if attribute not in found:
            has = f"it has: {', '.join(found)}" if found else "it has none"
            raise ValueError(f"{self.card.name} has no map of {attribute!r}; {has}")
        return found[attribute][0]

    def _one(self, img: Picture) -> Tensor:
        """Check the one picture that is to be explained, (1, 3, H, W)."""
        if self.card.needs_reference:
            raise TypeError(f"{self.card.name} compares two pictures; call metric(enhanced, reference=dark)")
        if isinstance(img, Tensor) and img.ndim == 4:
            if len(img) != 1:
                raise ValueError(f"one picture is explained at a time, not a batch of {len(img)}; call it for each")
            img = img[0]
        return self._single(img)

    def explain(self, x: Tensor) -> Assessment:
        """The assessment of one checked picture (1, 3, H, W)."""
        score, attributes = self.explain_batch(x)
        values = {name: value.item() for name, value in attributes.items() if name not in self.uncalibrated}
        return Assessment(
            score=score.item(),
            attributes=values,
            uncalibrated={name: attributes[name].item() for name in attributes if name in self.uncalibrated},
            description=self.describe(score.item(), values),
        )

    def describe(self, score: float, attributes: Mapping[str, float]) -> str:
        """The sentence of an assessment."""
        low, high = self.card.score_range
        better = "lower" if self.card.lower_better else "higher"
        return f"{self.card.name} {score:.3g} on a scale of {low:g} to {high:g}, {better} is better."

    def components(self) -> Iterator[Metric]:
        """Yield the metrics that this one is the mean of, loaded one at a time; none for most."""
        return iter(())

    def weight_config(self) -> dict[str, Any]:
        """JSON-able numbers that belong to the weights, such as the architecture; saved and loaded with them."""
        return {}

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write weights, config and model card; ``create_metric(name, weights=directory)`` reads them back.

        Raises:
            ValueError: the metric has nothing to save.
        """
        from .weights.files import save

        return save(self, Path(directory))


class AsLoss(nn.Module):
    """A metric whose forward is its loss: for training code written around ``criterion(img)``."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, img: Pictures, reference: Pictures | None = None) -> Tensor:
        """``metric.loss(img)``: a scalar to minimize."""
        return self.metric.loss(img, reference)


def check_reference(x: Tensor, reference: Tensor) -> Tensor:
    """The reference, if it has the pictures' shape.

    Raises:
        ValueError: it has not.
    """
    if x.shape != reference.shape:
        raise ValueError(
            f"the reference is {tuple(reference.shape)} and the picture {tuple(x.shape)}; they must be the same size"
        )
    return reference.to(x.dtype)


def as_list(img: Pictures) -> list[Picture]:
    """The pictures of whatever a caller gave, one by one; tensors (N, 3, H, W) are taken apart.

    Raises:
        ValueError: there are none.
    """
    pictures: list[Picture] = []
    if isinstance(img, (list, tuple)) or (isinstance(img, Tensor) and img.ndim == 4):
        pictures += img
    else:
        pictures.append(cast(Picture, img))
    if not pictures:
        raise ValueError("the list of pictures is empty; give at least one")
    return pictures
