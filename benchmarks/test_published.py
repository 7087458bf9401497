"""Every row of published.toml as a test: measured where data and weights are at hand, skipped with a reason otherwise.

    LOWLIGHT_IQA_DATA=DIR [LOWLIGHT_IQA_WEIGHTS=DIR] pytest benchmarks/ -rs

The data sets lie in DIR under their names (``lowlight_iqa.data.list_datasets()``, and ``lol``),
each in its authors' layout. The
first run scores every picture; the next ones read the scores from the cache.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brisque_retrained import retrain
from published import FIGURES, label, rows

import lowlight_iqa
from lowlight_iqa.data import Dataset, load
from lowlight_iqa.evaluation.correlation import plcc, scene_srcc, srcc
from lowlight_iqa.evaluation.evaluate import Evaluation, evaluate
from lowlight_iqa.evaluation.figures import LogisticFit
from lowlight_iqa.evaluation.splits import group_mean, random_splits

Row = dict[str, Any]
CACHE = Path(os.environ.get("LOWLIGHT_IQA_CACHE") or Path.home() / ".cache" / "lowlight_iqa")


@pytest.mark.parametrize("row", [row for row in rows() if row["how"] != "quoted"], ids=label)
def test_published_figure(row: Row) -> None:
    if row["how"] == "out of reach":
        pytest.skip(row["needs"])
    if row["how"] == "card":
        found, stated = on_the_card(row)
        assert len(found) == len(stated), f"the card states {stated}, measured: {found}"
        assert np.allclose(found, stated, rtol=0, atol=row["tolerance"]), f"the card states {stated}, measured: {found}"
        return
    measured = {"labels": null, "retrain": retrained}.get(row["how"], zero_shot)(row)
    expected = row.get("ours", row)
    for figure in FIGURES:
        if figure in expected:
            stated = expected[figure]
            low, high = stated if isinstance(stated, list) else (stated, stated)
            published = f"published {row.get(figure)} ({row['source']})"
            told = f"{figure}: expected {stated}, measured {measured[figure]:.4f}, {published}"
            assert low - row["tolerance"] <= measured[figure] <= high + row["tolerance"], told


def folder(name: str) -> Path:
    """Where a data set lies."""
    if "LOWLIGHT_IQA_DATA" not in os.environ:
        pytest.skip("LOWLIGHT_IQA_DATA is not set: export LOWLIGHT_IQA_DATA=DIR, the folder that holds the data sets")
    return Path(os.environ["LOWLIGHT_IQA_DATA"]) / name


def read(row: Row, split: str | None = None, pictures: bool = True) -> Dataset:
    """The row's data set, or a skip that says what to download."""
    try:
        return load(row["dataset"], folder(row["dataset"]), split or row["split"], pictures=pictures)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@functools.cache
def evaluated(metric: str, dataset: str, split: str, weights: str | None = None) -> Evaluation:
    return evaluate(metric, dataset, folder(dataset), split, weights=weights, progress=True)


def of(row: Row, metric: str) -> Evaluation:
    """The evaluation that a row needs, or a skip that says what is missing."""
    if metric not in lowlight_iqa.list_metrics():
        pytest.skip(f"this version has no metric {metric!r}; install one that has")
    weights = None
    if row["how"] == "weights":
        place = Path(os.environ.get("LOWLIGHT_IQA_WEIGHTS", "weights-not-set")) / metric
        if not place.exists():
            pytest.skip(row["needs"])
        weights = str(place)
    read(row)
    try:
        return evaluated(metric, row["dataset"], row["split"], weights)
    except lowlight_iqa.WeightsNotFound as error:
        pytest.skip(str(error))


def figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The figures of scores whose higher values are better."""
    mapped = LogisticFit.fit(scores, labels, lower_better=False)(scores)
    return {
        "srcc": srcc(scores, labels),
        "plcc": plcc(scores, labels),
        "mapped": plcc(mapped, labels),
        "rmse": float(np.sqrt(np.mean((mapped - labels) ** 2))),
    }


def zero_shot(row: Row) -> dict[str, float]:
    result = of(row, row["metric"])
    scores, labels = result.scores, np.array([item.mos for item in result.dataset.items])
    if "attribute" in row:
        scores = result.explained.get(row["attribute"], scores)
        labels = np.array([item.attributes[row["attribute"]] for item in result.dataset.items])
    return figures(-scores if result.card.lower_better else scores, labels)


def retrained(row: Row) -> dict[str, float]:
    """BRISQUE trained on the official split's other part, or on ten random splits by scene."""
    pytest.importorskip("sklearn", reason='training BRISQUE needs scikit-learn: pip install ".[bench]"')
    cache = CACHE / f"brisque-features-{row['dataset']}.npz"
    cache.parent.mkdir(parents=True, exist_ok=True)
    if row["dataset"] == "biq2021":
        pairs = [(read(row, "train").items, read(row).items)]
    else:
        items = read(row).items
        pairs = [([items[k] for k in a], [items[k] for k in b]) for a, b in random_splits(items, share=0.1)]
    found = []
    for train, test in pairs:
        scores = retrain(train, test, cache)
        kept = [k for k, item in enumerate(test) if row.get("part") in (None, item.device)]
        found.append(figures(scores[kept], np.array([test[k].mos for k in kept])))
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def null(row: Row) -> dict[str, float]:
    """Baselines that look at no picture."""
    test = read(row, pictures=False).items
    labels = np.array([item.mos for item in test])
    groups = [item.group for item in test]
    if row["metric"] == "enhancer mean":
        guess = group_mean(read(row, "train", pictures=False).items, test, lambda item: item.enhancer)
    else:  # the mean of the others of the scene
        places = {group: [k for k, own in enumerate(groups) if own == group] for group in groups}
        guess = np.array([np.mean([labels[k] for k in places[own] if k != me]) for me, own in enumerate(groups)])
    return {
        "srcc": srcc(guess, labels),
        "plcc": plcc(guess, labels),
        "rmse": float(np.sqrt(np.mean((guess - labels) ** 2))),
        "scene_srcc": float(scene_srcc(guess, labels, groups).mean()),
    }


def on_the_card(row: Row) -> tuple[list[float], list[float]]:
    """The numbers measured, and those that the metric's card states."""
    metric = lowlight_iqa.create_metric(row["metric"])
    stated = [float(text) for text in re.findall(r"-?\d*\.?\d+", metric.card.reached[row["card"]])]
    if "measure" in row:
        file, name = row["measure"].split(".")
        try:
            return getattr(importlib.import_module(file), name)(metric, folder("."))[0], stated
        except FileNotFoundError as error:
            pytest.skip(str(error))
    found = []
    for name in (row["metric"], *([row["beside"]] if "beside" in row else [])):
        result = of(row, name)
        where = result.parts[row["part"]].figures if "part" in row else result.figures
        figure = where[row["figure"].upper()]
        sign = -1 if result.card.lower_better else 1
        found += [figure.value, figure.low, figure.high] if name == row["metric"] else [sign * figure.value]
    return found, stated
