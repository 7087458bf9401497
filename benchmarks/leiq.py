"""Everything that the card of ``leiq`` states, measured: ``python benchmarks/leiq.py --data DATA [--weights DIR]``.

DATA holds ``biq2021`` (train.csv, test.csv, images) and ``lol`` (eval15, train; each with low and high).
Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measures import pairs, ratings, scores_of, speed
from tqdm import tqdm

import lowlight_iqa
from lowlight_iqa.correlation import interval, plcc, srcc
from lowlight_iqa.data import biq2021
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
from lowlight_iqa.training.leiq import Recipe

LADDER = (1.0, 0.5, 0.2, 0.1, 0.05)
CROP, MIXTURES = 384, 12


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", help="another directory of weights than the bundled one")
    parser.add_argument("--skip-test", action="store_true", help="leave the test split alone, as while choosing")
    args = parser.parse_args()
    metric = lowlight_iqa.create_metric("leiq", weights=args.weights)
    if not isinstance(metric, Leiq):
        raise SystemExit("leiq is not LEIQ's metric")
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    test = biq2021.read(args.data / "biq2021", "test")
    with torch.inference_mode():
        if not args.skip_test:
            ratings(scores_of(metric, test), test)
        pairs(metric, args.data / "lol")
        validation = [item for item in biq2021.read(args.data / "biq2021", "train") if biq2021.held_out(item)]
        well_exposed = sorted(i.path for i in test if 90 <= i.mean_luma <= 160 and i.mos >= 0.6)[:100]
        ladder(metric, well_exposed)
        clean = [item.path for item in validation if item.mos > Recipe.clean_mos]
        heads(metric, [path for path in clean if is_typical(lowlight_iqa.read_image(path))])
        speed("leiq", sorted((args.data / "lol" / "eval15" / "high").iterdir())[0], args.weights)


def ladder(metric: Leiq, paths: Sequence[Path]) -> None:
    """Falling exposure, 8-bit: strictly falling score and light."""
    falls = {"score": 0, "light": 0, "both": 0}
    means = np.zeros((2, len(LADDER)))
    for path in tqdm(paths, desc="exposures", disable=None):
        picture = lowlight_iqa.read_image(path)
        batch = torch.stack([render(picture, Degradation(exposure=math.log2(step))) for step in LADDER])
        mos, attributes, _ = metric.explain_batch(batch)
        falling = [bool((values.diff() < 0).all()) for values in (mos, attributes["light"])]
        falls["score"] += falling[0]
        falls["light"] += falling[1]
        falls["both"] += all(falling)
        means += np.stack([mos.numpy(), attributes["light"].numpy()]) / len(paths)
    print(f"Exposure {', '.join(f'x{step:g}' for step in LADDER)} on {len(paths)} well-exposed test pictures, strictly")
    print(f"falling: score {falls['score']}, light {falls['light']}, both {falls['both']}.")
    print(f"Mean score {np.round(means[0], 2)}, mean light {np.round(means[1], 2)}.\n")


def heads(metric: Leiq, clean: Sequence[Path]) -> None:
    """Each head against its own target on mixtures, and every head against every single degradation."""
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
    print(f"Attribute heads on {len(wanted)} random degradations of {len(clean)} held-out clean pictures:\n")
    print("| head | SRCC with its target | 95 % interval | PLCC |\n|---|---|---|---|")
    for place, name in enumerate(ATTRIBUTES):
        pair = predicted[:, place + 1], wanted[:, place]
        low, high = interval(srcc, *pair)
        print(f"| {name} | {srcc(*pair):.3f} | {low:.3f} to {high:.3f} | {plcc(*pair):.3f} |")
    print("\nMean change of each head from the clean picture to the strongest step of each single degradation:\n")
    print("| degradation | " + " | ".join(TASKS) + " |\n|" + "---|" * (len(TASKS) + 1))
    for name, change in response.items():
        print(f"| {name} | " + " | ".join(f"{value:+.2f}" for value in change) + " |")
    print()


def explain(metric: Leiq, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 7) mapped outputs of pictures (H, W, 3) of one size."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    mos, attributes, _ = metric.explain_batch(batch)
    return torch.stack([mos, *attributes.values()], 1).numpy()


if __name__ == "__main__":
    main()
