"""Test which methods differ on the same pictures: bootstrap intervals, signed-rank tests, groups and their letters.

F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1945; S. Holm, "A simple sequentially
rejective multiple test procedure", Scand. J. Statistics 1979; H.-P. Piepho, "An algorithm for a letter-based
representation of all-pairwise comparisons", J. Computational and Graphical Statistics 2004.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix: TypeAlias = NDArray[np.float64]

LEVEL = 0.05  # of a family of tests: the pairs of methods under one metric
EXACT = 50  # pictures up to which p-values are exact, not approximated
TIE = 1e-5  # of the largest score; smaller differences may be rounding
FEWEST = 3  # pictures to resample, at least


@dataclass(frozen=True)
class Statistics:
    """Statistics of K methods under one metric, over the same pictures."""

    mean: Matrix  # (K,)
    deviation: Matrix  # (K,), of the pictures; NaN for one picture
    interval: Matrix  # (K, 2), 95 % bootstrap interval of the mean; NaN for fewer than three pictures
    rank: NDArray[np.int64]  # (K,), 1 is best; equal means share a rank
    rank_interval: Matrix  # (K, 2)
    p_value: Matrix  # (K, K), Holm-corrected; 1 on the diagonal
    share_won: Matrix  # (K, K), of the pictures on which the row's method beats the column's; a tie counts half
    letters: tuple[str, ...]  # methods that share a letter do not differ significantly

    @property
    def groups(self) -> dict[str, list[int]]:
        """Return the methods of each letter."""
        found: dict[str, list[int]] = {}
        for method, own in enumerate(self.letters):
            for letter in own:
                found.setdefault(letter, []).append(method)
        return dict(sorted(found.items()))


def analyze(scores: ArrayLike, lower_better: bool, *, draws: int = 2000) -> Statistics:
    """Compare methods by their scores (N pictures, K methods) on the same pictures.

    The intervals are from ``draws`` resamples of the pictures, the same for all methods.

    Raises:
        ValueError: no pictures, no methods, or a score that is not finite.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"scores are (pictures, methods), at least one of each, not {values.shape}")
    if not np.isfinite(values).all():
        place = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
        raise ValueError(f"scores[{place[0]}, {place[1]}] is {values[place]}; leave that picture out of the comparison")
    count, methods = values.shape
    tie = tie_width(values)
    means = values.mean(0)

    nothing = np.full((methods, 2), np.nan)
    interval, rank_interval = nothing, nothing
    if count >= FEWEST:
        resampled = resample_means(values, draws)
        interval = np.percentile(resampled, [2.5, 97.5], axis=0).T
        ranks = rank_means(resampled, lower_better, tie)
        rank_interval = np.percentile(ranks, [2.5, 97.5], axis=0, method="nearest").T

    gains = -values if lower_better else values
    p_value, share_won = compare_pairs(gains, tie)
    return Statistics(
        mean=means,
        deviation=values.std(0, ddof=1) if count > 1 else np.full(methods, np.nan),
        interval=interval,
        rank=rank_means(means, lower_better, tie),
        rank_interval=rank_interval,
        p_value=p_value,
        share_won=share_won,
        letters=tuple(assign_letters(p_value < LEVEL, np.argsort(-gains.mean(0), kind="stable").tolist())),
    )


def tie_width(values: Matrix) -> float:
    """Return the difference up to which two scores count as equal."""
    return TIE * float(np.abs(values).max())


def resample_means(values: Matrix, draws: int) -> Matrix:
    """Return the means (draws, K) over pictures drawn with replacement, the same ones for every method."""
    count = len(values)
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=draws)  # (draws, N)
    return np.asarray(times @ values / count)


def rank_means(means: Matrix, lower_better: bool, tie: float) -> NDArray[np.int64]:
    """Return the ranks (..., K) of methods, 1 for the best; those within ``tie`` of each other share the better one."""
    gains = -means if lower_better else means
    ahead = gains[..., None, :] > gains[..., :, None] + tie  # (..., K, K): is the second ahead of the first
    return np.asarray(1 + ahead.sum(-1))


def exact_signs(differences: Matrix, tie: float) -> Matrix:
    """Return the signs of differences: 1, -1, or 0 for ties."""
    return np.where(np.abs(differences) <= tie, 0.0, np.sign(differences))


def compare_pairs(gains: Matrix, tie: float) -> tuple[Matrix, Matrix]:
    """Test every pair of methods; return Holm-corrected p-values and shares of pictures won, both (K, K)."""
    methods = gains.shape[1]
    p_value, share_won = np.ones((methods, methods)), np.full((methods, methods), 0.5)
    pairs = list(combinations(range(methods), 2))

    raw = []
    for a, b in pairs:
        difference = gains[:, a] - gains[:, b]
        signs = exact_signs(difference, tie)
        raw.append(signed_rank(np.where(signs == 0, 0.0, difference)))
        share_won[a, b] = (signs.mean() + 1) / 2
        share_won[b, a] = 1 - share_won[a, b]

    for (a, b), p in zip(pairs, holm(raw), strict=True):
        p_value[a, b] = p_value[b, a] = p
    return p_value, share_won


def signed_rank(differences: ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test without zeros; 1 if all differences are zero.

    Up to ``EXACT`` differences the null distribution of their own ranks, ties included, is counted; beyond, it is the
    normal distribution with the variance of those ranks.
    """
    from scipy.stats import norm, rankdata

    d = np.asarray(differences, np.float64)
    d = d[d != 0]
    if not len(d):
        return 1.0

    ranks = np.rint(2 * rankdata(np.abs(d))).astype(np.int64)  # doubled: ranks of ties are halves
    positive, total = int(ranks[d > 0].sum()), int(ranks.sum())
    if len(d) > EXACT:
        z = (positive - total / 2) / (0.5 * float(np.sqrt((ranks.astype(np.float64) ** 2).sum())))
        return float(2 * norm.sf(abs(z)))

    # ways[s]: how many of the 2^n sign patterns have positive ranks that sum to s.
    ways = np.zeros(total + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    tail = ways[: min(positive, total - positive) + 1].sum()
    return float(min(1.0, 2 * tail / 2.0 ** len(d)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of one family of tests by Holm's step-down procedure."""
    corrected = [0.0] * len(p_values)
    running = 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = running
    return corrected


def assign_letters(different: NDArray[np.bool_], order: Sequence[int]) -> list[str]:
    """Give each method letters: two methods share one exactly if they are not ``different`` (K, K).

    ``order`` lists the methods from the best, which gets "a", to the worst.
    """
    groups = [frozenset(order)]
    for a, b in combinations(order, 2):
        if not different[a, b]:
            continue
        split: list[frozenset[int]] = []
        for group in groups:
            split += [group - {a}, group - {b}] if {a, b} <= group else [group]
        # Drop groups that are inside another one.
        unique = set(split)
        groups = [group for group in unique if not any(group < other for other in unique)]

    place = {method: position for position, method in enumerate(order)}
    groups.sort(key=lambda group: sorted(place[method] for method in group))
    return ["".join(letter(i) for i, group in enumerate(groups) if method in group) for method in range(len(order))]


def letter(index: int) -> str:
    """Return the letter of a group: a to z, A to Z, then more of Unicode's Latin letters."""
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return alphabet[index] if index < len(alphabet) else chr(0x100 + index - len(alphabet))


def smallest_p(count: int, pairs: int) -> float:
    """Return the smallest corrected p-value that ``count`` pictures can give one of ``pairs``."""
    return min(1.0, pairs * 2.0 ** (1 - count))
