"""The 4-parameter logistic between a metric's raw output and the scale of the labels, and its fit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = NDArray[np.float64]
MAX_EVALUATIONS = 100_000  # of the logistic, in a fit


def logistic(x: Any, parameters: Sequence[float]) -> Any:
    """Return the 4-parameter logistic b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) of an array or a tensor.

    Example:
        >>> logistic(np.array([-50.0, 2.0, 50.0]), (10.0, 0.0, 2.0, 0.5)).round(6)
        array([ 0.,  5., 10.])
    """
    b1, b2, b3, b4 = parameters
    z = (x - b3) / abs(b4)
    if isinstance(z, (float, np.ndarray, np.floating)):
        from scipy.special import expit

        return b2 + (b1 - b2) * expit(z)
    return b2 + (b1 - b2) * z.sigmoid()


def _slopes(x: Vector, b1: float, b2: float, b3: float, b4: float) -> Vector:
    """Return the derivatives (N, 4) of ``logistic`` by its parameters.

    Finite differences fail where a start value is near 0.
    """
    rise = logistic(x, (1.0, 0.0, b3, b4))
    steep = (b1 - b2) * rise * (1 - rise) / abs(b4)
    return np.stack([rise, 1 - rise, -steep, -steep * (x - b3) / b4], 1)


def fit_logistic(
    scores: ArrayLike,
    labels: ArrayLike,
    limits: tuple[float, float] | None = None,
    start: Sequence[float] | None = None,
    evaluations: int = MAX_EVALUATIONS,
) -> tuple[float, float, float, float]:
    """Fit the parameters (b1, b2, b3, b4) of ``logistic`` from scores to labels by least squares.

    Args:
        scores: raw predictions.
        labels: the values to map them to.
        limits: bounds of both asymptotes; None: unbounded.
        start: initial parameters; None: those of LEIQ-Assessor's code, max(labels), min(labels), mean(scores), 0.5.
        evaluations: of the logistic; a fit that takes more does not converge.

    Raises:
        ValueError: the fit does not converge, or there are fewer than four scores.

    Example:
        >>> scores = np.linspace(-3, 3, 20)
        >>> np.round(fit_logistic(scores, logistic(scores, (9.0, 1.0, 0.5, 0.8))), 4).tolist()
        [9.0, 1.0, 0.5, 0.8]
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    s, y = checked_pair(scores, labels)
    if len(s) < 4:
        raise ValueError(f"{len(s)} scores are too few for the 4 parameters of a logistic")

    initial = np.array([y.max(), y.min(), s.mean(), 0.5] if start is None else start, np.float64)
    bounds = (-np.inf, np.inf)
    if limits is not None:
        low, high = limits
        initial[:2] = np.clip(initial[:2], low + 1e-3, high - 1e-3)
        bounds = ([low, low, -np.inf, 1e-6], [high, high, np.inf, np.inf])  # type: ignore[assignment]

    try:
        with warnings.catch_warnings():
            for kind in (OptimizeWarning, RuntimeWarning):  # they concern the covariance, which is not used
                warnings.simplefilter("ignore", kind)
            parameters, _ = curve_fit(
                lambda x, *b: logistic(x, b), s, y, p0=initial, bounds=bounds, jac=_slopes, maxfev=evaluations
            )
    except RuntimeError as error:
        raise ValueError(f"no logistic fits these {len(s)} scores ({error}); look at their scatter plot") from error
    b1, b2, b3, b4 = map(float, parameters)
    return b1, b2, b3, abs(b4)


def checked_pair(scores: ArrayLike, labels: ArrayLike) -> tuple[Vector, Vector]:
    """Return scores and labels as float64 vectors of one length, all finite.

    Raises:
        ValueError: unequal lengths or a value that is not finite; the message names the first one.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    if s.shape != y.shape or s.ndim != 1 or len(s) < 3:
        raise ValueError(f"scores and labels must be vectors of one length, at least 3: not {s.shape} and {y.shape}")
    for name, values in (("scores", s), ("labels", y)):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}; score every picture, none may be dropped")
    return s, y
