"""The registry of data sets: ``register`` enters a reader, ``load`` reads a data set by its name."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from .rated import Dataset, Rated, one_of


class Read(Protocol):
    """The signature of a reader."""

    def __call__(self, root: str | Path, split: str = ..., *, pictures: bool = ...) -> list[Rated]:
        """Read the pictures of a split, in the order of its list; without ``pictures``, only the labels.

        Raises:
            FileNotFoundError: the list or one of its pictures is missing; the message names it and says where to get
            it. ValueError: no such split, or a damaged list; the message says where.
        """


@dataclass(frozen=True)
class Reader:
    """A reader and the facts of its data set."""

    read: Read
    splits: Sequence[str]  # the first is the one that papers report
    layout: str  # what to download and where to put it
    relative: bool  # labels compare the pictures of one scene and mean nothing across scenes


R = TypeVar("R", bound=Read)

_readers: dict[str, Reader] = {}


def register(name: str, splits: Sequence[str], layout: str, *, relative: bool = False) -> Callable[[R], R]:
    """Return a decorator that registers a reader under the name of its data set; see ``Reader`` for the arguments."""

    def enter(read: R) -> R:
        if name in _readers:
            raise ValueError(f"data set {name!r} is registered already; choose another name")
        _readers[name] = Reader(read, tuple(splits), layout, relative)
        return read

    return enter


def _table() -> dict[str, Reader]:
    """Import every module of ``lowlight_iqa.data``, so that a new file there registers its data set."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return _readers


def list_datasets() -> list[str]:
    """Return the names of the data sets, sorted."""
    return sorted(_table())


def get_reader(name: str) -> Reader:
    """Return the reader of a data set, which must be a registered name."""
    if name not in _table():
        raise ValueError(f"no data set is called {name!r}; there are: {', '.join(list_datasets())}")
    return _readers[name]


def load(name: str, root: str | Path, split: str | None = None, *, pictures: bool = True) -> Dataset:
    """Read the rated pictures of a data set.

    Args:
        name: one of ``list_datasets()``.
        root: its folder; for "csv", the file.
        split: one of the reader's splits; None for the first, which is the one that papers report.
        pictures: False reads only the labels, for baselines without pictures.

    Raises:
        ValueError, FileNotFoundError: no such data set, or see ``Read``.
    """
    reader = get_reader(name)
    split = one_of(split or reader.splits[0], reader.splits)
    return Dataset(name, split, reader.read(root, split, pictures=pictures), reader.relative)
