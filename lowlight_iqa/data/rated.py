"""Shared by the readers: the records they return and the checks of lists and names."""

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

MAX_BYTES = 32_000_000  # of a list; the longest, KonIQ's, has 1 MB
BOM = b"\xef\xbb\xbf"  # with which spreadsheets start UTF-8 files
DARK = 70.0  # mean luma below which a picture counts as dark


@dataclass(frozen=True)
class Rated:
    """One rated picture; fields that a data set does not have are empty."""

    path: Path
    mos: float  # mean opinion score on the data set's own scale, higher is better; nan if labels are not public
    mean_luma: float = math.nan  # 0 to 255, BT.601; nan if the list does not contain it
    group: str = ""  # scene: pictures of one group show the same content
    device: str = ""  # camera
    enhancer: str = ""  # method that enhanced a dark picture
    attributes: Mapping[str, float] = field(default_factory=dict)  # people's scores of single attributes
    description: str = ""  # by people

    @property
    def dark(self) -> bool:
        """Whether the mean luma is below 70."""
        return self.mean_luma < DARK


@dataclass(frozen=True)
class Dataset:
    """The pictures of one split."""

    name: str
    split: str
    items: Sequence[Rated]
    relative: bool = False  # labels compare the pictures of one scene and mean nothing across scenes


def need(path: Path, layout: str) -> Path:
    """Return the path if it exists; the error holds ``layout``, what to download and where to put it."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. {layout}")
    return path


def complete(rated: Sequence[Rated], source: Path, layout: str) -> list[Rated]:
    """Return the pictures of a list, if there are any, all of them exist and each is listed once.

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


def number(text: object, where: object) -> float:
    """Return a finite score, or refuse it with ``where`` it is."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or isinstance(text, bool):
        raise ValueError(f"{where}: {str(text)[:40]!r} is not a score")
    return value


def inside(folder: Path, name: object, where: object) -> Path:
    """Return the path of a listed picture, which must be in ``folder`` or below.

    Raises:
        ValueError: it is not a name, or leads out of the folder; the message says ``where`` it is.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"{where}: {str(name)[:40]!r} is not the name of a picture")
    if PureWindowsPath(name).drive or name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        raise ValueError(f"{where}: {name[:80]!r} leads out of {folder}; name pictures inside it")
    return folder / name


def lines(path: Path) -> list[tuple[str, str]]:
    """Return the lines of a UTF-8 file that are not empty, each with its file and number for errors."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes, so it is not a list of scores")

    numbered = []
    for row, line in enumerate(content.removeprefix(BOM).splitlines(), 1):
        where = f"{path}, line {row}"
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: it is not UTF-8 ({error.reason}); save the list as UTF-8") from error
        if text.strip():
            numbered.append((where, text))
    return numbered


class Row(dict[str, str]):
    """A row of a table; ``where`` names its file and line."""

    def __init__(self, cells: Mapping[str, str], where: str) -> None:
        super().__init__(cells)
        self.where = where

    def number(self, column: str) -> float:
        """Return the finite number in a column."""
        return number(self[column], f"{self.where}, {column}")


def table(path: Path, columns: Sequence[str]) -> list[Row]:
    """Read the rows of a CSV file that has these columns.

    Raises:
        ValueError: it has other columns or no rows, is not UTF-8, or a row is damaged; the message says which.
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
    """Return the split, if the data set has it."""
    if split not in splits:
        raise ValueError(f"there is no split {split!r}; there are: {', '.join(splits)}")
    return split
