"""Agreement of scores with people: SRCC, KRCC, PLCC raw and mapped, within scenes, with bootstrap intervals.

Every figure is signed and taken over all pictures; a NaN score is an error, never dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.int64]


def _pair(scores: ArrayLike, labels: ArrayLike) -> tuple[Vector, Vector]:
    s, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    if s.shape != y.shape or s.ndim != 1 or len(s) < 3:
        raise ValueError(f"scores and labels must be vectors of one length, at least 3: not {s.shape} and {y.shape}")
    for name, values in (("scores", s), ("labels", y)):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}; score every picture, none may be dropped")
    return s, y


def srcc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Spearman's rank correlation, signed; 0 where one vector is constant."""
    from scipy.stats import rankdata

    s, y = _pair(scores, labels)
    return plcc(rankdata(s), rankdata(y))


def krcc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Kendall's tau-b, signed; 0 where one vector is constant."""
    from scipy.stats import kendalltau

    s, y = _pair(scores, labels)
    return float(np.nan_to_num(kendalltau(s, y).statistic))


def plcc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Pearson's linear correlation of the raw scores, signed; 0 where one vector is constant."""
    s, y = _pair(scores, labels)
    s, y = s - s.mean(), y - y.mean()
    norm = float(np.sqrt((s @ s) * (y @ y)))
    return float(s @ y) / norm if norm > 0 else 0.0


def logistic(x: Any, parameters: Sequence[float]) -> Any:
    """The 4-parameter logistic b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) of an array or a tensor."""
    b1, b2, b3, b4 = parameters
    z = (x - b3) / abs(b4)
    if isinstance(z, (float, np.ndarray, np.floating)):
        from scipy.special import expit

        return b2 + (b1 - b2) * expit(z)
    return b2 + (b1 - b2) * z.sigmoid()


def _slopes(x: Vector, b1: float, b2: float, b3: float, b4: float) -> Vector:
    """Derivatives of ``logistic`` by its parameters, (N, 4); finite differences fail where a start value is near 0."""
    rise = logistic(x, (1.0, 0.0, b3, b4))
    steep = (b1 - b2) * rise * (1 - rise) / abs(b4)
    return np.stack([rise, 1 - rise, -steep, -steep * (x - b3) / b4], 1)


def fit_logistic(
    scores: ArrayLike,
    labels: ArrayLike,
    limits: tuple[float, float] | None = None,
    start: Sequence[float] | None = None,
) -> tuple[float, float, float, float]:
    """Least-squares parameters (b1, b2, b3, b4) of ``logistic`` from scores to labels.

    Args:
        scores: raw predictions.
        labels: the scale to map them to.
        limits: bounds for both asymptotes; None leaves them free.
        start: where to begin; None begins as LEIQ-Assessor's code does: max(labels), min(labels), mean(scores), 0.5.

    Raises:
        ValueError: the fit does not converge, or there are fewer than four scores.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    s, y = _pair(scores, labels)
    if len(s) < 4:
        raise ValueError(f"{len(s)} scores are too few for the 4 parameters of a logistic")
    begin = np.array([y.max(), y.min(), s.mean(), 0.5] if start is None else start, np.float64)
    bounds = (-np.inf, np.inf)
    if limits is not None:
        low, high = limits
        begin[:2] = np.clip(begin[:2], low + 1e-3, high - 1e-3)
        bounds = ([low, low, -np.inf, 1e-6], [high, high, np.inf, np.inf])  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            for kind in (OptimizeWarning, RuntimeWarning):  # of the covariance, which nobody asks for
                warnings.simplefilter("ignore", kind)
            found, _ = curve_fit(
                lambda x, *b: logistic(x, b), s, y, p0=begin, bounds=bounds, jac=_slopes, maxfev=100_000
            )
    except RuntimeError as error:
        raise ValueError(f"no logistic fits these {len(s)} scores ({error}); look at their scatter plot") from error
    b1, b2, b3, b4 = map(float, found)
    return b1, b2, b3, abs(b4)


def plcc_logistic(scores: ArrayLike, labels: ArrayLike) -> float:
    """Pearson's correlation after the 4-parameter logistic is fitted to these very data, as papers report it."""
    s, y = _pair(scores, labels)
    return plcc(logistic(s, fit_logistic(s, y)), y)


def interval(
    figure: Callable[[Vector, Vector], float],
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval of a figure: percentiles 2.5 and 97.5 over ``draws`` resamples of the pictures.

    With ``groups``, the scene of each picture, whole scenes are resampled: pictures of one scene are not independent.

    Raises:
        ValueError: fewer than three pictures or scenes.
    """
    s, y = _pair(scores, labels)
    if groups is None:
        return bootstrap(lambda chosen: figure(s[chosen], y[chosen]), len(s), draws=draws, seed=seed)
    members = list(members_of(groups).values())
    if len(members) < 3:
        raise ValueError(f"{len(members)} scenes are too few to resample; leave groups out")

    def of_scenes(chosen: Places) -> float:
        places = np.concatenate([members[scene] for scene in chosen])
        return figure(s[places], y[places])

    return bootstrap(of_scenes, len(members), draws=draws, seed=seed)


def bootstrap(
    statistic: Callable[[Places], float], count: int, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of a statistic of ``count`` places that are drawn with replacement."""
    rng = np.random.default_rng(seed)
    low, high = np.percentile([statistic(rng.integers(0, count, count)) for _ in range(draws)], [2.5, 97.5])
    return float(low), float(high)


def members_of(groups: Sequence[str]) -> dict[str, Places]:
    """The places of each group's pictures, groups in order of appearance."""
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return {group: np.array(found) for group, found in places.items()}


def scene_srcc(scores: ArrayLike, labels: ArrayLike, groups: Sequence[str]) -> Vector:
    """SRCC inside each scene of at least three pictures with different labels; their mean is the usual figure.

    Raises:
        ValueError: there is no such scene.
    """
    s, y = _pair(scores, labels)
    scenes = [m for m in members_of(groups).values() if len(m) >= 3 and np.ptp(y[m]) > 0]
    if not scenes:
        raise ValueError("no scene has three pictures with different labels; figures within scenes need them")
    return np.array([srcc(s[m], y[m]) for m in scenes])


def pairs_in_order(scores: ArrayLike, labels: ArrayLike, groups: Sequence[str]) -> Vector:
    """For each scene, how many of its pairs with different labels the scores order alike, and how many there are.

    Shape (scenes, 2); a tie of the scores counts one half. Pair accuracy is the ratio of the columns' sums.
    """
    s, y = _pair(scores, labels)
    counts = []
    for m in members_of(groups).values():
        first, second = np.triu_indices(len(m), 1)
        wanted, found = (np.sign(v[m][first] - v[m][second]) for v in (y, s))
        counts.append([((wanted * found + 1) / 2)[wanted != 0].sum(), (wanted != 0).sum()])
    return np.array(counts, np.float64)
