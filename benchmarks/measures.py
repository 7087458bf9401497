"""What the benchmarks of the learned metrics share; each prints Markdown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

import lowlight_iqa
from lowlight_iqa.correlation import interval, plcc, plcc_logistic, srcc
from lowlight_iqa.data import biq2021


def scores_of(metric: lowlight_iqa.Metric, rated: Sequence[biq2021.Rated]) -> np.ndarray:
    """Scores of every picture."""
    return np.array([metric(item.path).item() for item in tqdm(rated, desc="pictures", disable=None)])


def ratings(scores: np.ndarray, rated: Sequence[biq2021.Rated], title: str = "BIQ2021 test split") -> None:
    """Agreement with people on a split, every picture of it."""
    labels = np.array([item.mos for item in rated])
    dark = np.array([item.dark for item in rated])
    print(f"| {title} | pictures | SRCC | PLCC, raw | PLCC, 4-parameter logistic |\n|---|---|---|---|---|")
    for name, part in (("whole", np.ones_like(dark)), ("dark (mean luma < 70)", dark), ("the others", ~dark)):
        s, y = scores[part], labels[part]
        cells = [f"{f(s, y):.4f} [{', '.join(f'{v:.3f}' for v in interval(f, s, y))}]" for f in (srcc, plcc)]
        print(f"| {name} | {part.sum()} | {cells[0]} | {cells[1]} | {plcc_logistic(s, y):.4f} |")
    print("\nIn brackets: 95 % bootstrap intervals, 1000 resamples of the pictures.\n")


def pairs(metric: lowlight_iqa.Metric, lol: Path) -> None:
    """LOL: the dark picture below its normal-light picture."""
    print("| LOL pairs | dark below normal | mean score, dark | normal |\n|---|---|---|---|")
    for part in ("eval15", "train"):
        low, high = (
            np.array([metric(path).item() for path in sorted((lol / part / kind).iterdir())])
            for kind in ("low", "high")
        )
        print(f"| {part} | {(low < high).sum()} of {len(low)} | {low.mean():.3g} | {high.mean():.3g} |")
    print()


def speed(name: str, path: Path, weights: str | None) -> None:
    """Making the metric and scoring one 600x400 picture."""
    lowlight_iqa.create_metric(name, weights=weights)(path)  # what is imported and allocated once
    start = time.perf_counter()
    metric = lowlight_iqa.create_metric(name, weights=weights)
    made = time.perf_counter()
    metric(path)
    scored = time.perf_counter()
    print(f"create_metric {made - start:.2f} s, one 600x400 picture from its file {scored - made:.3f} s.")
