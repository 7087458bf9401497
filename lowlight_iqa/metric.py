"""Metric: the base class. It checks input, groups pictures by size, orients the loss and describes the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, Union, cast

import torch
from torch import Tensor, nn

from .card import Card
from .frozen import Frozen
from .functional.once import once
from .images import Check, Picture, check_batch, check_output, read_image

if TYPE_CHECKING:
    from typing_extensions import Self

    from .weights.files import Loaded

Pictures: TypeAlias = Union[Picture, "Sequence[Picture]"]
Reduction: TypeAlias = Literal["mean", "none", "sum"]
GROUP = 16  # decoded pictures of a list that wait to be scored together


@dataclass(frozen=True)
class Assessment:
    """The result of ``Metric.assess`` for one picture."""

    score: float  # on the metric's card.score_range
    attributes: Mapping[str, float] = field(default_factory=dict)  # 1 (bad) to 5 (good); empty where there are none
    uncalibrated: Mapping[str, float] = field(default_factory=dict)  # on an unknown scale: larger is better, no more
    description: str = ""  # score and attributes in a sentence
    map: Tensor | None = None  # (H, W), the score by position, where the metric has a map; see its ``maps_batch``
    maps: Mapping[str, Tensor] = field(default_factory=dict)  # the map of each attribute
    words: Sequence[tuple[str, Tensor]] = ()  # of a caption, each with its attention map (H, W)


class Metric(Frozen, ABC):
    """A quality metric: ``metric(img)`` scores, ``metric.loss(img)`` trains, ``metric.assess(img)`` explains.

    A subclass is built from its card and, if it has one, its network or parameters. It implements ``score_batch`` and,
    if it has weights, ``from_weights``; it keeps the promises that lowlight_iqa.testing tests, and those of ``Frozen``.

    Scores are computed in float32 or better, without autocast and TF32; float64 input is scored in float64 if the
    parameters are float64 as well (``metric.double()``). Two calls give the same bits on a CPU with the same number of
    threads. On a GPU that holds for the scores; gradients of metrics that scatter, pool adaptively or resize with
    antialiasing agree up to rounding.
    """

    options: ClassVar[tuple[str, ...]] = ()  # options that create_metric passes to from_weights or the constructor

    concurrent: ClassVar[bool] = True  # several threads may score with it at once
    second_derivatives: ClassVar[bool] = True  # right ones; False: asking for them is refused
    uncalibrated: frozenset[str] = frozenset()  # attributes of explain_batch whose scale is unknown

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self._anchor: Tensor
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)  # where .to(device) has put the metric

    @classmethod
    def from_weights(cls, loaded: Loaded, **options: Any) -> Self:
        """Build the metric from loaded weights; a metric with weights overrides this.

        Raises:
            ValueError: the weights are of another architecture, or the metric has none.
        """
        raise ValueError(f"{loaded.card.name} has no weights to load; leave weights out")

    @classmethod
    def from_source(cls, card: Card, source: str | Path | None = None, **options: Any) -> Metric:
        """Build what ``create_metric(card.name, weights=source, **options)`` returns.

        Raises:
            ValueError: weights for a metric that has none, or weights that do not fit.
            WeightsNotFound: the weights are not on this machine and cannot be downloaded.
        """
        has_weights = cls.from_weights.__func__ is not Metric.from_weights.__func__  # type: ignore[attr-defined]
        if has_weights:
            from .weights.resolve import load

            return cls.from_weights(load(card, source), **options)
        if source is not None:
            raise ValueError(f"{card.name} has no weights to load; leave weights out")
        return cls(card, **options)

    @abstractmethod
    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return the scores (N,) of checked pictures (N, 3, H, W), float32 or float64, RGB in [0, 1]."""

    def explain_batch(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores (N,) and attributes {name: (N,)}, for ``assess``."""
        return self.score_batch(x), {}

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Return maps (N, H, W) of the score, under "score", and of attributes, by name; empty for most metrics.

        They are oriented as the score is. A metric that overrides this documents what its values are and how they are
        related to the score.
        """
        return {}

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Turn decoded pixels (3, H, W) in [0, 1] into the metric's checked input (3, h, w).

        ``metric(path)``, the command line, ``evaluate`` and validation prepare files, PIL images and arrays with it.
        Tensors that a caller gives to the metric are scored as they are. A metric whose reference implementation works
        on 8-bit pictures rounds here.

        Raises:
            TypeError, ValueError: unusable pixels; the message names the value and the remedy.

        Example:
            >>> from lowlight_iqa import create_metric, read_image
            >>> metric, pixels = create_metric("leiq"), read_image("samples/coffee_dark.png")
            >>> torch.equal(metric(metric.preprocess(pixels)), metric("samples/coffee_dark.png"))
            True
        """
        return check_batch(pixels, self.card.min_size, pixels.device)[0]

    @property
    def lower_better(self) -> bool:
        """Whether a lower score is better: ``card.lower_better``."""
        return self.card.lower_better

    @property
    def score_range(self) -> tuple[float, float]:
        """The ends of the scale: ``card.score_range``."""
        return self.card.score_range

    @property
    def device(self) -> torch.device:
        """The device on which the metric computes."""
        return self._anchor.device

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

        Example:
            >>> from lowlight_iqa import create_metric
            >>> metric = create_metric("exposure")
            >>> metric(torch.full((2, 3, 64, 64), 0.5))
            tensor([0.1000, 0.1000])
            >>> metric(["samples/coffee.jpg", "samples/coffee_dark.png"]).shape
            torch.Size([2])
        """
        with self._named_transforms():
            return self._scores(*self._checked(img, reference))

    def _checked(
        self, img: Pictures, reference: Pictures | None
    ) -> tuple[Tensor | Iterable[Tensor], Tensor | Iterable[Tensor] | None]:
        """Check the input: return a batch (N, 3, H, W), or an iterator of pictures (1, 3, H, W); so for references."""
        self._check_reference_use(reference)
        if isinstance(img, Tensor) and (reference is None or isinstance(reference, Tensor)):
            x = check_batch(img, self.card.min_size, self.device)
            if reference is None:
                return x, None
            return x, check_reference(x, check_batch(reference, self.card.min_size, self.device))

        pictures = as_list(img)
        if reference is None:
            return self._check_each(pictures), None
        references = as_list(reference)
        if len(references) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures but {len(references)} references; give one for each")
        return self._check_each(pictures), self._check_each(references)

    def _check_reference_use(self, reference: Pictures | None) -> None:
        if self.card.needs_reference and reference is None:
            raise TypeError(f"{self.card.name} compares with the dark input: call metric(enhanced, reference=dark)")
        if not self.card.needs_reference and reference is not None:
            raise TypeError(f"{self.card.name} is a no-reference metric: call metric(img), without reference")

    def _scores(
        self, x: Tensor | Iterable[Tensor], reference: Tensor | Iterable[Tensor] | None = None, **extra: Any
    ) -> Tensor:
        """Return the scores (N,) of checked pictures; a metric with further inputs overrides this."""
        if extra:
            raise TypeError(f"{self.card.name} takes pictures alone, not {', '.join(extra)}; leave that out")
        if isinstance(x, Tensor):
            return self._score(x, cast("Tensor | None", reference))
        return self._score_list(x, reference)

    def _score(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        if not (self.second_derivatives or inside_transform()):  # transforms refuse by themselves
            x = once(x, self.card.name)
        with full_precision(x.device.type):
            scores = self.score_batch(x) if reference is None else self.score_batch(x, reference)
        return scores.to(x.dtype)

    def _named_transforms(self) -> AbstractContextManager[None]:
        """Turn the error of an unsupported torch.func transform into one that names this metric."""
        return _refuse_transforms(self.card.name) if inside_transform() else nullcontext()

    def _score_list(self, pictures: Iterable[Tensor], references: Iterable[Tensor] | None) -> Tensor:
        """Score pictures (1, 3, H, W) of any sizes, grouped by size; the scores (N,) are in the pictures' order."""
        scores: dict[int, Tensor] = {}
        waiting: dict[tuple[object, ...], list[tuple[int, list[Tensor]]]] = {}

        def flush(group: list[tuple[int, list[Tensor]]]) -> None:
            stacks = [torch.cat(column) for column in zip(*(tensors for _, tensors in group), strict=True)]
            for (index, _), score in zip(group, self._score(*stacks), strict=True):
                scores[index] = score

        columns = (pictures,) if references is None else (pictures, references)
        for index, tensors in enumerate(zip(*columns, strict=True)):
            if references is not None:
                check_reference(*tensors)
            group = waiting.setdefault((tensors[0].shape, tensors[0].dtype), [])
            group.append((index, [x.to(tensors[0].dtype) for x in tensors]))

            # However many sizes there are, at most GROUP decoded pictures wait in memory.
            if sum(map(len, waiting.values())) == GROUP:
                fullest = max(waiting, key=lambda size: len(waiting[size]))
                flush(waiting.pop(fullest))

        for group in waiting.values():
            flush(group)
        return torch.stack([scores[index] for index in range(len(scores))])

    def _check_each(self, pictures: Sequence[Picture]) -> Iterator[Tensor]:
        """Yield the checked pictures of a list, (1, 3, H, W); an error says which picture it is about."""
        for index, picture in enumerate(pictures):
            try:
                yield self._check_one(picture)
            except (TypeError, ValueError, OSError) as error:
                if len(pictures) == 1:
                    raise
                raise type(error)(f"picture {index + 1} of {len(pictures)}: {error}") from error

    def _check_one(self, picture: Picture) -> Tensor:
        """Check one picture of a list and return it as (1, 3, H, W)."""
        if isinstance(picture, Tensor):
            if picture.ndim != 3:
                raise ValueError(f"a tensor inside a list is one picture (3, H, W), not {tuple(picture.shape)}")
            x = picture
        else:
            x = self.preprocess(read_image(picture)).to(self.device)
        return check_batch(x, self.card.min_size, self.device)

    def loss(
        self,
        img: Pictures,
        reference: Pictures | None = None,
        *,
        reduction: Reduction = "mean",
        check: Check = "strict",
        **extra: Any,
    ) -> Tensor:
        """Return a loss to be minimized, oriented and scaled so that one weight means the same for every metric.

        It is 0 at the good end of the scores of real pictures, ``card.typical_range``, 1 at the bad end, and
        linear beyond.

        A tensor that requires a gradient is a network's output and may leave [0, 1] by up to 0.1. It is clamped, and
        the mean distance of its samples from [0, 1] is added, whose gradient pulls them back. Values farther away are
        refused.

        Args:
            img: as for ``metric(img)``.
            reference: as for ``metric(img)``.
            reduction: "mean" or "sum" over the pictures, or "none" for one loss each, (N,).
            check: "strict", or "fast": the values of tensors are not inspected, so nothing waits for the device. They
                are clamped and their distance added however far away they are, and NaN gives NaN.
            **extra: further inputs of this metric, such as ``text`` of bmqa.

        Raises:
            TypeError, ValueError, OSError: unusable input; the message names the value and the remedy.

        Example:
            >>> from lowlight_iqa import create_metric
            >>> metric = create_metric("exposure")
            >>> enhanced = torch.full((1, 3, 64, 64), 0.3, requires_grad=True)
            >>> metric.loss(enhanced).backward()
            >>> bool((enhanced.grad < 0).all())  # a brighter picture has a lower loss
            True
        """
        if reduction not in ("mean", "none", "sum"):
            raise ValueError(f"the reductions are 'mean', 'none' and 'sum', not {reduction!r}")
        if check not in ("strict", "fast"):
            raise ValueError(f"check is 'strict' or 'fast', not {check!r}")

        self._check_reference_use(reference)
        with self._named_transforms():
            inside, excess = self._clamped(img, check)
            if reference is None:
                scores = self._scores(inside, **extra)
            else:
                scores = self._scores(*_paired(inside, self._clamped(reference, check)[0]), **extra)

        losses = self.to_loss(scores) + excess
        if reduction == "none":
            return losses
        return losses.mean() if reduction == "mean" else losses.sum()

    def _clamped(self, img: Pictures, check: Check) -> tuple[Tensor | list[Tensor], Tensor]:
        """Check and clamp the input of a loss; also return the mean distance of each picture from [0, 1], (N,)."""
        if isinstance(img, Tensor):
            return check_output(img, self.card.min_size, self.device, check)

        pairs = []
        for picture in as_list(img):
            if isinstance(picture, Tensor) and picture.ndim == 3:
                pairs.append(check_output(picture, self.card.min_size, self.device, check))
            else:
                x = self._check_one(picture)
                pairs.append((x, x.new_zeros(1)))
        inside, excess = zip(*pairs, strict=True)
        return list(inside), torch.cat(excess)

    def to_loss(self, scores: Tensor) -> Tensor:
        """Orient and scale scores: 0 at the good end of ``card.typical_range``, 1 at the bad end, linear beyond."""
        good, bad = self.card.loss_range
        return (scores - good) / (bad - good)

    def assess(self, img: Picture, *, maps: bool = True) -> Assessment:
        """Score one picture and explain the score: attributes, a sentence and, where the metric has them, maps.

        Args:
            img: a path, PIL image, ndarray or tensor (3, H, W).
            maps: False omits the maps, which cost about as much as the score.

        Example:
            >>> from lowlight_iqa import create_metric
            >>> result = create_metric("leiq").assess("samples/coffee_dark.png")
            >>> sorted(result.attributes)
            ['color', 'content_recovery', 'exposure', 'light', 'nature', 'noise']
            >>> result.description
            'The image has dim brightness, ...'
        """
        x = self._check_single(img)
        with torch.inference_mode(), full_precision(self.device.type):
            result = self.explain(x)
            local = {name: each[0] for name, each in self.maps_batch(x).items()} if maps else {}
        return replace(result, map=local.pop("score", None), maps=local)

    def map(self, img: Picture, attribute: str = "score") -> Tensor:
        """Return a map (H, W) of the local score of one picture, oriented as the score is.

        Args:
            img: a path, PIL image, ndarray or tensor (3, H, W).
            attribute: one of the metric's attributes instead of its score.

        Raises:
            ValueError: the metric has no such map; the message names those that it has.

        Example:
            >>> from lowlight_iqa import create_metric
            >>> create_metric("niqe").map("samples/coffee_dark.png").shape == read_image("samples/coffee.jpg").shape[1:]
            True
        """
        x = self._check_single(img)
        with torch.inference_mode(), full_precision(self.device.type):
            local = self.maps_batch(x)
        if attribute not in local:
            has = f"it has: {', '.join(local)}" if local else "it has none"
            raise ValueError(f"{self.card.name} has no map of {attribute!r}; {has}")
        return local[attribute][0]

    def _check_single(self, img: Picture) -> Tensor:
        """Check the one picture to be explained and return it as (1, 3, H, W)."""
        if self.card.needs_reference:
            raise TypeError(f"{self.card.name} compares two pictures; call metric(enhanced, reference=dark)")
        if isinstance(img, Tensor) and img.ndim == 4:
            if len(img) != 1:
                raise ValueError(f"one picture is explained at a time, not a batch of {len(img)}; call it for each")
            img = img[0]
        return self._check_one(img)

    def explain(self, x: Tensor) -> Assessment:
        """Assess one checked picture (1, 3, H, W), without maps."""
        score, attributes = self.explain_batch(x)
        values = {name: value.item() for name, value in attributes.items() if name not in self.uncalibrated}
        return Assessment(
            score=score.item(),
            attributes=values,
            uncalibrated={name: attributes[name].item() for name in attributes if name in self.uncalibrated},
            description=self.describe(score.item(), values),
        )

    def describe(self, score: float, attributes: Mapping[str, float]) -> str:
        """Return the sentence of an assessment."""
        low, high = self.card.score_range
        better = "lower" if self.card.lower_better else "higher"
        return f"{self.card.name} {score:.3g} on a scale of {low:g} to {high:g}, {better} is better."

    def components(self) -> Iterator[Metric]:
        """Yield the metrics whose mean this one is, loaded one at a time; most metrics yield none."""
        return iter(())

    def weight_config(self) -> dict[str, Any]:
        """Return JSON values that belong to the weights, such as the architecture; saved and loaded with them."""
        return {}

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write weights, config and model card; ``create_metric(name, weights=directory)`` reads them back.

        Raises:
            ValueError: the metric has nothing to save.
            OSError: the disk is full or read-only; the message names the file, and the old files are unchanged.
        """
        from .weights.files import save

        return save(self.card, self.state_dict(), self.weight_config(), Path(directory))


class AsLoss(nn.Module):
    """A metric whose forward is its loss, for training code written around ``criterion(img)``."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def forward(
        self,
        img: Pictures,
        reference: Pictures | None = None,
        *,
        reduction: Reduction = "mean",
        check: Check = "strict",
        **extra: Any,
    ) -> Tensor:
        """Return ``metric.loss`` of the same arguments."""
        return self.metric.loss(img, reference, reduction=reduction, check=check, **extra)


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Compute without autocast and, on CUDA, without TF32; the backward pass runs under the caller's settings.

    Inside torch.compile the caller's TF32 setting stays: a graph cannot change it.
    """
    on_cuda = device == "cuda" and not torch.compiler.is_compiling()
    with _without_autocast(device), _without_tf32() if on_cuda else nullcontext():
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Switch TF32 off, then restore the caller's settings, made with ``allow_tf32`` or ``fp32_precision``."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before: list[tuple[Any, str, Any]] = []
    for switch in (matmul, cudnn):
        # torch refuses to read it after the caller has used fp32_precision; then the latter decides.
        with suppress(RuntimeError):
            before.append((switch, "allow_tf32", switch.allow_tf32))
    parts: tuple[Any, ...] = matmul, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)
    for part in parts:
        if hasattr(part, "fp32_precision"):  # newer versions of torch
            before.append((part, "fp32_precision", part.fp32_precision))
    try:
        for switch, name, _ in before:
            setattr(switch, name, "ieee" if name == "fp32_precision" else False)
        yield
    finally:
        for switch, name, value in before:
            setattr(switch, name, value)


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    if device not in ("cpu", "cuda") and not torch.amp.is_autocast_available(device):
        return nullcontext()  # torch 2.4 has none on Apple GPUs, and raises where it is switched off
    return torch.autocast(device, enabled=False)


def inside_transform() -> bool:
    """Tell whether a transform of torch.func is running."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


@contextmanager
def _refuse_transforms(name: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TypeError(
            f"{name} cannot be transformed by torch.func here ({str(error).splitlines()[0]}); "
            "use torch.autograd.grad, and a batch instead of vmap"
        ) from error


def _paired(x: Tensor | list[Tensor], reference: Tensor | list[Tensor]) -> tuple[Any, Any]:
    """Return pictures and references as two batches or two lists of one length."""
    if isinstance(x, Tensor) and isinstance(reference, Tensor):
        return x, check_reference(x, reference)

    pictures, references = (list(each.split(1)) if isinstance(each, Tensor) else each for each in (x, reference))
    if len(pictures) != len(references):
        raise ValueError(f"{len(pictures)} pictures but {len(references)} references; give one for each")
    return pictures, references


def check_reference(x: Tensor, reference: Tensor) -> Tensor:
    """Return the reference in the pictures' dtype; another shape than theirs is a ValueError."""
    if x.shape != reference.shape:
        raise ValueError(
            f"the reference is {tuple(reference.shape)} and the picture {tuple(x.shape)}; they must be the same size"
        )
    return reference.to(x.dtype)


def as_list(img: Pictures) -> list[Picture]:
    """Return the pictures of any input as a list of at least one; a tensor (N, 3, H, W) becomes N pictures."""
    pictures: list[Picture] = []
    if isinstance(img, (list, tuple)) or (isinstance(img, Tensor) and img.ndim == 4):
        pictures += img
    else:
        pictures.append(cast(Picture, img))
    if not pictures:
        raise ValueError("the list of pictures is empty; give at least one")
    return pictures
