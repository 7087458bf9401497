"""What the cards of ``leiq`` and ``leiq-robust`` state: ``python benchmarks/leiq.py --data DATA [--metric NAME]``.

DATA holds ``biq2021`` (train.csv, test.csv, images) and ``lol`` (eval15, train; each with low and high). Prints
Markdown; ``--skip-test`` leaves BIQ2021's test split alone, as while choosing. Each measurement takes a metric and DATA
and returns the numbers that the card states, in its order, and their table.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measures import pairs, speed
from tqdm import tqdm

import lowlight_iqa
from lowlight_iqa.data import biq2021
from lowlight_iqa.evaluation.correlation import interval, plcc, srcc
from lowlight_iqa.metrics.leiq import TASKS, Leiq
from lowlight_iqa.training.degradations import (
    ATTRIBUTES,
    RAMPS,
    Degradation,
    degrade,
    is_typical,
    mixture,
    render,
    to_uint8,
)
from lowlight_iqa.training.pictures import Album
from lowlight_iqa.training.ratings import with_luma

LADDER = (1.0, 0.5, 0.2, 0.1, 0.05)
CROP, MIXTURES = 384, 12
HELD = 33  # pictures at most that are degraded
CLEAN_MOS = 0.7  # of the held-out pictures that are degraded


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--metric", default="leiq", choices=("leiq", "leiq-robust"))
    parser.add_argument("--weights", help="another directory of weights than the bundled one")
    parser.add_argument("--skip-test", action="store_true", help="leave the test split alone, as while choosing")
    args = parser.parse_args()
    metric = lowlight_iqa.create_metric(args.metric, weights=args.weights)
    if not isinstance(metric, Leiq):
        raise SystemExit("leiq is not LEIQ's metric")
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    if not args.skip_test:
        print(lowlight_iqa.evaluate(metric, "biq2021", args.data / "biq2021", progress=True), end="\n\n")
    for measure in (pairs, ladder, heads):
        print(measure(metric, args.data)[1], end="\n\n")
    print(speed(args.metric, sorted((args.data / "lol" / "eval15" / "high").iterdir())[0], args.weights))


@torch.inference_mode()
def ladder(metric: Leiq, data: Path) -> tuple[list[float], str]:
    """Falling exposure, 8-bit, on well-exposed test pictures: strictly falling score, of how many; light."""
    test = biq2021.read(data / "biq2021", "test")
    liked, album = [item for item in test if item.mos >= 0.6], Album(limit=0)
    lit = [item for item in liked if 90 <= with_luma(item, album).mean_luma <= 160]
    paths = sorted((item.path for item in lit), key=lambda path: biq2021.plain_name(path.name))[:100]
    falls = {"score": 0, "light": 0, "both": 0}
    means = np.zeros((2, len(LADDER)))
    for path in tqdm(paths, desc="exposures", disable=None):
        picture = lowlight_iqa.read_image(path)
        batch = torch.stack([render(picture, Degradation(exposure=math.log2(step))) for step in LADDER])
        mos, attributes = metric.explain_batch(batch)
        falling = [bool((values.diff() < 0).all()) for values in (mos, attributes["light"])]
        falls["score"] += falling[0]
        falls["light"] += falling[1]
        falls["both"] += all(falling)
        means += np.stack([mos.numpy(), attributes["light"].numpy()]) / len(paths)
    steps = ", ".join(f"x{step:g}" for step in LADDER)
    text = f"""Exposure {steps} on {len(paths)} well-exposed test pictures, strictly
falling: score {falls["score"]}, light {falls["light"]}, both {falls["both"]}.
Mean score {np.round(means[0], 2)}, mean light {np.round(means[1], 2)}."""
    return [falls["score"], len(paths), falls["light"]], text


@torch.inference_mode()
def heads(metric: Leiq, data: Path) -> tuple[list[float], str]:
    """Each head against its own target on mixtures (SRCC), and every head against every single degradation."""
    held = [item for item in biq2021.read(data / "biq2021", "train") if biq2021.held_out(item)]
    clean = [item.path for item in held if item.mos > CLEAN_MOS]
    clean = [path for path in clean if is_typical(lowlight_iqa.read_image(path))]
    clean = clean[:: max(1, len(clean) // HELD)][:HELD]
    rng = np.random.default_rng(7)
    outputs: list[np.ndarray] = []
    targets: list[list[float]] = []
    response = {name: np.zeros(len(TASKS)) for name in RAMPS}
    for path in tqdm(clean, desc="degradations", disable=None):
        picture = lowlight_iqa.read_image(path)[:, :CROP, :CROP].contiguous()
        mixed = [degrade(picture, mixture(rng), rng) for _ in range(MIXTURES)]
        targets += [wanted for _, wanted in mixed]
        outputs.append(explain(metric, [made for made, _ in mixed]))
        strongest = [degrade(picture, ramp[-1], rng)[0] for ramp in RAMPS.values()]
        before, *after = explain(metric, [to_uint8(picture), *strongest])
        for name, values in zip(RAMPS, after, strict=True):
            response[name] += (values - before) / len(clean)
    predicted, wanted = np.concatenate(outputs), np.array(targets)
    lines = [f"Attribute heads on {len(wanted)} random degradations of {len(clean)} held-out clean pictures:", ""]
    lines += ["| head | SRCC with its target | 95 % interval | PLCC |", "|---|---|---|---|"]
    reached = []
    for place, name in enumerate(ATTRIBUTES):
        pair = predicted[:, place + 1], wanted[:, place]
        reached.append(srcc(*pair))
        low, high = interval(srcc, *pair)
        lines.append(f"| {name} | {reached[-1]:.3f} | {low:.3f} to {high:.3f} | {plcc(*pair):.3f} |")
    lines += [
        "",
        "Mean change of each head from the clean picture to the strongest step of each single degradation:",
        "",
    ]
    lines += ["| degradation | " + " | ".join(TASKS) + " |", "|" + "---|" * (len(TASKS) + 1)]
    lines += [f"| {name} | " + " | ".join(f"{v:+.2f}" for v in change) + " |" for name, change in response.items()]
    return reached, "\n".join(lines)


def explain(metric: Leiq, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 7) mapped outputs of pictures (H, W, 3) of one size."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    mos, attributes = metric.explain_batch(batch)
    return torch.stack([mos, *attributes.values()], 1).numpy()


if __name__ == "__main__":
    main()
