"""What every reader returns, and what every reader refuses."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

MAX_BYTES = 32_000_000  # of a list; the longest, KonIQ's, has 1 MB
BOM = b"\xef\xbb\xbf"  # with which spreadsheets begin UTF-8
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
    """Return a finite score.

    Raises:
        ValueError: it is none; the message says where it stands.
    """
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or isinstance(text, bool):
        raise ValueError(f"{place}: {str(text)[:40]!r} is not a score")
    return value


def inside(folder: Path, name: object, place: object) -> Path:
    """Return the path of a picture that a list names, which lies in ``folder`` or below.

    Raises:
        ValueError: it is no name, or leads out of the folder; the message says where it stands.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"{place}: {str(name)[:40]!r} is not the name of a picture")
    if PureWindowsPath(name).drive or name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        raise ValueError(f"{place}: {name[:80]!r} leads out of {folder}; name pictures inside it")
    return folder / name


def lines(path: Path) -> list[tuple[str, str]]:
    """Return the lines of a text, each with its place: file and number; empty ones are left out.

    Raises:
        ValueError: it is too large, or a line is not UTF-8; the message says which.
        OSError: missing or unreadable.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes, so it is no list of scores")
    found = []
    for row, line in enumerate(content.removeprefix(BOM).splitlines(), 1):
        place = f"{path}, line {row}"
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: it is not UTF-8 ({error.reason}); save the list as UTF-8") from error
        if text.strip():
            found.append((place, text))
    return found


class Row(dict[str, str]):
    """A row of a table; ``place`` is its file and line."""

    def __init__(self, cells: Mapping[str, str], place: str) -> None:
        super().__init__(cells)
        self.place = place

    def number(self, column: str) -> float:
        """Return the finite number in a column.

        Raises:
            ValueError: it is none; the message says where it stands.
        """
        return number(self[column], f"{self.place}, {column}")


def table(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a CSV file that has these columns.

    Raises:
        ValueError: it has other columns or no rows, is not UTF-8, or a row is damaged; the message says which.
        OSError: missing or unreadable.
    """
    numbered = lines(path)
    reader = csv.reader((text + "\n" for _, text in numbered), strict=True)
    header: list[str] = []
    rows = []
    while True:
        first = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise ValueError(f"{numbered[first][0]}: {error}") from error
        if not header:
            header = [name.strip() for name in cells]
            continue
        if len(cells) != len(header):
            raise ValueError(f"{numbered[first][0]}: it has {len(cells)} cells, and the first line {len(header)}")
        rows.append(Row(dict(zip(header, cells, strict=True)), numbered[first][0]))
    if not rows or not set(columns) <= set(header):
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
