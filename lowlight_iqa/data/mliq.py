"""MLIQ (BMQA, IJCV 2024): 3,600 low-light photographs with texts, 720 scenes x 5 settings, five cameras.

The authors' download needs a password and its layout is **not known**. The reader expects ``MLIQ.csv`` in the format of
the data set "csv". Scene and camera are taken from file names such as NNID's, which 2,240 of the pictures have,
otherwise from the columns group and device.
"""

from dataclasses import replace
from pathlib import Path

from . import csv, nnid
from .rated import Rated, need
from .registry import register

SPLITS = ("all",)
LAYOUT = (
    "Ask MLIQ's authors for the password (charwill.github.io/bmqa.html) and write MLIQ.csv with the columns image, mos "
    "and, for pictures that are not named as NNID's, group (the scene) and device; description for the texts"
)


@register("mliq", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "all", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures that ``MLIQ.csv`` in the folder ``root`` lists; MOS on 0..1. See ``registry.Read``.

    A picture without a scene, by its name or in the column group, is a ValueError.
    """
    path = need(Path(root) / "MLIQ.csv", LAYOUT)
    rated = []
    for item in csv.read(path, split, pictures=pictures):
        scene, device = nnid.scene_and_device(item.path.name) or (item.group, item.device)
        if not scene:
            raise ValueError(f"{path}: no scene is known for {item.path.name}; fill the column group")
        rated.append(replace(item, group=scene, device=nnid.DEVICES.get(device, device)))
    return rated
