"""Dark-4K (BMQA, IJCV 2024): 424 photographs from SID's two cameras, Sony a7S II and Fujifilm X-T2.

The authors' download needs a password and its layout is **not known**. The reader expects a table ``Dark-4K.csv`` in
the format of the data set "csv".
"""

from pathlib import Path

from . import csv
from .rated import Rated, need
from .registry import register

SPLITS = ("all",)
LAYOUT = (
    "Ask Dark-4K's authors for the password (charwill.github.io/bmqa.html) and write Dark-4K.csv with the columns "
    "image, mos and, optionally, device and group (the scene)"
)


@register("dark4k", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "all", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures that ``Dark-4K.csv`` in the folder ``root`` lists; MOS on 0..1. See ``registry.Read``."""
    return csv.read(need(Path(root) / "Dark-4K.csv", LAYOUT), split, pictures=pictures)
