"""Does a metric as a loss make enhancement better: ``python benchmarks/enhancement.py --lol DATA/lol``.

Trains examples/train_enhancer.py's network on LOL's dark training pictures, with the priors alone and with each metric
beside them, measures on eval15, and writes the tables of docs/enhancement.md. Each run's figures are appended to
benchmarks/enhancement.jsonl as soon as they are there, and runs found in it are not made again: stop it and start it
again at will. Needs scikit-image (the bench extra).

Every metric's weight and the best metric are chosen on held-out training pairs; eval15 takes no part in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowlight_iqa import Metric, WeightsNotFound, create_metric, list_metrics

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
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

Figures = Mapping[str, float]
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

    def __init__(
        self,
        lol: Path,
        store: Path,
        settings: Settings,
        device: torch.device,
        metrics: Mapping[str, Metric],
        count: int,
    ) -> None:
        self.store, self.settings, self.device, self.metrics = store, settings, device, metrics
        self.training = read_pictures(files(lol / "train" / "low")[:count], lol / "train" / "high")  # (6, H, W) each
        self.test = read_pictures(files(lol / "eval15" / "low")[:count], lol / "eval15" / "high")
        self.known: dict[str, Figures] = {}
        if store.is_file():
            for line in store.read_text(encoding="utf-8").splitlines():
                self.known.update([(json.loads(line)["key"], json.loads(line)["figures"])])

    def key(self, run: Run) -> str:
        """What the figures of a run depend on."""
        settings = asdict(replace(self.settings, random_crops=run.random_crops, seed=run.seed))
        facts = {**settings, **asdict(run), "pictures": len(self.training)}
        facts["metrics"] = {name: self.metrics[name].card.sha256[:8] for name, _ in run.terms if name in self.metrics}
        return json.dumps(facts, sort_keys=True)

    def make(self, run: Run) -> None:
        """Train, measure and note the figures, unless they are known."""
        if self.key(run) in self.known:
            return
        print(f"{run.label}, seed {run.seed}{', choosing' * run.choosing}", flush=True)
        held, rest = self.training[::HELD_OUT], [p for i, p in enumerate(self.training) if i % HELD_OUT]
        pictures = rest if run.choosing else self.training
        if "fidelity" not in dict(run.terms):
            pictures = [picture[:3] for picture in pictures]  # zero-reference: references are not even at hand
        terms = {n: (fidelity if n == "fidelity" else quality(self.metrics[n]), weight) for n, weight in run.terms}
        start = time.perf_counter()
        settings = replace(self.settings, random_crops=run.random_crops, seed=run.seed)
        network, _ = train(pictures, terms, settings, self.device)
        seconds = time.perf_counter() - start
        pairs = [(enhance(network, pair[:3]), pair[3:], pair[:3]) for pair in (held if run.choosing else self.test)]
        found = {"seconds": seconds, **closeness(pairs)}
        if not run.choosing:
            found |= mean_scores(pairs, self.metrics, self.device)
        self.known[self.key(run)] = found
        with self.store.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"label": run.label, "figures": found, "key": self.key(run)}) + "\n")

    def reached(self, run: Run) -> dict[str, np.ndarray]:
        """Figures of a run, an array over the seeds that are there; empty without any."""
        found = [self.known[key] for seed in SEEDS if (key := self.key(replace(run, seed=seed))) in self.known]
        return {name: np.array([figures[name] for figures in found]) for name in found[0]} if found else {}

    def trained(self) -> list[str]:
        """The metrics to train with that are at hand."""
        return [name for name in TRAINED if name in self.metrics]

    def to_choose(self) -> Iterator[Run]:
        """The runs that the choice is made from."""
        yield Run(choosing=True)
        for name in self.trained():
            yield from (Run(((name, weight),), choosing=True) for weight in WEIGHTS)

    def chosen(self) -> dict[str, tuple[float, float]]:
        """For each metric whose choosing is complete, the weight of the highest PSNR on the held-out pairs, and it."""
        best = {}
        for name in self.trained():
            found = [(self.reached(Run(((name, weight),), choosing=True)), weight) for weight in WEIGHTS]
            if all(figures for figures, _ in found):
                value, weight = max((float(figures["psnr"].mean()), weight) for figures, weight in found)
                best[name] = weight, value
        return best

    def main_runs(self) -> list[Run]:
        """Priors alone, and each metric at its chosen weight."""
        return [Run(), *(Run(((name, weight),)) for name, (weight, _) in self.chosen().items())]

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
            rows.append([run.label, *cells, cell(figures["brightness"], 3), str(len(figures["psnr"]))])
    return table(["loss", *(title for title, _ in FIGURES.values()), "mean brightness", "seeds"], rows)


def score_table(proof: Proof, runs: Sequence[Run]) -> str:
    """Each run's mean scores; in italics those that it was trained on."""
    names = list(proof.metrics)
    rows = []
    for title, side in (("dark pictures", slice(0, 3)), ("normal-light pictures", slice(3, 6))):
        pairs = [(pair[side], pair[3:], pair[:3]) for pair in proof.test]
        scores = mean_scores(pairs, proof.metrics, proof.device)
        rows.append([title, *(f"{scores[name]:.3g}" for name in names)])
    for run in runs:
        if figures := proof.reached(run):
            cells = {name: f"{figures[name].mean():.3g} ± {figures[name].std():.2g}" for name in names}
            cells.update({name: f"*{cells[name]}*" for name, _ in run.terms if name in cells})
            rows.append([run.label, *cells.values()])
    signs = [f"{name} {'↓' if proof.metrics[name].card.lower_better else '↑'}" for name in names]
    return table(["loss", *signs], rows)


def so_far(rows: Sequence[Mapping[str, Any]]) -> str:
    """Tables of the runs that are in the file of results, each seed's figures, whatever is missing."""
    parts = []
    for choosing, pictures in ((True, "six held-out training pairs"), (False, "eval15")):
        found: dict[str, dict[int, Figures]] = {}
        runs = [(json.loads(row["key"]), row) for row in rows]
        for facts, row in sorted(runs, key=lambda run: (run[0]["random_crops"], run[0]["terms"])):
            if facts["choosing"] is choosing:
                found.setdefault(row["label"], {})[facts["seed"]] = row["figures"]
        names = ("psnr", "psnr_matched")
        head = [f"loss, {pictures}", *(FIGURES[name][0] for name in names), "seeds"]
        lines = []
        for label, by_seed in found.items():
            seeds = sorted(by_seed)
            cells = [", ".join(f"{by_seed[seed][name]:.2f}" for seed in seeds) for name in names]
            lines.append([label, *cells, ", ".join(map(str, seeds))])
        parts.append(table(head, lines))
    return "\n".join(parts).rstrip("\n")


def verdict(proof: Proof) -> str:
    """The aim against what happened: the metric chosen on the held-out pairs, on eval15."""
    best = max(proof.chosen().items(), key=lambda item: item[1][1], default=None)
    before = proof.reached(Run())
    after = proof.reached(Run(((best[0], best[1][0]),))) if best else {}
    if best is None or not before or not after:
        return "Aim: the runs that it needs have not been made.\n"
    gain, ssim = (after[name].mean() - before[name].mean() for name in ("psnr", "ssim"))
    met = "met" if gain >= 1 and ssim >= 0 else "not met"
    return (
        f"Best on the held-out pairs: {best[0]}. On eval15 it changes PSNR by {gain:+.2f} dB and SSIM by {ssim:+.3f} "
        f"over priors alone. Aim (at least +1 dB without loss of SSIM): **{met}**.\n"
    )


def report(proof: Proof) -> str:
    """All tables of the runs that are there."""
    choosing = []
    for run in proof.to_choose():
        if figures := proof.reached(run):
            choosing.append([run.label, *(cell(figures[name], digits) for name, (_, digits) in FIGURES.items())])
    main, raised, guarded = proof.main_runs(), proof.raised_runs(), proof.guarded_runs()
    done = [run for run in chain(main, raised, guarded) if proof.reached(run)]
    seconds = [t for run in chain(proof.to_choose(), done) for t in proof.reached(run).get("seconds", ())]
    took = f", {np.median(seconds):.0f} s each in the median" if seconds else ""
    settings = proof.settings
    views = f"{settings.batch} views of {settings.size} pixels a step"
    parts = [
        f"{len(seconds)} runs of {settings.steps} steps, {views}{took}.\n",
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
    return "\n".join(parts)


def main() -> None:
    """Make what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lol", type=Path, required=True, help="folder with train and eval15, each with low and high")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "enhancement.jsonl")
    parser.add_argument("--steps", type=int, default=Settings().steps)
    parser.add_argument("--size", type=int, default=Settings().size)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after that long; 0: tables")
    parser.add_argument("--only", nargs="+", metavar="METRIC", help="make runs of these metrics alone in this sitting")
    parser.add_argument("--device", default="cpu", help="auto is not offered: a table comes from one kind of device")
    parser.add_argument("--quick", action="store_true", help="smoke test: two steps, two pictures; writes nothing")
    args = parser.parse_args()
    device, count, names = torch.device(args.device), 1000, list_metrics()
    settings = Settings(steps=args.steps, size=args.size)
    with tempfile.TemporaryDirectory() as scratch:
        if args.quick:
            settings, count, names = Settings(steps=2, batch=1, size=128), 2, ["leiq", "brisque"]
            args.results = Path(scratch) / "quick.jsonl"
        proof = Proof(args.lol, args.results, settings, device, available(device, names), count)
        end = time.monotonic() + 60 * args.minutes
        one = SEEDS[:1]
        phases = (
            (proof.to_choose, SEEDS),
            (proof.main_runs, SEEDS),
            (proof.raised_runs, SEEDS),
            (proof.guarded_runs, SEEDS),
        )
        for phase, seeds in phases:
            for run in phase():
                if args.only and not {name for name, _ in run.terms} <= {"fidelity", *args.only}:
                    continue
                for seed in one if args.quick else seeds:
                    if time.monotonic() < end:
                        proof.make(replace(run, seed=seed))
        text = report(proof)
    print(text)
    if not args.quick:
        page = ROOT / "docs" / "enhancement.md"
        before, rest = page.read_text(encoding="utf-8").split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
