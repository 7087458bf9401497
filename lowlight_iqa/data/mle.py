"""MLE (QoMEX 2026 challenge): 100 low-light scenes x 10 enhancers, with MOS, six attributes and a description.

Layout: the authors' repository, CQUPT-HuBo90/MLEDataset (GitHub or Hugging Face): ``MLE-training.json``,
``MLE-test.json`` and the pictures under the paths these name, ``MLE/training`` and ``MLE/test``. The labels of the 20
test scenes are not public. The last letter of an id stands for no particular enhancer: the names were shuffled.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..attributes import ATTRIBUTES
from .rated import Rated, complete, need, number, one_of

SPLITS = ("train", "test")
LAYOUT = (
    "Download CQUPT-HuBo90/MLEDataset from GitHub (with Git LFS) or Hugging Face, so that the folder holds "
    "MLE-training.json, MLE-test.json, MLE/training/*.png and MLE/test/*.png"
)


def read(root: str | Path, split: str = "train", *, pictures: bool = True) -> list[Rated]:
    """The pictures of a split; MOS on 0..10, attributes on 1..5; ``path.stem`` is the challenge's id.

    Args:
        root: the repository's folder.
        split: "train" (80 scenes), or "test" (20 scenes, MOS is nan).
        pictures: False reads the labels alone.

    Raises:
        FileNotFoundError: a list or a picture is missing; the message names it.
        ValueError: a list is damaged.
    """
    path = need(Path(root) / f"MLE-{'training' if one_of(split, SPLITS) == 'train' else split}.json", LAYOUT)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        rated = [
            Rated(
                Path(root) / row["file"],
                number(row["mos"], f"{path}, {row['id']}") if split == "train" else math.nan,
                group=row["id"].rpartition("_")[0],
                attributes={name: number(row[name], f"{path}, {row['id']}") for name in ATTRIBUTES if name in row},
                description=row.get("description", ""),
            )
            for row in rows
        ]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not MLE's list ({type(error).__name__}: {error}); download it again") from error
    return complete(rated, path, LAYOUT) if pictures else rated
