"""Figures with their bootstrap intervals: of all pictures, within scenes, of parts, over random splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..data.rated import Rated
from ..functional.logistic import MAX_EVALUATIONS, Vector, fit_logistic, logistic
from .correlation import Indices, bootstrap, interval, krcc, pairs_in_order, plcc, scene_srcc, srcc
from .splits import group_mean, random_splits

MAPPED = "PLCC, logistic"
RESAMPLE_EVALUATIONS = 300  # limit of a fit that starts at the fit to all pictures; one that needs more diverges
SPLIT_FROM = 20  # scenes or pictures: fewer are not split at random


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Part:
    """A part of the pictures: those of one device or one luminance band."""

    count: int
    figures: Mapping[str, Figure]  # SRCC and PLCC


@dataclass(frozen=True)
class LogisticFit:
    """The 4-parameter logistic, fitted to standardized scores so that one initial value suits every metric."""

    parameters: tuple[float, float, float, float]
    center: float
    scale: float  # signed: negative for metrics whose lower scores are better

    def __call__(self, scores: Vector) -> Vector:
        """Map scores to the labels' scale."""
        mapped: Vector = logistic((scores - self.center) / self.scale, self.parameters)
        return mapped

    @classmethod
    def fit(
        cls,
        scores: Vector,
        labels: Vector,
        lower_better: bool,
        begin: LogisticFit | None = None,
        evaluations: int = MAX_EVALUATIONS,
    ) -> LogisticFit:
        """Fit by least squares, starting from ``begin``, a fit to similar scores; no fit is a ValueError."""
        if begin is None:
            spread = float(scores.std()) or 1.0
            start = (float(labels.max()), float(labels.min()), 0.0, 0.5)
            begin = cls(start, float(scores.mean()), -spread if lower_better else spread)
        z = (scores - begin.center) / begin.scale
        return cls(fit_logistic(z, labels, start=begin.parameters, evaluations=evaluations), begin.center, begin.scale)


def figure(
    of: Callable[[Vector, Vector], float], scores: Vector, labels: Vector, groups: Sequence[Hashable], draws: int = 1000
) -> Figure:
    """Return a figure with its interval over resampled scenes, or pictures if scenes are few; NaN for equal labels."""
    return _figures(lambda s, y: np.array([of(s, y)]), scores, labels, groups, draws)[0]


def _figures(
    of: Callable[[Vector, Vector], Vector], scores: Vector, labels: Vector, groups: Sequence[Hashable], draws: int
) -> list[Figure]:
    """Return the figures that one function computes together, as ``figure`` does."""
    values = of(scores, labels)
    if np.ptp(labels) == 0:
        return [Figure(math.nan, math.nan, math.nan)] * len(values)
    scenes = groups if 3 <= len(set(groups)) < len(groups) else None
    low, high = interval(of, scores, labels, groups=scenes, draws=draws)
    return [Figure(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]


def main_figures(
    scores: Vector, labels: Vector, groups: Sequence[Hashable], lower_better: bool, draws: int
) -> tuple[LogisticFit | None, dict[str, Figure]]:
    """Return the fit to all pictures, or None if no logistic fits, and the figures over all of them."""
    figures = {
        what: figure(of, scores, labels, groups, draws) for what, of in (("SRCC", srcc), ("KRCC", krcc), ("PLCC", plcc))
    }
    try:
        whole = LogisticFit.fit(scores, labels, lower_better)
    except ValueError:
        undefined = Figure(math.nan, math.nan, math.nan)
        return None, {**figures, MAPPED: undefined, "RMSE": undefined}

    def of_mapped(s: Vector, y: Vector) -> Vector:  # fitted again in each resample: the fit is part of the figure
        try:
            predicted = LogisticFit.fit(s, y, lower_better, whole, evaluations=RESAMPLE_EVALUATIONS)(s)
        except ValueError:  # where the fit diverges, the fit to all pictures is used
            predicted = whole(s)
        return np.array([plcc(predicted, y), _rmse(predicted, y)])

    figures[MAPPED], figures["RMSE"] = _figures(of_mapped, scores, labels, groups, draws)
    return whole, figures


def _rmse(predicted: Vector, labels: Vector) -> float:
    return float(np.sqrt(np.mean((predicted - labels) ** 2)))


def figures_within(
    scores: Vector, labels: Vector, groups: Sequence[Hashable], lower_better: bool, draws: int
) -> dict[str, Figure]:
    """Return the mean SRCC within scenes, signed, and the share of pairs within scenes ordered as people do."""
    try:
        each = scene_srcc(scores, labels, groups)
    except ValueError:
        return {}
    counts = pairs_in_order(-scores if lower_better else scores, labels, groups)

    def share(rows: Vector) -> float:
        right, total = rows.sum(0)
        return float(right / total) if total else 0.0

    return {
        "mean SRCC": Figure(
            float(each.mean()), *bootstrap(lambda chosen: float(each[chosen].mean()), len(each), draws=draws)
        ),
        "pairs in order": Figure(
            share(counts), *bootstrap(lambda chosen: share(counts[chosen]), len(counts), draws=draws)
        ),
    }


def split_figures(
    items: Sequence[Rated], scores: Vector, labels: Vector, lower_better: bool, scenes: bool
) -> dict[str, dict[str, float]]:
    """Return means over ten random splits, and those of baselines without pictures on the same splits."""
    keys: dict[str, Callable[[Rated], str]] = {"scene": lambda item: item.group, "enhancer": lambda item: item.enhancer}
    nulls = {name: key for name, key in keys.items() if len({key(item) for item in items}) > 1}
    units: tuple[Literal["scene", "image"], ...] = ("scene", "image") if scenes else ("image",)

    means: dict[str, dict[str, float]] = {}
    for by in units:
        count = len({item.group for item in items}) if by == "scene" else len(items)
        if count < SPLIT_FROM:
            continue

        rows = []
        for train, test in random_splits(items, by):
            row = _test_figures(scores, labels, train, test, lower_better)
            for name, key in nulls.items():
                guess = group_mean([items[k] for k in train], [items[k] for k in test], key)
                row[f"{name}-mean null, SRCC"] = srcc(guess, labels[test])
                row[f"{name}-mean null, PLCC"] = plcc(guess, labels[test])
            rows.append(row)
        means[by] = {what: float(np.mean([row[what] for row in rows])) for what in rows[0]}
    return means


def _test_figures(
    scores: Vector, labels: Vector, train: Indices, test: Indices, lower_better: bool
) -> dict[str, float]:
    """Return the figures of a split's test pictures, mapped by the logistic of its training pictures."""
    try:
        mapped = LogisticFit.fit(scores[train], labels[train], lower_better)(scores[test])
    except ValueError:
        mapped = np.full(len(test), labels[train].mean())
    return {
        "SRCC": srcc(scores[test], labels[test]),
        MAPPED: plcc(mapped, labels[test]),
        "RMSE": _rmse(mapped, labels[test]),
    }
