"""Splits and baselines that see no picture: what a figure on a data set is worth. See docs/protocols.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from ..data.rated import Rated
from ..functional.logistic import Vector
from .correlation import Places, members_of


def random_splits(
    items: Sequence[Rated], by: Literal["scene", "image"] = "scene", *, repeats: int = 10, share: float = 0.2
) -> Iterator[tuple[Places, Places]]:
    """Places of the training and test pictures of ``repeats`` random splits; the seed of each is its number.

    Args:
        items: the pictures.
        by: "scene" keeps pictures of one group together; "image" does not, and so lets a trained model know the test
            scenes. Pictures without a group are scenes of their own.
        repeats: how many splits.
        share: of the scenes (or pictures) that are for testing.
    """
    keys = [item.group if by == "scene" and item.group else f"{place}" for place, item in enumerate(items)]
    members = list(members_of(keys).values())
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(members))
        cut = max(1, round(share * len(members)))
        test, train = (np.sort(np.concatenate([members[k] for k in part])) for part in (order[:cut], order[cut:]))
        yield train, test


def group_mean(train: Sequence[Rated], test: Sequence[Rated], key: Callable[[Rated], str]) -> Vector:
    """The null: each test picture gets the mean MOS of the training pictures with its key, or of all of them.

    With ``key=lambda item: item.group`` this is the scene's mean, which image-level splits give away; with
    ``item.enhancer`` the method's, which is all that a fingerprint of the enhancer is worth.

    Returns:
        Predictions (N,) for ``test``; no pixel is looked at.
    """
    labels = np.array([item.mos for item in train])
    means = {name: labels[places].mean() for name, places in members_of([key(item) for item in train]).items()}
    return np.array([means.get(key(item), labels.mean()) for item in test])
