"""Does a metric beside L1 help a network that can denoise: ``python benchmarks/restoration.py --lol DATA/lol``.

A small U-Net with residual output learns LOL's training pairs by L1, with and without metrics. It is judged on
eval15 by PSNR, SSIM, PSNR with the brightness matched, and by the metrics that took no part. Each run's figures are
appended to benchmarks/restoration.jsonl as soon as they are there, and runs found in it are not made again. The
metric's weight is chosen on held-out training pairs, and so is the learned metric that is put beside the chosen `niqe`;
eval15 takes no part in it. Needs scikit-image (the bench extra).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from enhancement import FIGURES, HELD_OUT, ROOT, available, cell, closeness, mean_scores, score_cells, signs, table
from runs import Runs, over_seeds, scored_by
from torch import Tensor, nn
from train_enhancer import files, read_pictures

from lowlight_iqa import Metric, list_metrics

TRAINED = ("leiq-robust", "leiq", "iaca", "niqe")
LEADER = "niqe"  # every other one is also tried beside it
WEIGHTS = (0.03, 0.1, 0.3)
SEEDS = (0, 1, 2)
RESULTS = ROOT / "benchmarks" / "restoration.jsonl"

Pair = tuple[Tensor, Tensor, Tensor]  # enhanced, normal-light, dark: (3, H, W) each


class UNet(nn.Module):
    """Three scales, two 3x3 convolutions at each, skips, and a residual on a dark picture times its global gain."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = block(3, width)
        self.second = block(width, 2 * width)
        self.third = block(2 * width, 4 * width)
        self.up_second = block(6 * width, 2 * width)
        self.up_first = block(3 * width, width)
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return pictures (N, 3, H, W), not clamped, of dark ones in [0, 1]; H and W are multiples of 4."""
        gain = 0.45 / x.mean((1, 2, 3), keepdim=True).clamp_min(0.02)
        lit = (x * gain).clamp(0, 1)

        first = self.first(lit)  # (N, width, H, W)
        second = self.second(F.avg_pool2d(first, 2))  # (N, 2 width, H/2, W/2)
        third = self.third(F.avg_pool2d(second, 2))  # (N, 4 width, H/4, W/4)
        second = self.up_second(torch.cat([second, enlarged(third)], 1))
        first = self.up_first(torch.cat([first, enlarged(second)], 1))
        residual: Tensor = self.leave(first)
        return lit + residual


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each followed by a leaky ReLU."""
    convolutions = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(convolutions[0], nn.LeakyReLU(0.2), convolutions[1], nn.LeakyReLU(0.2))


def enlarged(x: Tensor) -> Tensor:
    """Twice the size, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Run:
    """One training; all that its figures depend on."""

    terms: tuple[tuple[str, float], ...] = ()  # metrics and their weights; none: L1 alone
    choosing: bool = False  # trained without the held-out pairs and measured on them
    seed: int = 0
    steps: int = 300
    batch: int = 8
    size: int = 128  # side of the crops
    rate: float = 1e-3
    weights: str = ""  # the first eight letters of each metric's SHA-256: other weights are another run

    @property
    def label(self) -> str:
        """Say what the loss is."""
        return " + ".join(["L1", *(f"{weight:g} {name}" for name, weight in self.terms)])


def crops(pictures: Sequence[Tensor], run: Run, draw: torch.Generator) -> Tensor:
    """Random crops (N, 6, size, size) of dark and normal-light pictures (6, H, W), mirrored half of the time."""
    views = []
    for index in torch.randint(len(pictures), (run.batch,), generator=draw).tolist():
        picture = pictures[index]
        top, left = (int(torch.randint(side - run.size + 1, (), generator=draw)) for side in picture.shape[1:])
        view = picture[:, top : top + run.size, left : left + run.size]
        views.append(view.flip(2) if torch.rand((), generator=draw) < 0.5 else view)
    return torch.stack(views)


def train(pictures: Sequence[Tensor], run: Run, metrics: Mapping[str, Metric], device: torch.device) -> UNet:
    """Train a network by L1 and, with their weights, by the metrics of the run."""
    torch.manual_seed(run.seed)
    draw = torch.Generator().manual_seed(run.seed)
    network = UNet().to(device)
    optimizer = torch.optim.Adam(network.parameters(), run.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.steps)
    for _ in range(run.steps):
        dark, normal = crops(pictures, run, draw).to(device).split(3, 1)
        restored = network(dark)
        loss = (restored - normal).abs().mean()
        for name, weight in run.terms:
            loss = loss + weight * metrics[name].loss(restored.clamp(0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def restore(network: UNet, dark: Tensor) -> Tensor:
    """Restore one picture (3, H, W), rounded to 8 bits as a file holds it."""
    height, width = dark.shape[1:]
    padded = F.pad(dark[None], (0, -width % 4, 0, -height % 4), mode="replicate")
    device = next(network.parameters()).device
    with torch.inference_mode():
        found = network(padded.to(device))[0, :, :height, :width].clamp(0, 1).cpu()
    return (found * 255).round() / 255


class Study:
    """The runs, each made once, and what they reached."""

    def __init__(self, lol: Path, path: Path, steps: int, device: torch.device, metrics: Mapping[str, Metric]) -> None:
        self.lol, self.runs, self.steps, self.device, self.metrics = lol, Runs(path), steps, device, metrics

    @cached_property
    def training(self) -> list[Tensor]:
        """The training pairs, (6, H, W) each: dark, normal-light."""
        return read_pictures(files(self.lol / "train" / "low"), self.lol / "train" / "high")

    @cached_property
    def test(self) -> list[Tensor]:
        """The pairs of eval15."""
        return read_pictures(files(self.lol / "eval15" / "low"), self.lol / "eval15" / "high")

    def run(self, *terms: tuple[str, float], choosing: bool = False, seed: int = 0) -> Run:
        """Describe a run with this study's settings."""
        weights = "+".join(self.runs.weights[name] for name, _ in terms)
        return Run(terms, choosing, seed, self.steps, weights=weights)

    def make(self, run: Run) -> Mapping[str, float]:
        """Train and measure, unless the figures are known."""
        key = json.dumps(asdict(run), sort_keys=True)
        if key not in self.runs.known:
            print(f"{run.label}, seed {run.seed}{', choosing' * run.choosing}", flush=True)
            held, rest = self.training[::HELD_OUT], [p for i, p in enumerate(self.training) if i % HELD_OUT]
            start = time.perf_counter()
            network = train(rest if run.choosing else self.training, run, self.metrics, self.device)
            seconds = time.perf_counter() - start

            pictures = held if run.choosing else self.test
            pairs: list[Pair] = [(restore(network, p[:3]), p[3:], p[:3]) for p in pictures]
            found = {"seconds": seconds, **closeness(pairs)}
            if not run.choosing:
                found |= mean_scores(pairs, self.metrics, self.device)
            self.runs.note(run.label, key, found)
        return self.runs.known[key]

    def best(self, runs: Sequence[Run]) -> Run:
        """Choose the run of the highest PSNR on the held-out pairs; return the one on all pairs with its terms."""
        found = max(runs, key=lambda run: self.make(run)["psnr"])
        return replace(found, choosing=False)

    def over_seeds(self, run: Run) -> dict[str, np.ndarray]:
        """Figures of a run, an array over the seeds."""
        return over_seeds([self.make(replace(run, seed=seed)) for seed in SEEDS])


def report(study: Study) -> str:
    """Make every run that is missing and write the tables."""
    heads = [title for title, _ in FIGURES.values()]
    single = [[study.run((name, weight), choosing=True) for weight in WEIGHTS] for name in TRAINED]
    chosen = [study.best(runs) for runs in single]
    leader, *others = sorted(chosen, key=lambda run: run.terms[0][0] != LEADER)
    pairs = [study.run(*leader.terms, *other.terms, choosing=True) for other in others]
    offered = [
        [run.label, *(f"{study.make(run)[name]:.{digits}f}" for name, (_, digits) in FIGURES.items())]
        for run in (study.run(choosing=True), *chain(*single), *pairs)
    ]

    runs = [study.run(), *chosen, study.best(pairs)]
    reached = {run: study.over_seeds(run) for run in runs}
    figures = [
        [run.label, *(cell(found[name], digits) for name, (_, digits) in FIGURES.items())]
        for run, found in reached.items()
    ]
    names = scored_by(reached.values())
    scores = [[run.label, *score_cells(found, names, run.terms)] for run, found in reached.items()]
    return (
        f"{table(['loss, six held-out training pairs, one seed', *heads], offered)}\n"
        f"{table(['loss, eval15, three seeds', *heads], figures)}\n"
        f"{table(['mean scores on eval15; in italics: trained on', *signs(names)], scores)}"
    )


def kept() -> str:
    """Return the tables of the runs in benchmarks/restoration.jsonl, all of which must be there."""
    return report(Study(Path(), RESULTS, Run().steps, torch.device("cpu"), {})).rstrip("\n")


def main() -> None:
    """Make what is missing and print the tables; tools/pages.py writes them into docs/enhancement.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lol", type=Path, required=True, help="folder with train and eval15, each with low and high")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--steps", type=int, default=Run().steps)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    study = Study(args.lol, args.results, args.steps, device, available(device, list_metrics()))
    print(report(study))


if __name__ == "__main__":
    main()
