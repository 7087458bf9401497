"""SPAQ (Fang et al., CVPR 2020): 11,125 smartphone photographs with five attributes and scene categories.

Layout: the authors' download (repository h4nwei/SPAQ): ``Annotations/MOS and Image attribute scores.xlsx`` (Image name,
MOS, Brightness, Colorfulness, Contrast, Noisiness, Sharpness), ``Annotations/Scene category labels.xlsx`` (Image name,
..., Night scene, ...) and ``TestImage/``. The workbooks are read without a spreadsheet library.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

from .rated import Rated, complete, need, number, one_of

SPLITS = ("all", "night")
ATTRIBUTES = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
LAYOUT = (
    "Download SPAQ (links in the repository h4nwei/SPAQ on GitHub), so that the folder holds "
    "'Annotations/MOS and Image attribute scores.xlsx', 'Annotations/Scene category labels.xlsx' and TestImage/"
)
_NAMESPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read(root: str | Path, split: str = "all", *, pictures: bool = True) -> list[Rated]:
    """The pictures; MOS and attributes on 0..100.

    Args:
        root: folder with ``Annotations/`` and ``TestImage/``.
        split: "all", or "night" for those that raters put into the category Night scene.
        pictures: False reads the labels alone.

    Raises:
        FileNotFoundError: a workbook or a picture is missing; the message names it.
        ValueError: a workbook is damaged or has other columns.
    """
    one_of(split, SPLITS)
    folder = Path(root) / "Annotations"
    path = need(folder / "MOS and Image attribute scores.xlsx", LAYOUT)
    rated = [
        Rated(
            Path(root) / "TestImage" / row["Image name"],
            number(row["MOS"], f"{path}, {row['Image name']}"),
            attributes={name.lower(): number(row[name], f"{path}, {row['Image name']}") for name in ATTRIBUTES},
        )
        for row in sheet(path, ("Image name", "MOS", *ATTRIBUTES))
    ]
    if split == "night":
        scenes = sheet(need(folder / "Scene category labels.xlsx", LAYOUT), ("Image name", "Night scene"))
        night = {row["Image name"] for row in scenes if float(row["Night scene"] or 0) > 0}
        rated = [item for item in rated if item.path.name in night]
    return complete(rated, path, LAYOUT) if pictures else rated


def sheet(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a workbook's first sheet under its first row, by that row's names.

    Raises:
        ValueError: it is no workbook or lacks one of ``columns``.
    """
    try:
        with ZipFile(path) as book:
            shared = []
            if "xl/sharedStrings.xml" in book.namelist():
                entries = ElementTree.fromstring(book.read("xl/sharedStrings.xml")).iter(f"{_NAMESPACE}si")
                shared = ["".join(text.text or "" for text in entry.iter(f"{_NAMESPACE}t")) for entry in entries]
            grid = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
        rows = [_cells(row, shared) for row in grid.iter(f"{_NAMESPACE}row")]
    except (BadZipFile, KeyError, IndexError, ElementTree.ParseError) as error:
        raise ValueError(f"{path} is not a workbook that can be read ({error}); download it again") from error
    names = {letters: name.strip() for letters, name in rows[0].items()} if rows else {}
    if not set(columns) <= set(names.values()):
        raise ValueError(f"{path} must have the columns {', '.join(columns)}, not {', '.join(names.values())}")
    found = [{name: row.get(letters, "") for letters, name in names.items()} for row in rows[1:]]
    return [row for row in found if row[columns[0]]]


def _cells(row: ElementTree.Element, shared: list[str]) -> dict[str, str]:
    """Texts by column letters."""
    cells = {}
    for cell in row.iter(f"{_NAMESPACE}c"):
        letters = re.sub(r"\d", "", cell.get("r", ""))
        if cell.get("t") == "inlineStr":
            cells[letters] = "".join(text.text or "" for text in cell.iter(f"{_NAMESPACE}t"))
            continue
        value = cell.findtext(f"{_NAMESPACE}v") or ""
        cells[letters] = shared[int(value)] if cell.get("t") == "s" and value else value
    return cells
