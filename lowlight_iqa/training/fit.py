"""Fit the score of a bundled metric to a user's own ratings: closed form, minutes on a CPU, 50 pictures upwards.

The last layer of a score is linear in the network's features z. Fitted is

    rating = a * (the bundled layer's output) + d . z + b,    the penalty on |d|^2 chosen by cross-validation,

so that ratings that say little only set scale and offset, and those that say much turn the layer. Agreement before and
after is that of pictures that had no part in the fit (nested cross-validation, whole scenes at a time), and ratings
that cannot be predicted better than shuffled ones are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import Rated, load
from ..evaluation.correlation import interval, srcc
from ..functional.logistic import fit_logistic
from ..metric import Metric
from ..metrics.bmqa import Bmqa
from ..metrics.iaca import Iaca
from ..metrics.leiq import Leiq
from ..registry import create_metric, get_class, list_metrics
from .linear import adjust, offset_of, weight_of
from .ratings import DATASETS

FEWEST = 50  # pictures
FEWEST_SCENES = 5
STRENGTHS = (*np.geomspace(1e-3, 1e3, 13), np.inf)  # of the penalty, per picture and mean variance; inf: d is 0
FOLDS, INNER_FOLDS = 10, 5
DRAWS = 2000  # shuffled ratings that the real ones must beat
CHANCE = 0.01  # share of them that may predict as well

# The last layers of a metric's score, by its class.
HEADS: dict[type[Metric], Callable[[Any], nn.Module]] = {
    Leiq: lambda metric: metric.network.heads["mos"],
    Iaca: lambda metric: metric.network.output,
    Bmqa: lambda metric: metric.network.probe,
}


def head_of(metric: Metric) -> nn.Module:
    """Return the last layers of a metric's score, which are linear."""
    return HEADS[type(metric)](metric)


@dataclass(frozen=True)
class Agreement:
    """SRCC with the ratings, and its 95 % bootstrap interval."""

    srcc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.srcc:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Fit:
    """What a fit reached."""

    directory: Path  # for create_metric(name, weights=directory)
    pictures: int
    before: Agreement  # of the metric as it was
    after: Agreement  # of the fitted one, on pictures that it was not fitted to
    gain: Agreement  # after minus before, on resamples of the same pictures
    strength: float  # of the penalty that was chosen

    def __str__(self) -> str:
        if np.isinf(self.strength):
            verdict = "these ratings ask for no other order: the score is as it was, on their scale"
        elif self.gain.low > 0:
            verdict = "the fitted score agrees better"
        else:
            verdict = "not certain, more ratings may tell"
        return (
            f"SRCC before  {self.before}  with {self.pictures} ratings\n"
            f"SRCC after   {self.after}  on pictures left out of the fit\n"
            f"gain         {self.gain}  {verdict}"
        )


def fit(
    name: str,
    data: str | Path,
    out: str | Path,
    *,
    dataset: str = "csv",
    scale: tuple[float, float] | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
) -> Fit:
    """Fit the score of a metric to ratings and write it to ``out``.

    Args:
        name: "leiq", "iaca", "bmqa" or another metric of their networks.
        data: a CSV file with the columns image and mos (higher is better, any scale) and, where pictures show the same
            scene, group; for another ``dataset``, its folder.
        out: where to write the metric, for ``create_metric(name, weights=out)``.
        dataset: "csv" or another of ``ratings.DATASETS``.
        scale: the ends of the ratings' scale, which scores will be on; None: the lowest and the highest rating.
        weights: of the metric to start from, as for ``create_metric``; None: the bundled ones.
        device: where to compute.

    Raises:
        FileNotFoundError: the file or one of its pictures is missing.
        ValueError: fewer than 50 pictures or 5 scenes; ratings that are all the same, outside of the scale, upside
            down, or not to be told from shuffled ones.
        OSError: a picture cannot be read; the result cannot be written.
    """
    if get_class(name) not in HEADS:
        able = [each for each in list_metrics() if get_class(each) in HEADS]
        raise ValueError(f"{name!r} cannot be fitted; those that can are {', '.join(able)}")
    if dataset not in DATASETS:
        raise ValueError(f"there is no data set {dataset!r} to fit to; there are: {', '.join(DATASETS)}")
    items = load(dataset, data, DATASETS[dataset][0]).items
    ratings, scenes = np.array([item.mos for item in items]), scenes_of(items)
    low, high = scale or DATASETS[dataset][1] or (ratings.min(), ratings.max())
    check_ratings(ratings, scenes, low, high, data)

    metric = create_metric(name, weights=weights, device=device)
    z = features(metric, items)
    prior = weight_of(head_of(metric))
    if np.ptp(z @ prior) == 0:
        raise ValueError(f"{name} gives every picture of {data} the same score; are they all the same picture?")

    predicted = cross_validated(z, prior, ratings, scenes)
    before, after = (agreement(values, ratings, scenes) for values in (z @ prior, predicted))
    check_agreement(before, after, predicted, ratings, data)

    strength = best_strength(z, prior, ratings, scenes)
    weight, offset = (found[0] for found in solve(z, prior, ratings, [strength]))
    mapping = list(map(float, fit_logistic(predicted, ratings, limits=(float(low), float(high)))))
    reached = f"{after}; before: {before}"
    write(metric, weight, offset, mapping, (float(low), float(high)), items, data, reached, Path(out))
    return Fit(Path(out), len(items), before, after, gain(z @ prior, predicted, ratings, scenes), strength)


# The ratings


def scenes_of(items: Sequence[Rated]) -> list[str]:
    """Return the scene of each picture; one that is of none is a scene of its own."""
    return [item.group or f"picture {index}" for index, item in enumerate(items)]


def check_ratings(ratings: np.ndarray, scenes: Sequence[str], low: float, high: float, data: str | Path) -> None:
    """Refuse ratings that nothing can be fitted to.

    Raises:
        ValueError: see ``fit``.
    """
    if len(ratings) < FEWEST:
        raise ValueError(f"{data} has {len(ratings)} ratings; {FEWEST} are needed, rate more pictures")
    if np.ptp(ratings) == 0:
        raise ValueError(f"every rating in {data} is {ratings[0]:g}; nothing can be fitted to equal ratings")
    if len(set(scenes)) < FEWEST_SCENES:
        raise ValueError(
            f"{data} has {len(set(scenes))} scenes; {FEWEST_SCENES} are needed to test on others, rate more, or leave "
            "the column group out"
        )
    if not low < high or ratings.min() < low or ratings.max() > high:
        raise ValueError(
            f"the ratings of {data} go from {ratings.min():g} to {ratings.max():g}, outside of the scale "
            f"{low:g} to {high:g}; give the scale's lower end and then its upper one"
        )


def check_agreement(
    before: Agreement, after: Agreement, predicted: np.ndarray, ratings: np.ndarray, data: str | Path
) -> None:
    """Refuse ratings that are upside down, or that the features predict no better than shuffled ones.

    Raises:
        ValueError: see ``fit``.
    """
    if before.high < 0:
        raise ValueError(
            f"the ratings of {data} fall where quality rises (SRCC {before}); if a low number is a good picture there, "
            "write (lowest + highest - rating) instead"
        )
    share = chance_of(predicted, ratings)
    if share > CHANCE or after.low <= 0:
        raise ValueError(
            f"the ratings of {data} cannot be predicted: SRCC {after} on pictures left out of the fit, and "
            f"{100 * share:.1f} % of shuffled ratings do as well; check that each stands beside its picture, or rate "
            "more pictures"
        )


def chance_of(predicted: np.ndarray, ratings: np.ndarray, draws: int = DRAWS) -> float:
    """Return the share of shuffled ratings that agree with the predictions as well as the real ones do."""
    from scipy.stats import rankdata

    rng = np.random.default_rng(0)
    mine, theirs = (rankdata(values) - (len(values) + 1) / 2 for values in (predicted, ratings))
    as_good = sum(mine @ rng.permutation(theirs) >= mine @ theirs for _ in range(draws))
    return float(1 + as_good) / (1 + draws)


def agreement(scores: np.ndarray, ratings: np.ndarray, scenes: Sequence[str]) -> Agreement:
    """Return the SRCC of scores with ratings; whole scenes are resampled for its interval."""
    return Agreement(srcc(scores, ratings), *interval(srcc, scores, ratings, groups=scenes))


def gain(before: np.ndarray, after: np.ndarray, ratings: np.ndarray, scenes: Sequence[str]) -> Agreement:
    """Return by how much the SRCC of ``after`` is higher, both on the same resamples."""

    def difference(rows: np.ndarray, labels: np.ndarray) -> float:
        chosen = rows.astype(int)
        return srcc(after[chosen], labels) - srcc(before[chosen], labels)

    rows = np.arange(len(ratings))
    return Agreement(difference(rows, ratings), *interval(difference, rows, ratings, groups=scenes))


# The fit


@torch.inference_mode()
def features(metric: Metric, items: Sequence[Rated]) -> np.ndarray:
    """Return what the metric's last layers are given for each picture, (N, F), float64."""
    from tqdm import tqdm

    rows: list[torch.Tensor] = []
    handle = head_of(metric).register_forward_pre_hook(lambda _, given: rows.append(given[0].double().cpu()))
    try:
        for item in tqdm(items, desc="features", unit="picture", disable=None):
            metric(item.path)
    finally:
        handle.remove()
    return torch.cat(rows).numpy()


def solve(
    z: np.ndarray, prior: np.ndarray, ratings: np.ndarray, strengths: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the penalized least squares for each strength; return weights (S, F) and offsets (S,).

    Scale and offset of the prior's output are not penalized: d is found on what they leave of features and ratings.
    """
    p = z @ prior
    fixed = np.stack([np.ones(len(z)), p - p.mean()], 1)  # (N, 2)
    q, _ = np.linalg.qr(fixed)
    x, y = (each - q @ (q.T @ each) for each in (z, ratings))

    # Ridge regression by the smaller of the two Gram matrices: (X'X + s I)^-1 X'y = X' (XX' + s I)^-1 y.
    wide = x.shape[1] > len(x)
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = values.clip(0)
    penalties = np.array(strengths)[:, None] * values.sum() / x.shape[1]  # N times the mean variance, by the strength
    projected = vectors.T @ (y if wide else x.T @ y)
    solutions = (projected / (values + penalties + 1e-12)) @ vectors.T  # (S, N or F)
    changes = solutions @ x if wide else solutions

    left = ratings[:, None] - z @ changes.T  # (N, S)
    (offsets, scales), *_ = np.linalg.lstsq(fixed, left, rcond=None)
    return changes + scales[:, None] * prior, offsets - scales * p.mean()


def folds_of(scenes: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Return the fold of each picture; a scene is in one fold."""
    names = list(dict.fromkeys(scenes))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[index]: rank % min(count, len(names)) for rank, index in enumerate(order)}
    return np.array([fold[scene] for scene in scenes])


def best_strength(z: np.ndarray, prior: np.ndarray, ratings: np.ndarray, scenes: Sequence[str]) -> float:
    """Return the greatest strength that predicts left-out pictures about as well as any.

    Its squared error may exceed the least by one standard error of their difference: few ratings then leave the layer
    as it was rather than turn it by chance.
    """
    folds = folds_of(scenes, INNER_FOLDS, seed=1)
    errors = np.zeros((len(z), len(STRENGTHS)))
    for fold in range(folds.max() + 1):
        out = folds == fold
        weights, offsets = solve(z[~out], prior, ratings[~out], STRENGTHS)
        errors[out] = np.square(z[out] @ weights.T + offsets - ratings[out, None])

    excess = errors - errors[:, errors.mean(0).argmin(), None]  # (N, S)
    good = excess.mean(0) <= excess.std(0) / len(z) ** 0.5
    return float(np.max(np.array(STRENGTHS)[good]))


def cross_validated(z: np.ndarray, prior: np.ndarray, ratings: np.ndarray, scenes: Sequence[str]) -> np.ndarray:
    """Return predictions of each picture by a fit that did not see its scene, not for choosing the strength either."""
    folds = folds_of(scenes, FOLDS, seed=0)
    predicted = np.zeros(len(z))
    for fold in range(folds.max() + 1):
        out = folds == fold
        rest = [scene for scene, left_out in zip(scenes, out, strict=True) if not left_out]
        strength = best_strength(z[~out], prior, ratings[~out], rest)
        weights, offsets = solve(z[~out], prior, ratings[~out], [strength])
        predicted[out] = z[out] @ weights[0] + offsets[0]
    return predicted


# The result


def write(
    metric: Any,
    weight: np.ndarray,
    offset: float,
    mapping: list[float],
    scale: tuple[float, float],
    items: Sequence[Rated],
    data: str | Path,
    reached: str,
    out: Path,
) -> None:
    """Give the metric the fitted head, scale and card, and save it.

    Raises:
        OSError: it cannot be written.
    """
    head = head_of(metric)
    adjust(head, weight - weight_of(head))
    adjust(head, np.zeros_like(weight), offset - offset_of(head))
    if isinstance(metric, Leiq):
        metric.mappings["mos"] = mapping
    else:
        metric.mapping = mapping

    fitted = f"score fitted to {len(items)} ratings of {Path(data).name} by `lowlight-iqa fit {metric.card.name}`"
    metric.card = replace(
        metric.card,
        summary=f"{metric.card.name} with its {fitted}",
        score_range=scale,
        typical_range=None,  # of the bundled head's scale
        sees=(),  # of the bundled head; nobody has tested it of this one
        license=f"{metric.card.license}; the ratings are your own",
        trained_on=f"{metric.card.trained_on}; {fitted}, which are on {scale[0]:g} to {scale[1]:g}",
        reached={f"SRCC, {len(items)} ratings of {Path(data).name}, cross-validated": reached},
    )
    metric.save_pretrained(out)
