"""BIQ2021 (Ahmed and Asif, 2022): 12,000 photographs with people's scores, 512x512 JPEG.

The columns are ``Image Name`` and ``MOS``. The repository's ``Train.csv`` and ``Test.csv`` hold other ratings and are
not read. The case of a file's name may differ from the list. Your own lists have image, mos and, optionally, mean_luma.
"""

import hashlib
import math
import os
import re
from pathlib import Path

from .rated import Rated, complete, inside, need, one_of, table
from .registry import register

__all__ = ["LAYOUT", "SPLITS", "Rated", "held_out", "read"]

SPLITS = ("test", "train")
LAYOUT = (
    "Clone the repository nisarahmedrana/BIQ2021 (GitHub), so that the folder holds 'Train (Images and MOS).csv', "
    "'Test (Images and MOS).csv' and Images/; or give train.csv, test.csv (image, mos, mean_luma) and images/"
)


@register("biq2021", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "test", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures of a split; MOS on 0..1. See ``registry.Read``."""
    root = Path(root)
    path = root / f"{one_of(split, SPLITS).capitalize()} (Images and MOS).csv"
    folder, name, mos = root / "Images", "Image Name", "MOS"
    if not path.is_file():
        path, folder, name, mos = need(root / f"{split}.csv", LAYOUT), root / "images", "image", "mos"
    files = {file.lower(): file for file in os.listdir(folder)} if pictures and folder.is_dir() else {}
    rated = [
        Rated(
            inside(folder, files.get(row[name].lower(), row[name]), row.where),
            row.number(mos),
            row.number("mean_luma") if row.get("mean_luma") else math.nan,
        )
        for row in table(path, (name, mos))
    ]
    return complete(rated, path, LAYOUT) if pictures else rated


def plain_name(name: str) -> str:
    """Return a name without blanks, parentheses and capitals: "ss01_7.jpg" for "ss01 (7).JPG"."""
    return re.sub(r" \((\d+)\)", r"_\1", name).lower()


def held_out(item: Rated, parts: int = 10) -> bool:
    """Tell whether a training picture belongs to the validation part: one in ``parts``, by the hash of its plain name.

    So renamed copies are split in the same way. If a data set names scenes, one scene in ``parts`` is held out.
    """
    return int(hashlib.sha256((item.group or plain_name(item.path.name)).encode()).hexdigest(), 16) % parts == 0
