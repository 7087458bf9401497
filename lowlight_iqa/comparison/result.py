"""Comparison: the scores of methods on the same pictures, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.correlation import srcc
from .match import Matched
from .significance import (
    FEWEST,
    LEVEL,
    Matrix,
    Statistics,
    analyze,
    exact_signs,
    resample_means,
    smallest_p,
    tie_width,
)

if TYPE_CHECKING:
    from .pictures import Box

INPUT, REFERENCE = "input", "reference"  # the folders beside the methods, as tables and the page call them
NO_REFERENCE, DARK_INPUT, FULL_REFERENCE = "no reference", "dark input", "full reference"
DRAWS = 2000  # resamples of the pictures


@dataclass(frozen=True)
class Measure:
    """A column of the comparison: one of the library's metrics, or a full-reference figure."""

    name: str
    lower_better: bool
    needs: str  # NO_REFERENCE, DARK_INPUT or FULL_REFERENCE
    summary: str

    @property
    def arrow(self) -> str:
        """The direction of better scores."""
        return "↓" if self.lower_better else "↑"


@dataclass(frozen=True)
class Agreement:
    """Whether a metric orders the methods as a full-reference figure does, picture by picture; + is agreement."""

    measure: str
    figure: str
    pairs: float  # of methods, the share in the same order; 0.5 is chance
    pairs_interval: tuple[float, float] | None  # 95 %, over pictures; None for fewer than three
    srcc: float | None  # mean of the pictures' own; None for fewer than three methods
    srcc_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """Scores of N pictures by K methods under every measure, and what follows from them."""

    methods: tuple[str, ...]
    names: tuple[str, ...]  # of the pictures
    measures: Mapping[str, Measure]
    scores: Mapping[str, Matrix]  # {measure: (N, K)}
    beside: Mapping[str, Mapping[str, Matrix]]  # {"input" or "reference": {measure: (N,)}}, unranked
    attributes: Mapping[str, Matrix]  # {method, "input" or "reference": (N, 6)}; empty where no metric names them
    sentences: Mapping[str, Sequence[str]]  # likewise, one for each picture
    explainer: str  # the metric that attributes and sentences are from; "" for none
    files: Mapping[str, Mapping[str, Path]]  # {label: {name: file}}
    matched: Matched
    failed: Mapping[str, str]  # {name: why it could not be scored}; left out of everything above
    draws: int = DRAWS

    @cached_property
    def statistics(self) -> Mapping[str, Statistics]:
        """Statistics of the methods by measure."""
        return {
            name: analyze(self.scores[name], measure.lower_better, draws=self.draws)
            for name, measure in self.measures.items()
        }

    @cached_property
    def mean_rank(self) -> Matrix:
        """Mean rank (K,) of each method over the measures, with equal weights."""
        return np.asarray(np.mean([found.rank for found in self.statistics.values()], axis=0))

    @cached_property
    def agreement(self) -> Sequence[Agreement]:
        """Agreement of each metric with each full-reference figure on the order of the methods."""
        references = [measure for measure in self.measures.values() if measure.needs == FULL_REFERENCE]
        metrics = [measure for measure in self.measures.values() if measure.needs != FULL_REFERENCE]
        if len(self.methods) < 2:
            return ()
        return [self._agree(metric, reference) for metric in metrics for reference in references]

    def _agree(self, metric: Measure, figure: Measure) -> Agreement:
        ours, theirs = self._signs(metric.name), self._signs(figure.name)  # (N, pairs of methods)

        # For each picture: pairs in the same order, a tie of the metric counting half, of those the figure orders.
        alike = np.where(theirs != 0, (1 + ours * theirs) / 2, 0.0).sum(1)
        ordered = (theirs != 0).sum(1)
        pairs_interval, srcc_interval, mean = None, None, None
        enough = len(self.names) >= FEWEST
        if enough:
            counts = resample_means(np.stack([alike, ordered], 1), self.draws)  # (draws, 2)
            shares = np.divide(counts[:, 0], counts[:, 1], out=np.full(self.draws, 0.5), where=counts[:, 1] > 0)
            pairs_interval = _middle(shares)

        if len(self.methods) > 2:
            gains = zip(self._oriented(metric.name), self._oriented(figure.name), strict=True)
            each = np.array([[srcc(a, b)] for a, b in gains])  # (N, 1)
            mean = float(each.mean())
            srcc_interval = _middle(resample_means(each, self.draws)) if enough else None
        share = float(alike.sum() / ordered.sum()) if ordered.any() else 0.5
        return Agreement(metric.name, figure.name, share, pairs_interval, mean, srcc_interval)

    @cached_property
    def spread(self) -> Matrix:
        """Range of the methods on each picture (N,) in standard deviations, mean over the measures."""
        parts = []
        for values in self.scores.values():
            deviation = values.std()
            parts.append(np.ptp(values, axis=1) / deviation if deviation > 0 else np.zeros(len(values)))
        return np.asarray(np.mean(parts, axis=0))

    @cached_property
    def conflict(self) -> Matrix:
        """How much the measures contradict each other on each picture (N,).

        The share of pairs of methods that two measures order differently, over all pairs of measures; a tie counts
        half. 0 if there are fewer than two methods or measures.
        """
        orders = [self._signs(name) for name in self.measures]
        both = [(1 - a * b).mean(1) / 2 for a, b in combinations(orders, 2) if a.size]
        return np.asarray(np.mean(both, axis=0)) if both else np.zeros(len(self.names))

    def _signs(self, name: str) -> Matrix:
        """Return the method of each pair that a measure prefers on each picture: 1, -1 or 0, (N, pairs)."""
        gains = self._oriented(name)
        first, second = np.triu_indices(len(self.methods), 1)
        return exact_signs(gains[:, first] - gains[:, second], tie_width(gains))

    def _oriented(self, name: str) -> Matrix:
        """Return the scores (N, K) of a measure, oriented so that higher is better."""
        return -self.scores[name] if self.measures[name].lower_better else self.scores[name]

    @property
    def labels(self) -> tuple[str, ...]:
        """Input, methods and reference, as far as they exist."""
        first, last = [(label,) if label in self.files else () for label in (INPUT, REFERENCE)]
        return (*first, *self.methods, *last)

    def score_of(self, label: str, measure: str) -> Matrix | None:
        """Return scores (N,) of a method, the input or the reference; None if the measure does not apply."""
        if label in self.methods:
            return np.asarray(self.scores[measure][:, self.methods.index(label)])
        return self.beside.get(label, {}).get(measure)

    def notes(self) -> list[str]:
        """Return what a reader must know about these figures, in sentences."""
        count, pairs = len(self.names), len(self.methods) * (len(self.methods) - 1) // 2
        notes = [f"{complaint}." for complaint in [self.matched.complaint()] if complaint]
        if self.failed:
            shown = "; ".join(list(self.failed.values())[:5])
            notes.append(f"{len(self.failed)} pictures could not be scored and are left out for every method: {shown}.")
        if count < FEWEST:
            notes.append(f"{count} picture{'s' * (count > 1)}: too few for intervals, tests or a ranking to trust.")
        elif pairs and smallest_p(count, pairs) >= LEVEL:
            notes.append(
                f"With {count} pictures and {pairs} pairs of methods no corrected p-value can fall below "
                f"{smallest_p(count, pairs):.2g}: no two methods can be told apart, however they differ."
            )
        return notes

    def __str__(self) -> str:
        from .tables import markdown

        return "\n".join([markdown(self).rstrip(), *self.notes()])

    def facts(self) -> dict[str, Any]:
        """Return everything but the single scores, as JSON values."""
        from .tables import facts

        return facts(self)

    def write(self, out: str | Path, *, crop: Box | None = None, show: Sequence[str] | None = None) -> Path:
        """Write tables, scores, figures and the page into a folder; return the page's path.

        Args:
            out: the folder.
            crop: x, y, width and height in pixels of the enlarged part; None for where methods differ most.
            show: pictures of ``figures/strips``; None for those on which methods differ most.

        Raises:
            ValueError: the extra ``report`` is not installed; no such picture; a crop outside the pictures.
        """
        from .report import write

        return write(self, Path(out), crop=crop, show=show)


def _middle(values: Matrix) -> tuple[float, float]:
    """Return the middle 95 % of resampled values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
