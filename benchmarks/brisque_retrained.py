"""BRISQUE's regression trained anew on a data set's own scores, and the training of ``brisque-dark``.

    python benchmarks/brisque_retrained.py --data DATA/biq2021 [--cache FILE] [--write-dark]

A retrained metric knows the raters, the cameras and the scale of its data set, a zero-shot one does not: their figures
are not like for like (docs/protocols.md). Needs scikit-learn. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lowlight_iqa import read_image
from lowlight_iqa.data import Rated, biq2021
from lowlight_iqa.evaluation.correlation import interval, plcc, srcc
from lowlight_iqa.metrics.brisque import Brisque, spatial_features, train_regression
from lowlight_iqa.registry import get_card
from lowlight_iqa.weights.files import BUNDLED, serialize

FOLDS, SEED = 5, 0
COSTS, GAMMAS, EPSILONS = (1.0, 4.0, 16.0, 64.0), (0.0125, 0.025, 0.05, 0.1), (0.1, 0.3)
CHOSEN = {"cost": 64.0, "gamma": 0.1, "epsilon": 0.3}  # by ``choose`` on BIQ2021's training pictures


def features(items: Sequence[Rated], cache: Path) -> torch.Tensor:
    """BRISQUE's 36 features of each picture, (N, 36); known ones are read from the cache, by file name."""
    known = dict(np.load(cache)) if cache.is_file() else {}
    missing = [item.path for item in items if item.path.name not in known]
    with torch.inference_mode():
        for count, path in enumerate(tqdm(missing, desc="features", disable=None), 1):
            known[path.name] = spatial_features(read_image(path)[None])[0].numpy()
            if count % 100 == 0 or count == len(missing):
                np.savez(cache, **known)
    return torch.from_numpy(np.stack([known[item.path.name] for item in items]))


def choose(x: torch.Tensor, scores: torch.Tensor) -> tuple[dict[str, float], str]:
    """The hyper-parameters of the best mean SRCC in cross-validation inside these rows."""
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(SEED))
    folds = order.tensor_split(FOLDS)
    best = (-1.0, 0.0, 0.0, 0.0)
    for cost, gamma, epsilon in itertools.product(COSTS, GAMMAS, EPSILONS):
        found = []
        for k, held in enumerate(folds):
            rest = torch.cat([fold for j, fold in enumerate(folds) if j != k])
            fitted = train_regression(x[rest], scores[rest], cost=cost, gamma=gamma, epsilon=epsilon)
            found.append(srcc(predict(fitted, x[held]), scores[held].numpy()))
        best = max(best, (float(np.mean(found)), cost, gamma, epsilon))
    value, cost, gamma, epsilon = best
    note = f"C {cost:g}, gamma {gamma:g}, epsilon {epsilon:g}; mean SRCC of {FOLDS} folds {value:.3f}"
    return {"cost": cost, "gamma": gamma, "epsilon": epsilon}, note


def predict(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> np.ndarray:
    """Scores of features (N, 36)."""
    metric = Brisque(get_card("brisque"), parameters)
    with torch.inference_mode():
        return torch.cat([metric.regress(part) for part in x.split(500)]).numpy()


def retrain(train: Sequence[Rated], test: Sequence[Rated], cache: Path) -> np.ndarray:
    """Scores of the test pictures, higher is better, by a regression trained on the others."""
    mos = torch.tensor([item.mos for item in train], dtype=torch.float64)
    return predict(train_regression(features(train, cache), mos, **CHOSEN), features(test, cache))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("brisque_features.npz"))
    parser.add_argument("--write-dark", action="store_true", help="write weights/brisque-dark.safetensors")
    args = parser.parse_args()
    print("| metric | pictures | SRCC [95 %] | PLCC [95 %] |\n|---|---|---|---|")
    notes = []
    for dark in (False, True):
        train, test = (
            [item for item in biq2021.read(args.data, split) if item.dark or not dark] for split in ("train", "test")
        )
        x, mos = features(train, args.cache), torch.tensor([item.mos for item in train], dtype=torch.float64)
        chosen, note = choose(x, mos)
        fitted = train_regression(x, mos, **chosen)
        pair = predict(fitted, features(test, args.cache)), np.array([item.mos for item in test])
        name = "brisque-dark, dark test split" if dark else "brisque, retrained, test split"
        cells = [f"{of(*pair):+.3f} [{', '.join(f'{v:+.3f}' for v in interval(of, *pair))}]" for of in (srcc, plcc)]
        print(f"| {name} | {len(test)} | {' | '.join(cells)} |")
        notes.append(f"{name.split(' test')[0]}: {len(train)} training pictures, {note}.")
        if dark and args.write_dark:
            content = serialize({key: value.float() for key, value in fitted.items()}, {})
            (BUNDLED / "brisque-dark.safetensors").write_bytes(content)
            notes.append(f"brisque-dark.safetensors: {len(content)} bytes, {hashlib.sha256(content).hexdigest()}")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
