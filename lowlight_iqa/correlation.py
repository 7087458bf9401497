"""Agreement of scores with people: SRCC, KRCC, PLCC raw and after the 4-parameter logistic, with bootstrap intervals.

Every figure is signed and taken over all pictures; a NaN score is an error, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = NDArray[np.float64]


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
    scores: ArrayLike, labels: ArrayLike, limits: tuple[float, float] | None = None
) -> tuple[float, float, float, float]:
    """Least-squares parameters (b1, b2, b3, b4) of ``logistic`` from scores to labels.

    Started as LEIQ-Assessor's code does: max(labels), min(labels), mean(scores), 0.5.

    Args:
        scores: raw predictions.
        labels: the scale to map them to.
        limits: bounds for both asymptotes; None leaves them free.

    Raises:
        ValueError: the fit does not converge.
    """
    from scipy.optimize import curve_fit

    s, y = _pair(scores, labels)
    start = np.array([y.max(), y.min(), s.mean(), 0.5])
    bounds = (-np.inf, np.inf)
    if limits is not None:
        low, high = limits
        start[:2] = np.clip(start[:2], low + 1e-3, high - 1e-3)
        bounds = ([low, low, -np.inf, 1e-6], [high, high, np.inf, np.inf])  # type: ignore[assignment]
    try:
        found, _ = curve_fit(lambda x, *b: logistic(x, b), s, y, p0=start, bounds=bounds, jac=_slopes, maxfev=100_000)
    except RuntimeError as error:
        raise ValueError(f"no logistic fits these {len(s)} scores ({error}); look at their scatter plot") from error
    b1, b2, b3, b4 = map(float, found)
    return b1, b2, b3, abs(b4)


def plcc_logistic(scores: ArrayLike, labels: ArrayLike) -> float:
    """Pearson's correlation after the 4-parameter logistic is fitted to these very data, as papers report it."""
    s, y = _pair(scores, labels)
    return plcc(logistic(s, fit_logistic(s, y)), y)


def interval(
    figure: Callable[[Vector, Vector], float], scores: ArrayLike, labels: ArrayLike, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a figure: percentiles 2.5 and 97.5 over ``draws`` resamples of the pictures."""
    s, y = _pair(scores, labels)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        chosen = rng.integers(0, len(s), len(s))
        values.append(figure(s[chosen], y[chosen]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
