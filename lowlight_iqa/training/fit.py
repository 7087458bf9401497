"""Fit the score of a bundled metric to a user's own ratings: in closed form, minutes on a CPU, from 50 pictures on.

The last layer of a score is linear in the network's features z. The model is

    rating = a * (the bundled layer's output) + d . z + b,    the penalty on |d|^2 chosen by cross-validation,

so few or noisy ratings set only scale and offset. Agreement is measured by nested cross-validation, whole scenes at a
time; ratings that are predicted no better than shuffled ones are refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import Rated, load
from ..evaluation.correlation import srcc
from ..evaluation.figures import Figure, figure
from ..functional.logistic import fit_logistic
from ..metric import Metric
from ..metrics.bmqa import Bmqa
from ..metrics.iaca import Iaca
from ..metrics.leiq import Leiq
from ..registry import create_metric, get_class, list_metrics
from .linear import adjust, offset_of, weight_of
from .ratings import DATASETS

MIN_PICTURES = 50
MIN_SCENES = 5
STRENGTHS = (*np.geomspace(1e-3, 1e3, 13), np.inf)  # of the penalty, per picture and mean variance; inf: d is 0
FOLDS, INNER_FOLDS = 10, 5
DRAWS = 2000  # permutations of the ratings
CHANCE = 0.01  # share of the permutations that may be predicted as well as the ratings

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
class Fit:
    """The result of a fit."""

    directory: Path  # for create_metric(name, weights=directory)
    pictures: int
    before: Figure  # SRCC of the bundled metric
    after: Figure  # of the fitted metric, on pictures left out of the fit
    gain: Figure  # after minus before, on the same resamples of the pictures
    strength: float  # the chosen penalty

    def __str__(self) -> str:
        if np.isinf(self.strength):
            verdict = "these ratings do not change the order of scores, only their scale"
        elif self.gain.low > 0:
            verdict = "the fitted score agrees better"
        else:
            verdict = "not certain, more ratings may decide it"
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
    """Fit the score of a metric to ratings and write it to ``out``, for ``create_metric(name, weights=out)``.

    Args:
        name: "leiq", "iaca", "bmqa" or another metric with one of their networks.
        data: a CSV file with the columns image and mos (higher is better, any scale) and, where pictures show the same
            scene, group; for another ``dataset``, its folder.
        out: the directory to write.
        dataset: "csv" or another of ``ratings.DATASETS``.
        scale: the ends of the ratings' scale, on which the scores will be; None: the lowest and the highest rating.
        weights: of the initial metric, as for ``create_metric``; None: the bundled ones.
        device: where to compute.

    Raises:
        FileNotFoundError: the file or one of its pictures is missing.
        ValueError: fewer than 50 pictures or 5 scenes; ratings that are all equal, outside the scale, reversed, or no
            better predicted than shuffled ones.
        OSError: a picture cannot be read; the result cannot be written.
    """
    if get_class(name) not in HEADS:
        fittable = [each for each in list_metrics() if get_class(each) in HEADS]
        raise ValueError(f"{name!r} cannot be fitted; those that can are {', '.join(fittable)}")
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
        raise ValueError(f"{name} gives every picture of {data} the same score; give different pictures")

    predicted = cross_validated(z, prior, ratings, scenes)
    before, after = (figure(srcc, values, ratings, scenes) for values in (z @ prior, predicted))
    check_agreement(before, after, predicted, ratings, data)

    strength = best_strength(z, prior, ratings, scenes)
    (weight,), (offset,) = solve(z, prior, ratings, [strength])
    mapping = list(map(float, fit_logistic(predicted, ratings, limits=(float(low), float(high)))))
    reached = f"{after}; before: {before}"
    write(metric, weight, offset, mapping, (float(low), float(high)), items, data, reached, Path(out))
    return Fit(Path(out), len(items), before, after, gain(z @ prior, predicted, ratings, scenes), strength)


# The ratings


def scenes_of(items: Sequence[Rated]) -> list[str]:
    """Return the scene of each picture; a picture without one is a scene of its own."""
    return [item.group or f"picture {index}" for index, item in enumerate(items)]


def check_ratings(ratings: np.ndarray, scenes: Sequence[str], low: float, high: float, data: str | Path) -> None:
    """Refuse too few ratings, and those that are all equal or outside the scale."""
    if len(ratings) < MIN_PICTURES:
        raise ValueError(f"{data} has {len(ratings)} ratings; {MIN_PICTURES} are needed, rate more pictures")
    if np.ptp(ratings) == 0:
        raise ValueError(f"every rating in {data} is {ratings[0]:g}; nothing can be fitted to equal ratings")
    if len(set(scenes)) < MIN_SCENES:
        raise ValueError(
            f"{data} has {len(set(scenes))} scenes; {MIN_SCENES} are needed for cross-validation, rate more, or leave "
            "the column group out"
        )
    if not low < high or ratings.min() < low or ratings.max() > high:
        raise ValueError(
            f"the ratings of {data} go from {ratings.min():g} to {ratings.max():g}, outside the scale "
            f"{low:g} to {high:g}; give the scale's lower end and then its upper one"
        )


def check_agreement(
    before: Figure, after: Figure, predicted: np.ndarray, ratings: np.ndarray, data: str | Path
) -> None:
    """Refuse reversed ratings, and those that the features predict no better than shuffled ones."""
    if before.high < 0:
        raise ValueError(
            f"the ratings of {data} fall where quality rises (SRCC {before}); if a low number means a good picture, "
            "write (lowest + highest - rating) instead"
        )
    share = chance_of(predicted, ratings)
    if share > CHANCE or after.low <= 0:
        raise ValueError(
            f"the ratings of {data} cannot be predicted: SRCC {after} on pictures left out of the fit, and "
            f"{100 * share:.1f} % of shuffled ratings do as well; check that each rating belongs to its picture, or "
            "rate more pictures"
        )


def chance_of(predicted: np.ndarray, ratings: np.ndarray) -> float:
    """Return the share of shuffled ratings that are predicted as well, the p-value of a permutation test."""
    from scipy.stats import rankdata

    rng = np.random.default_rng(0)
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (predicted, ratings))
    as_good = sum(x @ rng.permutation(y) >= x @ y for _ in range(DRAWS))
    return float(1 + as_good) / (1 + DRAWS)


def gain(before: np.ndarray, after: np.ndarray, ratings: np.ndarray, scenes: Sequence[str]) -> Figure:
    """Return the difference in SRCC of ``after`` and ``before``, both on the same resamples."""

    def difference(rows: np.ndarray, labels: np.ndarray) -> float:
        chosen = rows.astype(int)
        return srcc(after[chosen], labels) - srcc(before[chosen], labels)

    return figure(difference, np.arange(float(len(ratings))), ratings, scenes)


# The fit


@torch.inference_mode()
def features(metric: Metric, items: Sequence[Rated]) -> np.ndarray:
    """Return the input of the metric's last layers for each picture, (N, F), float64."""
    from tqdm import tqdm

    rows: list[torch.Tensor] = []
    handle = head_of(metric).register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].double().cpu()))
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

    Scale and offset of the prior's output are not penalized: d is fitted after projecting both out.
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

    residuals = ratings[:, None] - z @ changes.T  # (N, S)
    (offsets, scales), *_ = np.linalg.lstsq(fixed, residuals, rcond=None)
    return changes + scales[:, None] * prior, offsets - scales * p.mean()


def folds_of(scenes: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Return the fold of each picture; a scene is in one fold."""
    names = list(dict.fromkeys(scenes))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[index]: rank % min(count, len(names)) for rank, index in enumerate(order)}
    return np.array([fold[scene] for scene in scenes])


def best_strength(z: np.ndarray, prior: np.ndarray, ratings: np.ndarray, scenes: Sequence[str]) -> float:
    """Return the largest strength whose squared error on left-out pictures is within a standard error of the smallest.

    The error is that of their difference: few ratings do not change the layer by chance.
    """
    folds = folds_of(scenes, INNER_FOLDS, seed=1)
    errors = np.zeros((len(z), len(STRENGTHS)))
    for fold in range(folds.max() + 1):
        held_out = folds == fold
        weights, offsets = solve(z[~held_out], prior, ratings[~held_out], STRENGTHS)
        errors[held_out] = np.square(z[held_out] @ weights.T + offsets - ratings[held_out, None])

    excess = errors - errors[:, errors.mean(0).argmin(), None]  # (N, S)
    good = excess.mean(0) <= excess.std(0) / len(z) ** 0.5
    return float(np.max(np.array(STRENGTHS)[good]))


def cross_validated(z: np.ndarray, prior: np.ndarray, ratings: np.ndarray, scenes: Sequence[str]) -> np.ndarray:
    """Predict each picture by a fit and a choice of strength that did not use its scene."""
    folds = folds_of(scenes, FOLDS, seed=0)
    predicted = np.zeros(len(z))
    for fold in range(folds.max() + 1):
        held_out = folds == fold
        others = [scene for scene, excluded in zip(scenes, held_out, strict=True) if not excluded]
        strength = best_strength(z[~held_out], prior, ratings[~held_out], others)
        (weight,), (offset,) = solve(z[~held_out], prior, ratings[~held_out], [strength])
        predicted[held_out] = z[held_out] @ weight + offset
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
    """Give the metric the fitted head, scale and card, and save it."""
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
        typical_range=None,  # unknown on the new scale
        sees=(),  # not tested for the fitted head
        license=f"{metric.card.license}; the ratings are your own",
        trained_on=f"{metric.card.trained_on}; {fitted}, which are on {scale[0]:g} to {scale[1]:g}",
        looks=0,
        reached={f"SRCC, {len(items)} ratings of {Path(data).name}, cross-validated": reached},
    )
    metric.save_pretrained(out)
