"""SPAQ (Fang et al., CVPR 2020): 11,125 smartphone photographs with five attributes and scene categories.

The columns are Image name, MOS, Brightness, Colorfulness, Contrast, Noisiness, Sharpness, and in the other workbook
Night scene. They are read by openpyxl, the ``spaq`` extra.
"""

import warnings
from pathlib import Path
from zipfile import ZipFile

from .rated import MAX_BYTES, Rated, Row, complete, inside, need, one_of
from .registry import register

SPLITS = ("all", "night")
ATTRIBUTES = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
LAYOUT = (
    "Download SPAQ (links in the repository h4nwei/SPAQ on GitHub), so that the folder holds "
    "'Annotations/MOS and Image attribute scores.xlsx', 'Annotations/Scene category labels.xlsx' and TestImage/"
)
MAX_ROWS, MAX_COLUMNS = 20_000, 50  # the workbooks have 11,126 and at most 11


@register("spaq", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "all", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures, or at "night" those in the category Night scene; MOS and attributes on 0..100.

    Raises:
        FileNotFoundError, ValueError: see ``registry.Read``.
        ImportError: openpyxl, the ``spaq`` extra, is missing.
    """
    one_of(split, SPLITS)
    folder = Path(root) / "Annotations"
    path = need(folder / "MOS and Image attribute scores.xlsx", LAYOUT)
    rated = [
        Rated(
            inside(Path(root) / "TestImage", row["Image name"], row.where),
            row.number("MOS"),
            attributes={name.lower(): row.number(name) for name in ATTRIBUTES},
        )
        for row in sheet(path, ("Image name", "MOS", *ATTRIBUTES))
    ]
    if split == "night":
        scenes = sheet(need(folder / "Scene category labels.xlsx", LAYOUT), ("Image name", "Night scene"))
        night = {row["Image name"] for row in scenes if row["Night scene"] and row.number("Night scene") > 0}
        rated = [item for item in rated if item.path.name in night]
    return complete(rated, path, LAYOUT) if pictures else rated


def sheet(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """Read the rows of a workbook's first sheet, whose first row names the columns."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise ImportError("reading SPAQ's workbooks needs openpyxl; pip install 'lowlight_iqa[spaq]'") from error

    try:
        with ZipFile(path) as book:
            size = sum(entry.file_size for entry in book.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"it decompresses to {size} bytes, more than {MAX_BYTES}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of styles and the like, which are not read
            workbook = load_workbook(path, read_only=True, data_only=True, keep_links=False)
            cells = workbook.worksheets[0].iter_rows(max_row=MAX_ROWS, max_col=MAX_COLUMNS, values_only=True)
            grid = [["" if cell is None else str(cell).strip() for cell in row] for row in cells]
        workbook.close()
    except Exception as error:  # openpyxl reports damage as KeyError, TypeError, ParseError, ...
        raise ValueError(
            f"{path} is not a workbook that can be read ({str(error) or type(error).__name__}); download it again"
        ) from error

    names = grid[0] if grid else []
    if not set(columns) <= set(names):
        raise ValueError(f"{path} must have the columns {', '.join(columns)}, not {', '.join(filter(None, names))}")
    rows = [
        Row(dict(zip(names, [*row, *[""] * len(names)], strict=False)), f"{path}, row {number}")
        for number, row in enumerate(grid[1:], 2)
    ]
    return [row for row in rows if row[columns[0]]]
