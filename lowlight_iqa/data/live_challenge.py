"""LIVE In the Wild Image Quality Challenge (Ghadiyaram and Bovik, TIP 2016): 1,162 photographs of mobile cameras.

The lists hold 1,169 names and scores in the same order. The first seven were used to train the raters; they are in
``Images/trainingImages`` and not part of any evaluation.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..matfile import read_mat
from .rated import Rated, complete, inside, need, number, one_of
from .registry import register

SPLITS = ("test", "train")
TRAINING = 7  # pictures with which the raters were trained
LAYOUT = (
    "Ask LIVE (live.ece.utexas.edu/research/ChallengeDB) for ChallengeDB_release.zip, so that the folder holds "
    "Data/AllImages_release.mat, Data/AllMOS_release.mat and Images/"
)


@register("live_challenge", SPLITS, LAYOUT)
def read(root: str | Path, split: str = "test", *, pictures: bool = True) -> list[Rated]:
    """Read the 1,162 rated pictures, or ("train") the seven of the raters' training; MOS on 0..100. See ``Read``."""
    one_of(split, SPLITS)
    lists = [need(Path(root) / "Data" / f"All{what}_release.mat", LAYOUT) for what in ("Images", "MOS")]
    names, scores = (_variable(path) for path in lists)
    if len(names) != len(scores):
        raise ValueError(f"{lists[0]} holds {len(names)} names and {lists[1].name} {len(scores)} scores")
    folder = Path(root) / "Images" / ("trainingImages" if split == "train" else "")
    part = slice(TRAINING) if split == "train" else slice(TRAINING, None)
    rated = [
        Rated(inside(folder, name, lists[0]), number(score, f"{lists[1]}, {name}"))
        for name, score in zip(names[part], scores[part], strict=True)
    ]
    return complete(rated, lists[0], LAYOUT) if pictures else rated


def _variable(path: Path) -> Any:
    """Read the variable with the name of its file, as a list."""
    values = read_mat(path).get(path.stem)
    if values is None:
        raise ValueError(f"{path} does not hold {path.stem}; download it again")
    return values if isinstance(values, list) else np.ravel(values).tolist()
