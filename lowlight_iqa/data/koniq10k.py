"""KonIQ-10k (Hosu et al., TIP 2020): 10,073 photographs from the web.

The list has the columns image_name, MOS on 0..100 and set; if ``1024x768/`` is missing, ``512x384/`` is read.
"""

from pathlib import Path

from .rated import Rated, complete, inside, need, one_of, table
from .registry import register

SETS = {"test": "test", "train": "training", "validation": "validation"}
SPLITS = ("test", "train", "validation", "all")
LAYOUT = (
    "Download koniq10k_1024x768.zip (database.mmsp-kn.de/koniq-10k-database.html) and the file "
    "metadata/koniq10k_distributions_sets.csv of the repository subpic/koniq (GitHub), so that the folder holds "
    "1024x768/ and koniq10k_distributions_sets.csv"
)


@register("koniq10k", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "test", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures of an official split, or all; MOS on 0..100. See ``registry.Read``."""
    one_of(split, SPLITS)
    path = need(Path(root) / "koniq10k_distributions_sets.csv", LAYOUT)
    large, small = Path(root) / "1024x768", Path(root) / "512x384"
    folder = small if small.is_dir() and not large.is_dir() else large
    rated = [
        Rated(inside(folder, row["image_name"], row.where), row.number("MOS"))
        for row in table(path, ("image_name", "MOS", "set"))
        if split == "all" or row["set"] == SETS[split]
    ]
    return complete(rated, path, LAYOUT) if pictures else rated
