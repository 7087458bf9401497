"""Agreement of scores with people: SRCC, KRCC, PLCC raw and mapped, within scenes, with bootstrap intervals.

Every figure is signed and taken over all pictures; a NaN score is an error, never dropped.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..functional.logistic import Vector, checked_pair

T = TypeVar("T", float, Vector)
Indices: TypeAlias = NDArray[np.int64]
MAX_DRAWS = 100_000  # resamples of an interval


def srcc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return Spearman's rank correlation, signed; 0 if one vector is constant."""
    from scipy.stats import rankdata

    s, y = checked_pair(scores, labels)
    return plcc(rankdata(s), rankdata(y))


def krcc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return Kendall's tau-b, signed; 0 if one vector is constant."""
    from scipy.stats import kendalltau

    s, y = checked_pair(scores, labels)
    return float(np.nan_to_num(kendalltau(s, y).statistic))


def plcc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return Pearson's linear correlation of the raw scores, signed; 0 if one vector is constant."""
    s, y = checked_pair(scores, labels)
    s, y = s - s.mean(), y - y.mean()
    norm = float(np.sqrt((s @ s) * (y @ y)))
    return float(s @ y) / norm if norm > 0 else 0.0


def interval(
    figure: Callable[[Vector, Vector], T],
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    draws: int = 1000,
) -> tuple[T, T]:
    """Return the 95 % bootstrap interval of a figure, or of a vector of them, over ``draws`` resamples of the pictures.

    With ``groups``, the scene of each picture, whole scenes are resampled: pictures of one scene are not independent.
    """
    s, y = checked_pair(scores, labels)
    if groups is None:
        return bootstrap(lambda chosen: figure(s[chosen], y[chosen]), len(s), draws=draws)
    members = list(members_of(groups).values())
    if len(members) < 3:
        raise ValueError(f"{len(members)} scenes are too few to resample; leave groups out")

    def of_scenes(chosen: Indices) -> T:
        pictures = np.concatenate([members[scene] for scene in chosen])
        return figure(s[pictures], y[pictures])

    return bootstrap(of_scenes, len(members), draws=draws)


def bootstrap(statistic: Callable[[Indices], T], count: int, *, draws: int = 1000, seed: int = 0) -> tuple[T, T]:
    """Return percentiles 2.5 and 97.5 of a statistic, or a vector of them, of ``count`` indices with replacement."""
    if not 1 <= draws <= MAX_DRAWS:
        raise ValueError(f"the number of draws is {draws}; give 1 to {MAX_DRAWS}, 1000 is usual")
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(0, count, count)) for _ in range(draws)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return (low, high) if drawn.ndim > 1 else (float(low), float(high))  # type: ignore[return-value]


def members_of(groups: Sequence[Hashable]) -> dict[Hashable, Indices]:
    """Return the indices of each group's pictures, groups in order of appearance."""
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return {group: np.array(indices) for group, indices in members.items()}


def scene_srcc(scores: ArrayLike, labels: ArrayLike, groups: Sequence[Hashable]) -> Vector:
    """Return the SRCC in each scene of at least three pictures with different labels; papers report their mean."""
    s, y = checked_pair(scores, labels)
    scenes = [m for m in members_of(groups).values() if len(m) >= 3 and np.ptp(y[m]) > 0]
    if not scenes:
        raise ValueError("no scene has three pictures with different labels; figures within scenes need them")
    return np.array([srcc(s[m], y[m]) for m in scenes])


def pairs_in_order(scores: ArrayLike, labels: ArrayLike, groups: Sequence[Hashable]) -> Vector:
    """Return (scenes, 2): a scene's pairs with different labels that the scores order correctly, and all such pairs.

    A tie of the scores counts one half. Pair accuracy is the ratio of the columns' sums.
    """
    s, y = checked_pair(scores, labels)
    counts = []
    for m in members_of(groups).values():
        first, second = np.triu_indices(len(m), 1)
        of_labels, of_scores = (np.sign(v[m][first] - v[m][second]) for v in (y, s))
        ordered = of_labels != 0
        counts.append([((of_labels * of_scores + 1) / 2)[ordered].sum(), ordered.sum()])
    return np.array(counts, np.float64)
