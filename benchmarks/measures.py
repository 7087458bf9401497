"""What the benchmarks of the learned metrics share.

A measurement of a card's figure takes a metric and the folder of the data, and returns the numbers that the card
states, in its order, and their table.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

import lowlight_iqa


@torch.inference_mode()
def pairs(metric: lowlight_iqa.Metric, data: Path) -> tuple[list[float], str]:
    """LOL: the dark picture below its normal-light picture; how many, of how many."""
    lines = ["| LOL pairs | dark below normal | mean score, dark | normal |", "|---|---|---|---|"]
    right = total = 0
    for part in ("eval15", "train"):
        low, high = (
            np.array([metric(path).item() for path in sorted((data / "lol" / part / kind).iterdir())])
            for kind in ("low", "high")
        )
        right, total = right + int((low < high).sum()), total + len(low)
        lines.append(f"| {part} | {(low < high).sum()} of {len(low)} | {low.mean():.3g} | {high.mean():.3g} |")
    return [right, total], "\n".join(lines)


@torch.inference_mode()
def speed(name: str, path: Path, weights: str | None) -> str:
    """Making the metric and scoring one 600x400 picture."""
    lowlight_iqa.create_metric(name, weights=weights)(path)  # what is imported and allocated once
    start = time.perf_counter()
    metric = lowlight_iqa.create_metric(name, weights=weights)
    made = time.perf_counter()
    metric(path)
    scored = time.perf_counter()
    return f"create_metric {made - start:.2f} s, one 600x400 picture from its file {scored - made:.3f} s."
