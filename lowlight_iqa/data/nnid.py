"""NNID (Xiang et al., 2020): 2,240 night-time photographs, 448 scenes x 5 settings, three cameras.

The layout is that of three repositories which read the authors' download. Each line of a list is a score and a file
name such as ``D1_IC12_img3_1024.jpg``: camera, scene, setting, size. The same scene numbers denote other scenes at
other sizes.
"""

import re
from pathlib import Path

from .rated import Rated, complete, inside, lines, need, number, one_of
from .registry import register

SPLITS = ("all", "512", "1024", "2048")
FOLDERS = {"512": "sub512", "1024": "sub1024", "2048": "Sub2048"}
DEVICES = {"D1": "Nikon D5300", "D2": "iPhone 8 Plus", "D3": "iPad mini 2"}
LAYOUT = (
    "Get NNID from its authors (Xiang, Yang, Guo: Blind Night-Time Image Quality Assessment), so that the folder holds "
    "mos512_with_names.txt, mos1024_with_names.txt, mos2048_with_names.txt, sub512/, sub1024/ and Sub2048/"
)
_NAME = re.compile(r"(?P<device>D\d+)_IC(?P<scene>\d+)_img\d+_(?P<size>\d+)", re.IGNORECASE)


def scene_and_device(name: str) -> tuple[str, str] | None:
    """Return scene key and camera code ("D1") of a file name such as NNID's; None for other names."""
    match = _NAME.match(name)
    if match is None:
        return None
    device = match["device"].upper()
    return f"{device}_IC{match['scene']}_{match['size']}", device


@register("nnid", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "all", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures of one size or of all; MOS on 0..1. See ``registry.Read``."""
    sizes = FOLDERS if one_of(split, SPLITS) == "all" else {split: FOLDERS[split]}
    rated: list[Rated] = []
    path = Path(root)
    for size, folder in sizes.items():
        path = need(Path(root) / f"mos{size}_with_names.txt", LAYOUT)
        for where, line in lines(path):
            score, _, name = line.strip().replace("\t", " ").partition(" ")
            parts = scene_and_device(name := name.strip())
            if parts is None:
                raise ValueError(f"{where}: {name[:80]!r} is not a picture's name such as D1_IC12_img3_1024.jpg")
            scene, device = parts
            rated.append(
                Rated(
                    inside(Path(root) / folder, name, where),
                    number(score, where),
                    group=scene,
                    device=DEVICES.get(device, device),
                )
            )
    return complete(rated, path, LAYOUT) if pictures else rated
