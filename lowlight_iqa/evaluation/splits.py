"""Random splits, and baselines that use no picture, to judge figures on a data set. See docs/protocols.md."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Literal

import numpy as np

from ..data.rated import Rated
from ..functional.logistic import Vector
from .correlation import Indices, members_of


def random_splits(
    items: Sequence[Rated], by: Literal["scene", "image"] = "scene", *, repeats: int = 10, share: float = 0.2
) -> Iterator[tuple[Indices, Indices]]:
    """Yield indices of the training and test pictures of ``repeats`` random splits; the seed of each is its number.

    ``by="scene"`` keeps pictures of one group together; "image" does not, so that a trained model knows the test
    scenes. A ``share`` of the scenes (or pictures) is for testing.
    """
    keys: list[Hashable] = [  # a number cannot be the name of a group
        item.group if by == "scene" and item.group else index for index, item in enumerate(items)
    ]
    members = list(members_of(keys).values())
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(members))
        cut = max(1, round(share * len(members)))
        test, train = (np.sort(np.concatenate([members[k] for k in part])) for part in (order[:cut], order[cut:]))
        yield train, test


def group_mean(train: Sequence[Rated], test: Sequence[Rated], key: Callable[[Rated], str]) -> Vector:
    """Predict for each test picture the mean MOS (N,) of the training pictures with the same key, or of all of them.

    With ``key=lambda item: item.group`` this is the scene's mean, which image-level splits reveal; with
    ``item.enhancer`` the method's mean, which a model reaches that only recognizes the enhancer.
    """
    labels = np.array([item.mos for item in train])
    means = {name: labels[members].mean() for name, members in members_of([key(item) for item in train]).items()}
    return np.array([means.get(key(item), labels.mean()) for item in test])
