"""Rated pictures for training, from any data set with scores: training and validation part, scores on 0..1."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..card import Card
from ..data import Rated, load
from ..data.biq2021 import held_out
from .pictures import Album

# The training split and the scale of its scores; None: from the lowest score in the file to the highest.
DATASETS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "biq2021": ("train", (0, 1)),
    "csv": ("all", None),
    "dark4k": ("all", (0, 1)),
    "koniq10k": ("train", (0, 100)),
    "live_challenge": ("test", (0, 100)),  # its "train" holds the pictures of the raters' training session
    "mle": ("train", (0, 10)),
    "mliq": ("all", (0, 1)),
    "nnid": ("all", (0, 1)),
    "spaq": ("all", (0, 100)),
}
NAMES = {"biq2021": "BIQ2021", "dark4k": "Dark-4K", "koniq10k": "KonIQ-10k", "live_challenge": "LIVE Challenge",
         "mle": "MLE", "mliq": "MLIQ", "nnid": "NNID", "spaq": "SPAQ"}  # fmt: skip
# Lowest score, deciles and highest score of BIQ2021's 10,000 training pictures.
BIQ2021_DECILES = (0.0, 0.3164, 0.4751, 0.581, 0.6604, 0.7192, 0.7508, 0.7764, 0.799, 0.8253, 1.0)


@dataclass(frozen=True)
class Ratings:
    """Rated pictures, scores on 0..1."""

    dataset: str
    source: str  # its name on a card
    train: list[Rated]
    val: list[Rated]  # selected by the hash of the file's name, or of the scene

    @property
    def scores(self) -> np.ndarray:
        """Scores of the training pictures."""
        return np.array([item.mos for item in self.train])

    def at_quantile_of(self, score: float) -> float:
        """Return the score at ``score``'s quantile in BIQ2021: a threshold there selects the same share of pictures."""
        if self.dataset == "biq2021":
            return score
        share = np.interp(score, BIQ2021_DECILES, np.linspace(0, 1, len(BIQ2021_DECILES)))
        return float(np.quantile(self.scores, share))

    def card(self, card: Card, figures: Mapping[str, float], **facts: Any) -> Card:
        """Return the card of a metric trained on these data: their license, the validation figures, further facts."""
        own = self.dataset == "csv"
        terms = f"that of your own data, {self.source}"
        if not own:
            terms = f"research use; training data under their own terms ({self.source})"
        return replace(
            card,
            license=f"{terms}; trunk Apache-2.0",
            datasets=() if own else (NAMES.get(self.dataset, self.dataset),),
            looks=0,
            reached={
                f"{name}, held-out {'scenes' if 'MLE' in name else 'pictures'}": f"{value:.3f}"
                for name, value in figures.items()
            },
            **facts,
        )

    def fingerprint(self) -> str:
        """Return a hash of names and scores, to check that a run is resumed on the same data."""
        return fingerprint([[(item.path.name, item.mos) for item in part] for part in (self.train, self.val)])


def fingerprint(facts: Any) -> str:
    """Return a short hash of plain Python values."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def read_ratings(dataset: str, data: Path, album: Album, *, at_least: int = 1, batch_option: str = "") -> Ratings:
    """Read a data set of ``DATASETS``; measure the mean luma of its pictures if its list does not contain it.

    Equal scores and fewer than ``at_least`` training pictures are refused; ``batch_option`` names the options to lower.
    """
    if dataset not in DATASETS:
        raise ValueError(f"--dataset is {dataset!r}; those with scores to train on are {', '.join(DATASETS)}")
    split, scale = DATASETS[dataset]
    items = load(dataset, data, split).items
    scores = [item.mos for item in items]
    low, high = scale or (min(scores), max(scores))
    if low == high:
        raise ValueError(f"every picture of {data} has the score {low:g}; nothing can be learned from equal scores")

    train, val = split_by_hash([replace(item, mos=(item.mos - low) / (high - low)) for item in items])
    if len(train) < at_least or len(val) < 4:
        remedy = f"lower {batch_option} or give more pictures" if batch_option else "give more pictures"
        raise ValueError(
            f"{data} has {len(train)} training pictures and {len(val)} held out; {at_least} and 4 are needed, {remedy}"
        )
    source = Path(data).name if dataset == "csv" else f"{NAMES[dataset]}'s training list"
    train, val = ([with_luma(item, album) for item in part] for part in (train, val))
    return Ratings(dataset, source, train, val)


def with_luma(item: Rated, album: Album) -> Rated:
    """Return the item with its mean luma (BT.601, 0 to 255), measured if it is unknown."""
    if not math.isnan(item.mean_luma):
        return item
    red, green, blue = album(item.path).mean((0, 1))
    return replace(item, mean_luma=0.299 * red + 0.587 * green + 0.114 * blue)


def split_by_hash(items: Sequence[Rated], parts: int = 10) -> tuple[list[Rated], list[Rated]]:
    """Split into training and held-out items, one in ``parts``, by the hash of the file's name or scene."""
    return [item for item in items if not held_out(item, parts)], [item for item in items if held_out(item, parts)]
