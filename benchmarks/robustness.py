"""How far a score moves by what nobody sees, and by what should not matter: the table of docs/robustness.md.

    python benchmarks/robustness.py --data DATA [--metrics NAME ...] [--pictures 100] [--out FILE.jsonl]

DATA holds ``biq2021``. An attack takes ten signed-gradient steps of a quarter of its bound from the picture as it is,
kept within the bound and within [0, 1], once toward a better score and once toward a worse one; what counts is the best
of the ten. Everything is given in standard deviations of the metric's scores over pictures held out of the training
list, so that metrics of different scales can be compared. With ``--out`` a row is added for each metric, and
``--show`` makes the tables of such files. tools/pages.py writes those of benchmarks/robustness.jsonl into the page.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import lowlight_iqa
from lowlight_iqa.data import biq2021

BOUNDS = (1, 2, 4)  # of 255
STEPS = 10


def jpeg(x: Tensor) -> Tensor:
    """Save as a JPEG of quality 95 and read again."""
    buffer = io.BytesIO()
    codes = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(codes).save(buffer, "JPEG", quality=95)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)[None].float() / 255


def resized(x: Tensor) -> Tensor:
    """Reduce to 0.9 of the size and bring back, bicubic, antialiased."""
    size = [round(0.9 * side) for side in x.shape[2:]]
    small = F.interpolate(x, size=size, mode="bicubic", antialias=True)
    return F.interpolate(small, size=x.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "JPEG 95": jpeg,
    "shift by a pixel": lambda x: F.pad(x[..., 1:], (0, 1, 0, 0), mode="replicate"),
    "resized 0.9": resized,
    "mirrored": lambda x: x.flip(3),
}


def main() -> None:
    """Measure, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--metrics", nargs="+", help="default: all that need no reference and have their weights")
    parser.add_argument("--weights", help="another directory of weights than the bundled one; for a single metric")
    parser.add_argument("--name", help="what the row is called, where it is not the metric's name")
    parser.add_argument("--pictures", type=int, default=100, help="of the test split, evenly over its list")
    parser.add_argument("--changed", type=int, default=100, help="pictures of the changes that should not matter")
    parser.add_argument("--held", type=int, default=200, help="held-out pictures of the standard deviation")
    parser.add_argument("--bounds", type=int, nargs="+", default=BOUNDS, help="of the attacks, of 255")
    parser.add_argument("--out", type=Path, help="add the rows to this file")
    parser.add_argument("--show", type=Path, nargs="+", help="print the tables of these files; measure nothing")
    args = parser.parse_args()
    if args.show:
        print(tables([json.loads(line) for path in args.show for line in path.read_text().splitlines()]))
        return
    if args.data is None:
        parser.error("--data is needed to measure")
    rows = []
    for name in args.metrics or lowlight_iqa.list_metrics():
        try:
            metric = lowlight_iqa.create_metric(name, weights=args.weights)
        except lowlight_iqa.WeightsNotFound as error:
            print(f"left out: {error}")
            continue
        if metric.card.needs_reference:
            continue
        rows.append({"metric": args.name or name, **measure(metric, args)})
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(tables(rows))


def measure(metric: lowlight_iqa.Metric, args: argparse.Namespace) -> dict[str, Any]:
    """One row: what the scores move by, in their standard deviation over held-out pictures."""
    sign = -1.0 if metric.card.lower_better else 1.0
    held = [item.path for item in biq2021.read(args.data / "biq2021", "train") if biq2021.held_out(item)]
    with torch.inference_mode():
        scores = [metric(path).item() for path in tqdm(evenly(held, args.held), desc="held out", disable=None)]
    spread = float(np.std(scores))
    test = [item.path for item in biq2021.read(args.data / "biq2021", "test")]
    row: dict[str, Any] = {"deviation": spread, "pictures": args.pictures, "changed": args.changed}

    for bound in args.bounds:
        for way, direction in (("up", sign), ("down", -sign)):
            gains = [
                attack(metric, lowlight_iqa.read_image(path)[None], bound / 255, direction)
                for path in tqdm(evenly(test, args.pictures), desc=f"{metric.card.name} {way} {bound}", disable=None)
            ]
            row[f"{way} {bound}"] = float(np.mean(gains)) / spread
            row[f"{way} {bound}, tenth worst"] = float(np.quantile(gains, 0.9)) / spread

    moved: dict[str, list[float]] = {name: [] for name in CHANGES}
    with torch.inference_mode():
        for path in tqdm(evenly(test, args.changed), desc="changes", disable=None):
            picture = lowlight_iqa.read_image(path)[None]
            before = metric(picture).item()
            for name, change in CHANGES.items():
                moved[name].append(abs(metric(change(picture)).item() - before))
    return row | {name: float(np.mean(values)) / spread for name, values in moved.items()}


def evenly(items: list[Path], count: int) -> list[Path]:
    """So many of them, evenly over their order."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(place)] for place in places]


def attack(metric: lowlight_iqa.Metric, picture: Tensor, bound: float, direction: float) -> float:
    """How far the score can be moved in a direction, at most, by steps within the bound; not below 0."""
    first, best, change = None, 0.0, torch.zeros_like(picture)
    for step in range(STEPS + 1):
        shown = (picture + change).clamp(0, 1).requires_grad_(step < STEPS)
        score = metric(shown)
        if first is None:
            first = score.item()
        best = max(best, direction * (score.item() - first))
        if step < STEPS:
            (slope,) = torch.autograd.grad(score.sum(), shown)
            change = (change + direction * bound / 4 * slope.sign()).clamp(-bound, bound)
    return best


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown of the rows."""
    bounds = [bound for bound in BOUNDS if all(f"up {bound}" in row for row in rows)]
    ways = [f"{way} {bound}" for way in ("up", "down") for bound in bounds]
    lines = ["| metric | " + " | ".join(f"{way}/255" for way in ways) + " | pictures |", "|---" * (len(ways) + 2) + "|"]
    for row in rows:
        cells = (f"{row[way]:.2f}" for way in ways)
        lines.append(f"| {row['metric']} | {' | '.join(cells)} | {row['pictures']} |")
    lines += ["", "| metric | " + " | ".join(CHANGES) + " | pictures |", "|---" * (len(CHANGES) + 2) + "|"]
    for row in rows:
        cells = (f"{row[name]:.3f}" for name in CHANGES)
        lines.append(f"| {row['metric']} | {' | '.join(cells)} | {row['changed']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
