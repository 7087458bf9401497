"""Measure the typical range of every bundled metric, which its loss is scaled by, and write it into its card.

    python tools/measure_typical.py --data BIQ2021 --lol LOL [--metrics leiq iaca bmqa] [--write]

Typical scores are those of real pictures: a sample of BIQ2021's training list, and of the first of them an exposure
ladder (x1 to x0.05, in linear steps of the stored values). The good end is the 1st percentile of all these scores on
the good side, the bad end the 1st percentile on the bad side. For metrics that compare with a dark input the pictures
are enhancements of LOL's dark photographs: gamma, a gain, equalized histograms, and the normal-light photographs.

Run it again for a metric whose weights were replaced: ``--metrics leiq --write`` puts the new pair into its card.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lowlight_iqa import Metric, WeightsNotFound, create_metric, list_metrics, read_image
from lowlight_iqa.data import load
from lowlight_iqa.registry import get_card, get_class

LADDER = (0.5, 0.2, 0.1, 0.05)
CODE = Path(__file__).parents[1] / "lowlight_iqa" / "metrics"


def rated_pictures(data: Path, count: int, rungs: int, seed: int) -> Iterator[Tensor]:
    """Read a random sample of BIQ2021's training list, and the first ``rungs`` of it at falling exposure."""
    items = load("biq2021", data, "train").items
    chosen = random.Random(seed).sample(list(items), min(count, len(items)))
    for index, item in enumerate(chosen):
        x = read_image(item.path)
        yield x
        if index < rungs:
            yield from (x * factor for factor in LADDER)


def equalized(x: Tensor) -> Tensor:
    """Equalize the histogram of each channel of (3, H, W)."""
    ranks = x.flatten(1).argsort(1).argsort(1)
    return (ranks / (ranks.shape[1] - 1)).view_as(x).to(x.dtype)


def enhanced_pairs(lol: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Enhancements of LOL's dark photographs, each with its dark one."""
    for path in sorted((lol / "low").iterdir()):
        dark, normal = read_image(path), read_image(lol / "high" / path.name)
        gain = 0.4 / dark.mean().clamp_min(1e-3)
        for enhanced in (dark**0.4, (dark * gain).clamp(0, 1), equalized(dark), normal):
            yield enhanced, dark


@torch.inference_mode()
def measure(metrics: list[Metric], args: argparse.Namespace) -> dict[str, list[float]]:
    """Score all pictures by all metrics."""
    scores: dict[str, list[float]] = {metric.card.name: [] for metric in metrics}
    for metric in metrics:
        if metric.card.needs_reference:
            for enhanced, dark in enhanced_pairs(args.lol):
                scores[metric.card.name].append(metric(enhanced, reference=dark).item())

    alone = [metric for metric in metrics if not metric.card.needs_reference]
    for x in rated_pictures(args.data, args.pictures, args.rungs, args.seed) if alone else ():
        for metric in alone:
            scores[metric.card.name].append(metric(x).item())
    return scores


def typical(scores: list[float], lower_better: bool) -> tuple[float, float]:
    """Return the good and the bad end: the 1st and 99th percentile, rounded to three digits."""
    low, high = (float(f"{end:.3g}") for end in np.percentile(scores, [1, 99]))
    return (low, high) if lower_better else (high, low)


def write(name: str, ends: tuple[float, float]) -> None:
    """Put a typical range into the card, behind its score_range."""
    path = Path(get_class(name).__module__.replace(".", "/") + ".py")
    path = CODE.parents[1] / path
    source = path.read_text(encoding="utf-8")
    card = re.search(rf'name="{re.escape(name)}",.*?score_range=\([^\n]*\n', source, re.DOTALL)
    if card is None:
        raise ValueError(f"{path} has no card of {name} with a score_range on a line of its own; write it by hand")
    end = card.end()
    rest = re.sub(r"^ *typical_range=[^\n]*\n", "", source[end:], count=1) if _has_range(source[end:]) else source[end:]
    line = f"        typical_range={ends},\n"
    path.write_text(source[:end] + line + rest, encoding="utf-8")


def _has_range(rest: str) -> bool:
    return rest.lstrip(" ").startswith("typical_range=")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="BIQ2021's folder")
    parser.add_argument("--lol", type=Path, help="a folder with low/ and high/, for metrics that need a reference")
    parser.add_argument("--metrics", nargs="+", default=list_metrics(), choices=list_metrics(), metavar="NAME")
    parser.add_argument("--pictures", type=int, default=300, help="of the training list (300)")
    parser.add_argument("--rungs", type=int, default=50, help="pictures of them that are darkened too (50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the ranges into the cards")
    args = parser.parse_args()

    metrics = []
    for name in args.metrics:
        if get_card(name).needs_reference and args.lol is None:
            print(f"{name}: give --lol")
            continue
        try:
            metrics.append(create_metric(name))
        except WeightsNotFound:
            print(f"{name}: no weights at hand")

    for name, found in measure(metrics, args).items():
        ends = typical(found, get_card(name).lower_better)
        print(f"{name}: {ends[0]:g} to {ends[1]:g}, of {len(found)} scores from {min(found):.4g} to {max(found):.4g}")
        if args.write:
            write(name, ends)


if __name__ == "__main__":
    main()
