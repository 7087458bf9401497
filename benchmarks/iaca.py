"""Everything that the card of ``iaca`` states, and what its parts are worth, measured.

    python benchmarks/iaca.py --data DATA [--weights DIR] [--ablation DIR ...] [--held-out]

DATA holds ``biq2021`` (train.csv, test.csv, images) and ``lol`` (eval15, train; each with low and high). Each DIR is
what ``lowlight-iqa train iaca`` wrote, with a part switched off or not; the others are compared with the first one.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measures import pairs, speed

import lowlight_iqa
from lowlight_iqa.data import Dataset, biq2021
from lowlight_iqa.evaluation.correlation import plcc, srcc

DRAWS = 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", help="another directory of weights than the bundled one")
    parser.add_argument("--ablation", nargs="+", default=[], metavar="DIR", help="trained with parts switched off")
    parser.add_argument("--held-out", action="store_true", help="held-out training pictures instead of the test split")
    args = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    rated = biq2021.read(args.data / "biq2021", "train" if args.held_out else "test")
    rated = [item for item in rated if biq2021.held_out(item)] if args.held_out else rated
    chosen = Dataset("biq2021", "held-out pictures" if args.held_out else "test", rated)
    metric = lowlight_iqa.create_metric("iaca", weights=args.weights)
    print(lowlight_iqa.evaluate(metric, chosen, progress=True), end="\n\n")
    print(pairs(metric, args.data)[1], end="\n\n")
    print(speed("iaca", sorted((args.data / "lol" / "eval15" / "high").iterdir())[0], args.weights))
    if args.ablation:
        ablation(args.ablation, chosen)


def ablation(directories: Sequence[str], chosen: Dataset) -> None:
    """One row for each directory; differences of SRCC are paired: both metrics on the same resampled pictures."""
    labels, dark = np.array([item.mos for item in chosen.items]), np.array([item.dark for item in chosen.items])
    parts = (np.ones_like(dark), dark)
    print(f"\n| BIQ2021, {chosen.split} | SRCC | difference | dark pictures | difference | PLCC, raw |")
    print("|---|---|---|---|---|---|")
    first = None
    for directory in directories:
        metric = lowlight_iqa.create_metric("iaca", weights=directory)
        scores = lowlight_iqa.evaluate(metric, chosen, draws=1, progress=True).scores
        first = scores if first is None else first
        cells = []
        for part in parts:
            low, high = paired_interval(scores[part], first[part], labels[part])
            cells += [f"{srcc(scores[part], labels[part]):.4f}", f"{low:+.3f} to {high:+.3f}"]
            if scores is first:
                cells[-1] = ""
        print(f"| {describe(metric)} | {' | '.join(cells)} | {plcc(scores, labels):.4f} |", flush=True)
    print(f"\nDifference to the first row: 95 % bootstrap interval, {DRAWS} resamples of the pictures.\n")


def describe(metric: lowlight_iqa.Metric) -> str:
    """The parts that a metric has."""
    network = metric.weight_config()["network"]
    parts = [name for name in ("illumination", "gating") if network[name]]
    return f"{network['trunk']}, {' and '.join(parts) or 'neither illumination nor gating'}"


def paired_interval(scores: np.ndarray, others: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the difference of two metrics' SRCC."""
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(DRAWS):
        chosen = rng.integers(0, len(labels), len(labels))
        differences.append(srcc(scores[chosen], labels[chosen]) - srcc(others[chosen], labels[chosen]))
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
