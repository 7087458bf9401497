"""One reader per data set, each from the layout its authors distribute; its docstring says what that was taken from.

A reader is a module with ``SPLITS`` (the first is the one that papers report), ``RELATIVE`` where labels compare
pictures of one scene alone, ``LAYOUT`` (what to download and where to put it) and
``read(root, split, *, pictures=True)``; without pictures, it reads the labels alone.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from .rated import Dataset, Rated, one_of

__all__ = ["NAMES", "Dataset", "Rated", "load"]

NAMES = ("biq2021", "csv", "dark4k", "koniq10k", "live_challenge", "mle", "mliq", "nnid", "spaq", "square_lol")


def load(name: str, root: str | Path, split: str | None = None, *, pictures: bool = True) -> Dataset:
    """The rated pictures of a data set.

    Args:
        name: one of ``NAMES``.
        root: its folder; for "csv", the file.
        split: one of the reader's ``SPLITS``; None for the first, which is the one that papers report.
        pictures: False reads the labels alone, for baselines that look at no picture.

    Raises:
        ValueError: no such data set or split; damaged labels.
        FileNotFoundError: the folder or one of its files is missing; the message says which, and where to get it.
    """
    if name not in NAMES:
        raise ValueError(f"no data set is called {name!r}; there are: {', '.join(NAMES)}")
    module = importlib.import_module(f"{__name__}.{name}")
    split = one_of(split or module.SPLITS[0], module.SPLITS)
    items = module.read(root, split, pictures=pictures)
    return Dataset(name, split, items, getattr(module, "RELATIVE", False))
