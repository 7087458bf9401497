"""Everything that the card of ``leiq`` states, measured: ``python benchmarks/leiq.py --data DATA [--weights DIR]``.

DATA holds ``biq2021`` (train.csv, test.csv, images) and ``lol`` (eval15, train; each with low and high).
Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import lowlight_iqa
from lowlight_iqa.correlation import interval, plcc, plcc_logistic, srcc
from lowlight_iqa.data import biq2021
from lowlight_iqa.metrics.leiq import TASKS, Leiq
from lowlight_iqa.training.degradations import ATTRIBUTES, RAMPS, Degradation, degrade, mixture, render

LADDER = (1.0, 0.5, 0.2, 0.1, 0.05)
CROP = 384


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
            ratings(metric, test)
        pairs(metric, args.data / "lol")
        validation = [item for item in biq2021.read(args.data / "biq2021", "train") if biq2021.held_out(item)]
        well_exposed = sorted(i.path for i in test if 90 <= i.mean_luma <= 160 and i.mos >= 0.6)[:100]
        ladder(metric, well_exposed)
        heads(metric, [item.path for item in validation if item.mos > 0.7 and 45 < item.mean_luma < 180])
        speed(metric, sorted((args.data / "lol" / "eval15" / "high").iterdir())[0], args.weights)


def ratings(metric: Leiq, rated: Sequence[biq2021.Rated]) -> None:
    """Agreement with people on a split, every picture of it."""
    scores = np.array([metric(item.path).item() for item in tqdm(rated, desc="test split", disable=None)])
    labels = np.array([item.mos for item in rated])
    dark = np.array([item.dark for item in rated])
    print("| BIQ2021 test split | pictures | SRCC | PLCC, raw | PLCC, 4-parameter logistic |\n|---|---|---|---|---|")
    for name, part in (("whole", np.ones_like(dark)), ("dark (mean luma < 70)", dark), ("the others", ~dark)):
        s, y = scores[part], labels[part]
        cells = [f"{f(s, y):.4f} [{', '.join(f'{v:.3f}' for v in interval(f, s, y))}]" for f in (srcc, plcc)]
        print(f"| {name} | {part.sum()} | {cells[0]} | {cells[1]} | {plcc_logistic(s, y):.4f} |")
    print("\nIn brackets: 95 % bootstrap intervals, 1000 resamples of the pictures.\n")


def pairs(metric: Leiq, lol: Path) -> None:
    """LOL: the dark picture below its normal-light picture."""
    print("| LOL pairs | dark below normal | mean score, dark | normal |\n|---|---|---|---|")
    for part in ("eval15", "train"):
        low, high = (
            np.array([metric(path).item() for path in sorted((lol / part / kind).iterdir())])
            for kind in ("low", "high")
        )
        print(f"| {part} | {(low < high).sum()} of {len(low)} | {low.mean():.2f} | {high.mean():.2f} |")
    print()


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
    """Each head against its own target, and every head against every single degradation, on held-out clean pictures."""
    rng = np.random.default_rng(7)
    outputs: list[np.ndarray] = []
    targets: list[list[float]] = []
    response = {name: np.zeros((len(TASKS), 6)) for name in RAMPS}
    shown = [clean[i] for i in rng.permutation(len(clean))[:60]]
    for path in tqdm(shown, desc="degradations", disable=None):
        picture = lowlight_iqa.read_image(path)[:, :CROP, :CROP].contiguous()
        mixed = [degrade(picture, mixture(rng), rng) for _ in range(6)]
        targets += [wanted for _, wanted in mixed]
        outputs.append(explain(metric, [made for made, _ in mixed]))
        for name, ramp in RAMPS.items():
            made = [degrade(picture, how, rng) for how in ramp]
            targets += [wanted for _, wanted in made]
            found = explain(metric, [picture.permute(1, 2, 0).mul(255).round().byte().numpy(), *(m for m, _ in made)])
            outputs.append(found[1:])
            response[name] += found.T / len(shown)
    predicted, wanted = np.concatenate(outputs), np.array(targets)
    print(f"Attribute heads on {len(wanted)} degradations of {len(shown)} held-out clean pictures:\n")
    print("| head | SRCC with its target | 95 % interval |\n|---|---|---|")
    for place, name in enumerate(ATTRIBUTES):
        figure = srcc(predicted[:, place + 1], wanted[:, place])
        low, high = interval(srcc, predicted[:, place + 1], wanted[:, place], draws=300)
        print(f"| {name} | {figure:.3f} | {low:.3f} to {high:.3f} |")
    print("\nChange of each head's mean from the clean picture to the strongest step of each single degradation:\n")
    print("| degradation | " + " | ".join(TASKS) + " |\n|" + "---|" * (len(TASKS) + 1))
    for name, means in response.items():
        print(f"| {name} | " + " | ".join(f"{value:+.2f}" for value in means[:, -1] - means[:, 0]) + " |")
    print()


def explain(metric: Leiq, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 7) mapped outputs of pictures (H, W, 3) of one size."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    mos, attributes, _ = metric.explain_batch(batch)
    return torch.stack([mos, *attributes.values()], 1).numpy()


def speed(metric: Leiq, path: Path, weights: str | None) -> None:
    """Making the metric and scoring one 600x400 picture."""
    start = time.perf_counter()
    lowlight_iqa.create_metric("leiq", weights=weights)
    made = time.perf_counter()
    metric(path)
    scored = time.perf_counter()
    print(f"create_metric {made - start:.2f} s, one 600x400 picture from its file {scored - made:.3f} s.")


if __name__ == "__main__":
    main()
