"""MLE (QoMEX 2026 challenge): 100 low-light scenes x 10 enhancers, with MOS, six attributes and a description.

The labels of the 20 test scenes are not public. The last letter of an id does not identify an enhancer: the names were
shuffled.
"""

import math
from pathlib import Path

from ..attributes import ATTRIBUTES
from ..jsonfile import read_json
from .rated import MAX_BYTES, Rated, complete, inside, need, number, one_of
from .registry import register

SPLITS = ("train", "test")
LAYOUT = (
    "Download CQUPT-HuBo90/MLEDataset from GitHub (with Git LFS) or Hugging Face, so that the folder holds "
    "MLE-training.json, MLE-test.json, MLE/training/*.png and MLE/test/*.png"
)


@register("mle", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "train", *, pictures: bool = True) -> list[Rated]:
    """Read the pictures of a split: MOS on 0..10, nan in "test"; attributes on 1..5. See ``registry.Read``.

    ``path.stem`` is the challenge's id.
    """
    path = need(Path(root) / f"MLE-{'training' if one_of(split, SPLITS) == 'train' else split}.json", LAYOUT)
    try:
        rows = read_json(path, MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"{path} is not MLE's list ({error}); download it again") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path} is not MLE's list, but a {type(rows).__name__}; download it again")
    rated = [_rated(Path(root), row, f"{path}, entry {index}", split) for index, row in enumerate(rows, 1)]
    return complete(rated, path, LAYOUT) if pictures else rated


def _rated(root: Path, row: object, where: str, split: str) -> Rated:
    """Read one entry; the test split has no scores."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: it is a {type(row).__name__}, not an object")
    name, description = row.get("id"), row.get("description", "")
    if not isinstance(name, str) or not isinstance(description, str):
        raise ValueError(f"{where}: its id or its description is not a text")
    return Rated(
        inside(root, row.get("file"), where),
        number(row.get("mos"), f"{where}, mos") if split == "train" else math.nan,
        group=name.rpartition("_")[0],
        attributes={key: number(row[key], f"{where}, {key}") for key in ATTRIBUTES if key in row},
        description=description,
    )
