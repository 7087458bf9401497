"""What every reader returns, and what every reader refuses."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DARK = 70.0  # mean luma below which a picture counts as dark


@dataclass(frozen=True)
class Rated:
    """One rated picture. What a data set does not hold stays empty."""

    path: Path
    mos: float  # mean opinion score on the data set's own scale, higher is better; nan where labels are not public
    mean_luma: float = math.nan  # 0 to 255, BT.601; nan where the list does not say
    group: str = ""  # scene: pictures of one group show the same content
    device: str = ""  # camera
    enhancer: str = ""  # what made the picture out of a dark one
    attributes: Mapping[str, float] = field(default_factory=dict)  # people's scores of single aspects
    description: str = ""  # people's words

    @property
    def dark(self) -> bool:
        """Mean luma below 70."""
        return self.mean_luma < DARK


@dataclass(frozen=True)
class Dataset:
    """The pictures of one split."""

    name: str
    split: str
    items: Sequence[Rated]
    relative: bool = False  # labels compare the pictures of one scene and mean nothing across scenes


def need(path: Path, layout: str) -> Path:
    """The path, if it exists.

    Raises:
        FileNotFoundError: it does not; the message holds ``layout``, what to download and where to put it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. {layout}")
    return path


def complete(rated: Sequence[Rated], source: Path, layout: str) -> list[Rated]:
    """The pictures of a list, if all of them are there, each once.

    Raises:
        FileNotFoundError: some are missing; the message names them and holds ``layout``.
        ValueError: the list is empty or names a picture twice.
    """
    if not rated:
        raise ValueError(f"{source} names no pictures for this split")
    twice = [path for path, count in Counter(item.path for item in rated).items() if count > 1]
    if twice:
        raise ValueError(f"{source} names {len(twice)} pictures more than once, first {twice[0].name}")
    missing = [item.path for item in rated if not item.path.is_file()]
    if missing:
        names = ", ".join(path.name for path in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise FileNotFoundError(
            f"{missing[0].parent} lacks {len(missing)} of {len(rated)} pictures of {source.name}, first {names}; "
            f"complete the data set, figures over a part of it are not comparable. {layout}"
        )
    return list(rated)


def number(text: object, place: object) -> float:
    """A finite score.

    Raises:
        ValueError: it is none; the message says where it stands.
    """
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place}: {text!r} is not a score")
    return value


def table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns.

    Raises:
        ValueError: it has other columns or no rows.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not set(columns) <= rows[0].keys():
        raise ValueError(f"{path} must have the columns {' and '.join(columns)}, and at least one row")
    return rows


def one_of(split: str, splits: Sequence[str]) -> str:
    """The split, if the data set has it.

    Raises:
        ValueError: it has not.
    """
    if split not in splits:
        raise ValueError(f"there is no split {split!r}; there are: {', '.join(splits)}")
    return split
