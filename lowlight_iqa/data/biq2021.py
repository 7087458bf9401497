"""BIQ2021 (Ahmed and Asif, 2022): 12,000 photographs with people's scores, 512x512 JPEG."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rated:
    """One picture with its mean opinion score."""

    path: Path
    mos: float  # 0 to 1
    mean_luma: float  # 0 to 255; nan where the list does not say

    @property
    def dark(self) -> bool:
        """Mean luma below 70."""
        return self.mean_luma < 70


def read(root: str | Path, split: str) -> list[Rated]:
    """The pictures of a split, in the order of its list.

    Args:
        root: folder with ``train.csv`` and ``test.csv`` (image, mos and, optionally, mean_luma) and ``images/``.
        split: "train" or "test".

    Raises:
        FileNotFoundError: the list or one of its pictures is missing; the message names it.
        ValueError: the list has other columns.
    """
    root = Path(root)
    path = root / f"{split}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; BIQ2021 is expected as train.csv, test.csv (image, mos, mean_luma) and images/"
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "mos"} <= rows[0].keys():
        raise ValueError(f"{path} must have the columns image and mos, and at least one row")
    rated = [
        Rated(root / "images" / row["image"], float(row["mos"]), float(row.get("mean_luma") or "nan")) for row in rows
    ]
    missing = [item.path.name for item in rated if not item.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{root / 'images'} lacks {len(missing)} of {len(rated)} pictures of {path.name}, first {missing[0]}; "
            "complete the data set, figures over a part of it are not comparable"
        )
    return rated


def held_out(item: Rated, parts: int = 10) -> bool:
    """Whether a training picture belongs to the validation part: one in ``parts``, by the hash of its file name."""
    return int(hashlib.sha256(item.path.name.encode()).hexdigest(), 16) % parts == 0
