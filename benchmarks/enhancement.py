"""Does a metric as a loss make enhancement better: ``python benchmarks/enhancement.py --lol DATA/lol``.

Trains examples/train_enhancer.py's network on LOL's dark training pictures, with the priors alone and with each metric
beside them, and measures on eval15. Each run's figures are appended to benchmarks/enhancement.jsonl as soon as they are
there, and runs found in it are not made again: stop it and start it again at will. tools/pages.py writes the tables of
docs/enhancement.md from that file. Needs scikit-image (the bench extra).

Every metric's weight and the best metric are chosen on held-out training pairs; eval15 takes no part in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from runs import Runs, over_seeds, scored_by
from torch import Tensor

from lowlight_iqa import Metric, WeightsNotFound, create_metric, list_metrics
from lowlight_iqa.registry import get_card

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from train_enhancer import Settings, enhance, fidelity, files, quality, read_pictures, train  # noqa: E402

TRAINED = ("niqe", "brisque", "iaca", "leiq", "leiq-robust")
PARTNER = {"niqe": "leiq", "iaca": "niqe", "leiq": "niqe"}  # the metrics that are guarded, and what each is mixed with
WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0)  # to choose from
FIDELITY = 10.0
RAISE = 10.0
SEEDS = (0, 1, 2)
HELD_OUT = 4  # every fourth training pair in the order of file names, six of 22, for choosing
FIGURES = {
    "psnr": ("PSNR, dB", 2),
    "ssim": ("SSIM", 3),
    "ciede2000": ("color error", 2),
    "psnr_matched": ("PSNR, brightness matched, dB", 2),
}
PICTURES = 22  # training pairs at hand
STEPS = 200
RESULTS = ROOT / "benchmarks" / "enhancement.jsonl"
LIT = ("dark pictures", "normal-light pictures")  # labels of what is scored without training
SHOWN = ("niqe", 10.0)  # what the picture in README.md was trained with

Pair = tuple[Tensor, Tensor, Tensor]  # a picture to measure, its normal-light picture, its dark picture: (3, H, W)


@dataclass(frozen=True)
class Run:
    """One training: the terms beside the priors with their weights, and what else sets it apart."""

    terms: tuple[tuple[str, float], ...] = ()  # metrics, or "fidelity"
    random_crops: bool = False
    choosing: bool = False  # trained without the held-out pairs and measured on them
    seed: int = 0

    @property
    def label(self) -> str:
        """As its row of a table begins."""
        words = ["priors", *(f"{weight:g} {name}" for name, weight in self.terms)]
        return " + ".join(words) + (", random crops" if self.random_crops else "")


class Proof:
    """The runs, each made once, and what they reached."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.runs, self.settings = Runs(path), settings

    def key(self, run: Run) -> str:
        """What the figures of a run depend on."""
        settings = asdict(replace(self.settings, random_crops=run.random_crops, seed=run.seed))
        facts = {**settings, **asdict(run), "pictures": PICTURES}
        facts["metrics"] = {name: self.runs.weights[name] for name, _ in run.terms if name != "fidelity"}
        return json.dumps(facts, sort_keys=True)

    def reached(self, run: Run) -> dict[str, np.ndarray]:
        """Figures of a run, an array over the seeds that are there; empty without any."""
        known = self.runs.known
        found = [known[key] for seed in SEEDS if (key := self.key(replace(run, seed=seed))) in known]
        return over_seeds(found)

    def to_choose(self) -> Iterator[Run]:
        """The runs that the choice is made from."""
        yield Run(choosing=True)
        for name in TRAINED:
            yield from (Run(((name, weight),), choosing=True) for weight in WEIGHTS)
        yield replace(self.pair(), choosing=True)

    def chosen(self) -> dict[str, tuple[float, float]]:
        """For each metric whose choosing is complete, the weight of the highest PSNR on the held-out pairs, and it."""
        best = {}
        for name in TRAINED:
            found = [(self.reached(Run(((name, weight),), choosing=True)), weight) for weight in WEIGHTS]
            if all(figures for figures, _ in found):
                value, weight = max((float(figures["psnr"].mean()), weight) for figures, weight in found)
                best[name] = weight, value
        return best

    def pair(self) -> Run:
        """The two metrics with the highest PSNR on the held-out pairs, each at half of its weight."""
        best = sorted(self.chosen().items(), key=lambda item: -item[1][1])[:2]
        return Run(tuple(sorted((name, weight / 2) for name, (weight, _) in best)))

    def main_runs(self) -> list[Run]:
        """Priors alone, each metric at its chosen weight, two at half of theirs, and what README.md shows."""
        chosen = [Run(((name, weight),)) for name, (weight, _) in self.chosen().items()]
        return list(dict.fromkeys([Run(), *chosen, self.pair(), Run((SHOWN,))]))

    def raised_runs(self) -> list[Run]:
        """Each metric at ten times its weight."""
        return [Run(((name, RAISE * weight),)) for name, (weight, _) in self.chosen().items()]

    def guarded_runs(self) -> list[Run]:
        """The guards alone, then each metric at ten times its weight with one guard."""
        weights = {name: weight for name, (weight, _) in self.chosen().items()}
        runs = [Run((("fidelity", FIDELITY),)), Run(random_crops=True)]
        for name, weight in ((name, weight) for name, weight in weights.items() if name in PARTNER):
            raised = (name, RAISE * weight)
            runs += [Run((raised, ("fidelity", FIDELITY))), Run((raised,), random_crops=True)]
            if PARTNER[name] in weights:
                other = PARTNER[name], RAISE / 2 * weights[PARTNER[name]]
                runs.append(Run(tuple(sorted([(name, RAISE / 2 * weight), other]))))
        return list(dict.fromkeys(runs))


class Bench:
    """Makes the runs that a proof does not know yet."""

    def __init__(self, proof: Proof, lol: Path, device: torch.device) -> None:
        self.proof, self.device = proof, device
        self.training = read_pictures(files(lol / "train" / "low"), lol / "train" / "high")  # (6, H, W) each
        self.test = read_pictures(files(lol / "eval15" / "low"), lol / "eval15" / "high")
        if len(self.training) != PICTURES:
            raise ValueError(f"{lol / 'train'} holds {len(self.training)} pairs; the study is of {PICTURES}")

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The metrics whose weights are at hand."""
        return available(self.device, list_metrics())

    def score_pairs(self) -> None:
        """Score the dark and the normal-light pictures themselves."""
        for label, side in zip(LIT, (slice(0, 3), slice(3, 6)), strict=True):
            if label not in self.proof.runs.known:
                pairs = [(pair[side], pair[3:], pair[:3]) for pair in self.test]
                self.proof.runs.note(label, label, mean_scores(pairs, self.metrics, self.device))

    def make(self, run: Run) -> None:
        """Train, measure and note the figures, unless they are known."""
        key = self.proof.key(run)
        if key in self.proof.runs.known:
            return
        print(f"{run.label}, seed {run.seed}{', choosing' * run.choosing}", flush=True)
        held, rest = self.training[::HELD_OUT], [p for i, p in enumerate(self.training) if i % HELD_OUT]
        pictures = rest if run.choosing else self.training
        if "fidelity" not in dict(run.terms):
            pictures = [picture[:3] for picture in pictures]  # zero-reference: references are not even at hand
        terms = {n: (fidelity if n == "fidelity" else quality(self.metrics[n]), weight) for n, weight in run.terms}
        start = time.perf_counter()
        settings = replace(self.proof.settings, random_crops=run.random_crops, seed=run.seed)
        network, _ = train(pictures, terms, settings, self.device)
        seconds = time.perf_counter() - start
        pairs = [(enhance(network, pair[:3]), pair[3:], pair[:3]) for pair in (held if run.choosing else self.test)]
        found = {"seconds": seconds, **closeness(pairs)}
        if not run.choosing:
            found |= mean_scores(pairs, self.metrics, self.device)
        self.proof.runs.note(run.label, key, found)


def closeness(pairs: Sequence[Pair]) -> dict[str, float]:
    """Mean figures against the normal-light pictures."""
    from skimage.color import deltaE_ciede2000, rgb2lab
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    rows = []
    for made, normal, _ in pairs:
        x, y = (picture.permute(1, 2, 0).double().numpy() for picture in (made, normal))
        matched = np.clip(x * (y.mean() / max(x.mean(), 1e-6)), 0, 1)
        ssim = structural_similarity(
            y, x, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        row = {
            "psnr": peak_signal_noise_ratio(y, x, data_range=1),
            "ssim": ssim,
            "ciede2000": deltaE_ciede2000(rgb2lab(y), rgb2lab(x)).mean(),
            "psnr_matched": peak_signal_noise_ratio(y, matched, data_range=1),
            "brightness": x.mean(),
        }
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def mean_scores(pairs: Sequence[Pair], metrics: Mapping[str, Metric], device: torch.device) -> dict[str, float]:
    """Mean score of each metric."""
    found = {}
    with torch.inference_mode():
        for name, metric in metrics.items():
            scores = [
                metric(made.to(device), dark.to(device) if metric.card.needs_reference else None)
                for made, _, dark in pairs
            ]
            found[name] = torch.cat(scores).mean().item()
    return found


def available(device: torch.device, names: Sequence[str]) -> dict[str, Metric]:
    """The metrics whose weights are at hand."""
    found = {}
    for name in names:
        try:
            found[name] = create_metric(name, device=device)
        except WeightsNotFound:
            print(f"{name} is left out: its weights are not at hand")
    return found


def cell(values: np.ndarray, digits: int) -> str:
    """Mean and, of several seeds, standard deviation."""
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def figure_table(proof: Proof, runs: Sequence[Run]) -> str:
    """Each run's closeness to the normal-light pictures."""
    rows = []
    for run in runs:
        if figures := proof.reached(run):
            cells = [cell(figures[name], digits) for name, (_, digits) in FIGURES.items()]
            each = ", ".join(f"{value:.2f}" for value in figures["psnr"])
            rows.append([run.label, *cells, cell(figures["brightness"], 3), each])
    return table(["loss", *(title for title, _ in FIGURES.values()), "mean brightness", "PSNR by seed"], rows)


def score_table(proof: Proof, runs: Sequence[Run]) -> str:
    """Each run's mean scores, below those of the pictures themselves."""
    lit = [proof.runs.known[label] for label in LIT]
    reached = {run: proof.reached(run) for run in runs}
    names = scored_by([*lit, *reached.values()])
    rows = [[label, *(f"{scores[name]:.3g}" for name in names)] for label, scores in zip(LIT, lit, strict=True)]
    rows += [[run.label, *score_cells(figures, names, run.terms)] for run, figures in reached.items()]
    return table(["loss", *signs(names)], rows)


def score_cells(
    figures: Mapping[str, np.ndarray], names: Sequence[str], terms: Sequence[tuple[str, float]]
) -> list[str]:
    """Mean and deviation of scores over the seeds; in italics those of metrics that were trained on."""
    trained = dict(terms)
    cells = {name: f"{figures[name].mean():.3g} ± {figures[name].std(ddof=1):.2g}" for name in names}
    return [f"*{text}*" if name in trained else text for name, text in cells.items()]


def signs(names: Sequence[str]) -> list[str]:
    """Names of metrics, each with an arrow toward the better scores."""
    return [f"{name} {'↓' if get_card(name).lower_better else '↑'}" for name in names]


def verdict(proof: Proof) -> str:
    """The aim against what happened: the metric chosen on the held-out pairs, on eval15."""
    held_out = {run: proof.reached(replace(run, choosing=True)) for run in proof.main_runs()[1:]}
    best = max(held_out, key=lambda run: held_out[run]["psnr"].mean())
    before, after = proof.reached(Run()), proof.reached(best)
    change = {name: after[name].mean() - before[name].mean() for name in ("psnr", "psnr_matched", "ssim")}
    met = "met" if change["psnr"] >= 2 and change["psnr_matched"] >= 1 else "not met"
    return (
        f"Best on the held-out pairs: {best.label}. On eval15, against priors alone: PSNR {change['psnr']:+.2f} dB, "
        f"with brightness matched {change['psnr_matched']:+.2f} dB, SSIM {change['ssim']:+.3f}. "
        f"Aim (+2 dB, +1 dB with brightness matched): **{met}**.\n"
    )


def report(proof: Proof) -> str:
    """All tables of the runs that are there."""
    choosing = []
    for run in proof.to_choose():
        if figures := proof.reached(run):
            choosing.append([run.label, *(cell(figures[name], digits) for name, (_, digits) in FIGURES.items())])
    main, raised, guarded = proof.main_runs(), proof.raised_runs(), proof.guarded_runs()
    done = [run for run in chain(main, raised, guarded) if proof.reached(run)]
    settings = proof.settings
    parts = [
        f"Runs of {settings.steps} steps, {settings.batch} views of {settings.size} pixels a step, three seeds each.\n",
        "### Choosing the weights: six held-out training pairs\n",
        table(["loss", *(title for title, _ in FIGURES.values())], choosing),
        "### eval15, mean and standard deviation over the seeds\n",
        figure_table(proof, main),
        verdict(proof),
        "### The weight raised tenfold\n",
        figure_table(proof, raised),
        "### Guards at the tenfold weight\n",
        figure_table(proof, guarded),
        "### Scores on eval15; in italics: trained on\n",
        score_table(proof, done),
    ]
    return "\n".join(parts).rstrip("\n")


def kept() -> str:
    """Return the tables of the runs in benchmarks/enhancement.jsonl."""
    return report(Proof(RESULTS, Settings(steps=STEPS)))


def main() -> None:
    """Make what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lol", type=Path, required=True, help="folder with train and eval15, each with low and high")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after that long")
    parser.add_argument("--only", nargs="+", metavar="METRIC", help="make runs of these metrics alone in this sitting")
    parser.add_argument("--device", default="cpu", help="auto is not offered: a table comes from one kind of device")
    args = parser.parse_args()
    proof = Proof(args.results, Settings(steps=args.steps))
    bench = Bench(proof, args.lol, torch.device(args.device))
    end = time.monotonic() + 60 * args.minutes
    for phase in (proof.to_choose, proof.main_runs, proof.raised_runs, proof.guarded_runs):
        for run in phase():
            if args.only and not {name for name, _ in run.terms} <= {"fidelity", *args.only}:
                continue
            for seed in SEEDS:
                if time.monotonic() < end:
                    bench.make(replace(run, seed=seed))
    bench.score_pairs()
    print(report(proof))


if __name__ == "__main__":
    main()
