"""The hand-crafted metrics on BIQ2021, and the training of ``brisque-dark``.

    python benchmarks/biq2021_handcrafted.py --data DATA/biq2021 [--cache FILE] [--write-dark]

Scores every picture once (about a quarter of a second a picture on one core) and keeps what it computed in the
cache, so that it can be stopped and started again. Prints Markdown. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lowlight_iqa import create_metric, read_image
from lowlight_iqa.correlation import interval, plcc, srcc
from lowlight_iqa.data import biq2021
from lowlight_iqa.metrics.brisque import FEATURES, Brisque, spatial_features, train_regression
from lowlight_iqa.registry import find
from lowlight_iqa.weights import BUNDLED, serialize

FOLDS, SEED = 5, 0
COSTS, GAMMAS, EPSILONS = (1.0, 4.0, 16.0, 64.0), (0.0125, 0.025, 0.05, 0.1), (0.1, 0.3)
PUBLISHED = {"niqe": ".267 to .356", "piqe": ".180 to .213", "brisque, retrained": ".603"}


def measure(paths: list[Path], cache: Path) -> dict[str, np.ndarray]:
    """By file name: BRISQUE's 36 features, then the scores of niqe and piqe."""
    known = dict(np.load(cache)) if cache.is_file() else {}
    metrics = [create_metric(name) for name in ("niqe", "piqe")]
    missing = [path for path in paths if path.name not in known]
    with torch.inference_mode():
        for count, path in enumerate(tqdm(missing), 1):
            x = read_image(path)[None]
            known[path.name] = torch.cat([spatial_features(x)[0], *(metric(x).double() for metric in metrics)]).numpy()
            if count % 100 == 0 or count == len(missing):
                np.savez(cache, **known)
    return known


def train(features: torch.Tensor, scores: torch.Tensor) -> tuple[dict[str, torch.Tensor], str]:
    """The regression with the hyper-parameters of the best mean SRCC in cross-validation inside these rows."""
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(SEED))
    folds = order.tensor_split(FOLDS)
    best = (-1.0, 0.0, 0.0, 0.0)
    for cost, gamma, epsilon in itertools.product(COSTS, GAMMAS, EPSILONS):
        found = []
        for k, held in enumerate(folds):
            rest = torch.cat([fold for j, fold in enumerate(folds) if j != k])
            fitted = train_regression(features[rest], scores[rest], cost=cost, gamma=gamma, epsilon=epsilon)
            found.append(srcc(predict(fitted, features[held]), scores[held].numpy()))
        best = max(best, (float(np.mean(found)), cost, gamma, epsilon))
    value, cost, gamma, epsilon = best
    fitted = train_regression(features, scores, cost=cost, gamma=gamma, epsilon=epsilon)
    return fitted, f"C {cost:g}, gamma {gamma:g}, epsilon {epsilon:g}; mean SRCC of {FOLDS} folds {value:.3f}"


def predict(parameters: dict[str, torch.Tensor], features: torch.Tensor) -> np.ndarray:
    """Scores of features (N, 36)."""
    metric = Brisque(find("brisque")[1], parameters=parameters)
    with torch.inference_mode():
        return torch.cat([metric.regress(part) for part in features.split(500)]).numpy()


def line(name: str, scores: np.ndarray, mos: np.ndarray, published: str = "") -> None:
    cells = []
    for figure in (srcc, plcc):
        low, high = interval(figure, scores, mos)
        cells.append(f"{figure(scores, mos):+.3f} [{low:+.3f}, {high:+.3f}]")
    print(f"| {name} | {len(mos)} | {' | '.join(cells)} | {published} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("biq2021_handcrafted.npz"))
    parser.add_argument("--write-dark", action="store_true", help="write weights/brisque-dark.safetensors")
    args = parser.parse_args()
    splits = {split: biq2021.read(args.data, split) for split in ("train", "test")}
    known = measure([item.path for split in splits.values() for item in split], args.cache)

    def table(split: str, dark: bool) -> tuple[np.ndarray, np.ndarray]:
        chosen = [(known[item.path.name], item.mos) for item in splits[split] if not dark or item.dark]
        return np.stack([values for values, _ in chosen]), np.array([mos for _, mos in chosen])

    live = create_metric("brisque").state_dict()
    print("| metric | pictures | SRCC [95 %] | PLCC [95 %] | published SRCC |\n|---|---|---|---|---|")
    notes = []
    for dark in (False, True):
        values, mos = table("test", dark)
        where = "dark test split" if dark else "test split"
        features = torch.from_numpy(values[:, :FEATURES])
        line(f"niqe, {where}", values[:, FEATURES], mos, "" if dark else PUBLISHED["niqe"])
        line(f"piqe, {where}", values[:, FEATURES + 1], mos, "" if dark else PUBLISHED["piqe"])
        line(f"brisque (LIVE), {where}", predict(live, features), mos)
        learned, scores = (torch.from_numpy(part) for part in table("train", dark))
        fitted, note = train(learned[:, :FEATURES], scores)
        name = "brisque-dark" if dark else "brisque, retrained"
        notes.append(f"{name}: {len(scores)} training pictures, {note}.")
        line(f"{name}, {where}", predict(fitted, features), mos, PUBLISHED.get(name, "") if not dark else "")
        if dark and args.write_dark:
            content = serialize({key: value.float() for key, value in fitted.items()}, {})
            (BUNDLED / "brisque-dark.safetensors").write_bytes(content)
            notes.append(f"brisque-dark.safetensors: {len(content)} bytes, {hashlib.sha256(content).hexdigest()}")
    print("\nScores of niqe, piqe and brisque (LIVE) fall as quality rises: their figures are good when negative.\n")
    print("\n".join(notes))


if __name__ == "__main__":
    main()
