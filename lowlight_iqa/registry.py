"""The registry of metrics: ``register`` enters a class, ``create_metric`` builds one by its name."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import json
import pkgutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import torch

from .card import Card

if TYPE_CHECKING:
    from .metric import AsLoss, Metric

PLUGINS = "lowlight_iqa.metrics"  # the group of entry points by which other packages add metrics

# Arguments and metrics of pyiqa's create_metric that this one does not have, each with what to use instead.
PYIQA = json.loads(Path(__file__).with_name("pyiqa.json").read_text(encoding="utf-8"))
FROM_PYIQA: dict[str, str] = PYIQA["options"]
ONLY_PYIQA: dict[str, str] = PYIQA["metrics"]

_entries: dict[str, tuple[type[Metric], Card]] = {}

M = TypeVar("M", bound="type[Metric]")


def register(*cards: Card) -> Callable[[M], M]:
    """Return a class decorator that registers a metric under the name of each card, one card for each variant.

    See docs/plugins.md. A notebook cell or script that is run again replaces the class that it defined before.

    Raises:
        TypeError: the decorated object is not a subclass of ``Metric``.
        ValueError: a name is taken already.

    Example:
        >>> from lowlight_iqa import Card, Metric
        >>> facts = {"source": "this page", "lower_better": False, "score_range": (0.0, 1.0), "license": "Apache-2.0"}
        >>> @register(Card(name="mean", summary="mean of all samples", **facts))
        ... class Mean(Metric):
        ...     def score_batch(self, x, reference=None):
        ...         return x.mean((1, 2, 3))
        >>> create_metric("mean")(torch.full((3, 64, 64), 0.25))
        tensor([0.2500])
        >>> _ = _entries.pop("mean")
    """

    def enter(cls: M) -> M:
        from .metric import Metric

        if not (isinstance(cls, type) and issubclass(cls, Metric)):
            raise TypeError(f"register decorates a subclass of lowlight_iqa.Metric, not {cls!r}")
        if not cls.__module__.startswith(f"{__package__}.metrics."):
            _import_own()  # so that nobody else can take their names first
        for card in cards:
            taken = _entries.get(card.name)
            if taken and (taken[0].__module__, taken[0].__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"metric {card.name!r} is registered already, by {taken[0].__name__}")
            _entries[card.name] = (cls, card)
        return cls

    return enter


def _table() -> dict[str, tuple[type[Metric], Card]]:
    """Return this library's metrics, those of installed packages, and the user's."""
    _import_own()
    _import_plugins()
    return _entries


def _import_own() -> None:
    """Import every module of ``lowlight_iqa.metrics``, so that each registers its metric."""
    from . import metrics

    for module in pkgutil.iter_modules(metrics.__path__):
        importlib.import_module(f"{metrics.__name__}.{module.name}")


@functools.cache
def _import_plugins() -> None:
    """Import the ``PLUGINS`` entry points of installed packages; warn of one that fails."""
    for point in importlib.metadata.entry_points(group=PLUGINS):
        before = dict(_entries)
        try:
            point.load()
        except Exception as error:
            _entries.clear()
            _entries.update(before)  # all of a package's metrics or none
            package = point.dist.name if point.dist else point.value
            warnings.warn(
                f"the metrics of the package {package} cannot be used: {point.value} failed with "
                f"{type(error).__name__}: {error}; update or uninstall {package}",
                stacklevel=4,
            )


def list_metrics(*, learned: bool | None = None, commercial: bool | None = None) -> list[str]:
    """Return the sorted names of the metrics.

    Args:
        learned: only those that are (True) or are not (False) trained on people's scores.
        commercial: only those whose weights may (True) or may not (False) be used commercially.

    Example:
        >>> "leiq" in list_metrics(learned=True)
        True
        >>> "niqe" in list_metrics(learned=False)
        True
    """
    return sorted(
        name
        for name, (_, card) in _table().items()
        if learned in (None, card.learned) and commercial in (None, card.commercial)
    )


def get_card(name: str) -> Card:
    """Return the card of a metric; errors are those of ``get_class``.

    Example:
        >>> card = get_card("niqe")
        >>> card.lower_better, card.min_size, card.trained_on
        (True, 96, "125 pristine photographs (the authors')")
    """
    return _entry(name)[1]


def get_class(name: str) -> type[Metric]:
    """Return the class of a metric.

    Raises:
        TypeError: the name is not a string.
        ValueError: no metric has that name; the message suggests similar names.
    """
    return _entry(name)[0]


def _entry(name: str) -> tuple[type[Metric], Card]:
    """Look up class and card."""
    if not isinstance(name, str):
        raise TypeError(f"a metric's name is a string such as 'leiq', not {type(name).__name__}")
    table = _table()
    if name in table:
        return table[name]
    if name.lower() in ONLY_PYIQA:
        raise ValueError(f"{name!r} is pyiqa's: {ONLY_PYIQA[name.lower()]}; see docs/from-pyiqa.md")
    near = difflib.get_close_matches(name.lower(), table, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(sorted(table))}"
    raise ValueError(f"no metric is called {name!r}; {advice}")


def check_device(device: str | int | torch.device) -> torch.device:
    """Return the device, if tensors can be created on it."""
    usable = ["'cpu'"]
    usable += [f"'cuda:{index}'" for index in range(torch.cuda.device_count())]
    usable += ["'mps'"] if torch.backends.mps.is_available() else []
    try:
        checked = torch.device(device)
        if checked.type == "meta":
            raise RuntimeError("tensors on it hold no values")
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["unknown"])[0]
        raise ValueError(f"{device!r} cannot be used here ({reason}); use {' or '.join(usable)}") from error
    return checked


@overload
def create_metric(
    name: str,
    *,
    device: str | torch.device | None = None,
    weights: str | Path | None = None,
    as_loss: Literal[False] = False,
    **options: Any,
) -> Metric: ...


@overload
def create_metric(
    name: str,
    *,
    device: str | torch.device | None = None,
    weights: str | Path | None = None,
    as_loss: Literal[True],
    **options: Any,
) -> AsLoss: ...


def create_metric(
    name: str,
    *,
    device: str | torch.device | None = None,
    weights: str | Path | None = None,
    as_loss: bool = False,
    **options: Any,
) -> Metric | AsLoss:
    """Build a metric that scores pictures, explains the scores and serves as a training loss.

    Args:
        name: one of ``list_metrics()``.
        device: where it computes; pictures given as files or arrays are scored there.
        weights: weights to use instead of the metric's default ones (bundled, installed, or its pinned Hub
            repository): a directory written by ``save_pretrained`` or ``lowlight-iqa train``, which never touches the
            network, or ``hf://owner/repo@<40-hex commit>``.
        as_loss: return a module whose forward is ``metric.loss`` instead.
        options: options of that metric alone, such as ``captioner="rules"`` of bmqa; see its class.

    Raises:
        TypeError: the metric has no such option.
        ValueError: no such metric; weights of another metric; no such value of an option.
        WeightsNotFound: the weights are not on this machine; the message says where they come from.

    Example:
        >>> metric = create_metric("leiq")
        >>> dark, enhanced = metric(["samples/coffee_dark.png", "samples/coffee.jpg"])
        >>> bool(dark < enhanced)
        True
        >>> create_metric("lieq")
        Traceback (most recent call last):
        ...
        ValueError: no metric is called 'lieq'; did you mean 'leiq'...
    """
    from .metric import AsLoss

    cls, card = _entry(name)
    for option in options:
        if option in FROM_PYIQA and option not in cls.options:
            raise TypeError(f"create_metric takes no {option!r}; instead: {FROM_PYIQA[option]}; see docs/from-pyiqa.md")
        if option not in cls.options:
            raise TypeError(f"{name} has no option {option!r}; it has {', '.join(map(repr, cls.options)) or 'none'}")

    target = None if device is None else check_device(device)
    with torch.inference_mode(False):  # so that gradients pass later through a metric made inside inference_mode
        metric = cls.from_source(card, weights, **options)
        if target is not None:
            metric.to(target)
    return AsLoss(metric) if as_loss else metric
