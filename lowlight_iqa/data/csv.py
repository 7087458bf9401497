"""Any rated pictures: a CSV file with the columns image, mos and, optionally, group, device, enhancer, description.

``image`` is a path relative to the file's folder, and may lead out of it. Every column named ``attribute.NAME`` holds
people's scores of an attribute.
"""

from pathlib import Path

from .rated import Rated, complete, need, one_of, table
from .registry import register

SPLITS = ("all",)
LAYOUT = "Write a CSV file with the columns image and mos (and group, for pictures that show the same scene)"


@register("csv", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "all", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures that the file ``root`` lists. See ``registry.Read``."""
    one_of(split, SPLITS)
    path = need(Path(root), LAYOUT)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the CSV file itself, with the columns image and mos")
    rated = [
        Rated(
            path.parent / row["image"],
            row.number("mos"),
            group=row.get("group") or "",
            device=row.get("device") or "",
            enhancer=row.get("enhancer") or "",
            attributes={key.removeprefix("attribute."): row.number(key) for key in row if key.startswith("attribute.")},
            description=row.get("description") or "",
        )
        for row in table(path, ("image", "mos"))
    ]
    return complete(rated, path, LAYOUT) if pictures else rated
