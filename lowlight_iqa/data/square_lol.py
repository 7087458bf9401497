"""SQUARE-LOL (IACA, TMM 2023): 290 low-light scenes x 10 enhancers, labels are win rates within a scene.

Splits as in the authors' IQA_Dataset.py: the first 2,470 lines are for training; of the other 430 it skips the last.
The scores of each scene average .5 and cannot be compared across scenes.
"""

from pathlib import Path

from .rated import Rated, complete, inside, lines, need, number, one_of
from .registry import register

SPLITS = ("test", "train", "all")
TRAIN = 2470  # lines
LAYOUT = (
    "Download name_mos.txt from the repository Baoliang93/IACA_For_Lowlight_IQA (GitHub) and the enhanced pictures "
    "that its authors hand out, so that the folder holds name_mos.txt and enhancement/low00001_CRM_0.png, ..."
)


@register("square_lol", SPLITS, LAYOUT, relative=True)
def read(root: str | Path, split: str = "test", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures of a split; win rates on 0..1. See ``registry.Read``."""
    path = need(Path(root) / "name_mos.txt", LAYOUT)
    rated = []
    for where, line in lines(path):
        name, _, score = line.strip().replace("\t", " ").partition(" ")
        scene, _, rest = name.partition("_")  # low00001_CRM_0.png: scene, enhancer, number
        rated.append(
            Rated(
                inside(path.parent / "enhancement", name, where),
                number(score, where),
                group=scene,
                enhancer=rest.rpartition("_")[0],
            )
        )
    part = {"train": slice(TRAIN), "test": slice(TRAIN, -1), "all": slice(None)}[one_of(split, SPLITS)]
    return complete(rated[part], path, LAYOUT) if pictures else rated[part]
