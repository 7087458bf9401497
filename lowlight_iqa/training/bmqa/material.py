"""Training and validation data of ``bmqa``: rated pictures, their slots, features of a frozen trunk."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...data import Rated, mle
from ...distributed import Ranks
from ...metrics.bmqa.network import BmqaNetwork
from ...metrics.bmqa.slots import SLOTS, levels_of, measure, slots_of
from ...wholefile import replacing
from ..loop import log
from ..pictures import Album, to_tensor
from ..ratings import Ratings, fingerprint, read_ratings, split_by_hash
from . import descriptions
from .recipe import Recipe


@dataclass(frozen=True)
class Material:
    """Training and validation data of a run."""

    ratings: Ratings
    album: Album
    texts: list[Rated]  # MLE's descriptions of the training scenes
    val_texts: list[Rated]
    rules: dict[str, list[float]]  # the thresholds of each slot's words
    levels: dict[Path, dict[str, int]]  # the slots of each picture

    def fingerprint(self) -> str:
        """Return a hash of the data, to check that a stage is resumed on the same data."""
        texts = [(item.path.name, item.mos, item.description) for item in (*self.texts, *self.val_texts)]
        return fingerprint([self.ratings.fingerprint(), texts, self.rules])


def read_pictures(data: Path, recipe: Recipe, album: Album) -> Ratings:
    """Read training and held-out pictures, scores on 0..1."""
    batch = max(recipe.pretrain_batch, recipe.score_batch)
    options = "--pretrain-batch and --score-batch"
    return read_ratings(recipe.dataset, data, album, at_least=batch, batch_option=options)


def read_texts(folder: Path | None) -> tuple[list[Rated], list[Rated]]:
    """Read MLE's descriptions; return those of the training scenes and those of the held-out scenes, one in five."""
    if folder is None:
        return [], []
    return split_by_hash(mle.read(folder, "train", pictures=False), parts=5)


def find_rules(train: Sequence[Rated], album: Album, recipe: Recipe) -> dict[str, list[float]]:
    """Find the thresholds at which each word is as frequent as in MLE, on random degraded pictures and on the scores.

    Those of noise are of the noise added: smoothing reduces the measured noise below that of fine texture.
    """
    rng = np.random.default_rng([recipe.seed, 3])
    values: dict[str, list[float]] = {name: [] for name in list(SLOTS)[:4]}
    for index in rng.permutation(len(train))[: recipe.calibrating]:
        made, noise = descriptions.noisy_mixture(album(train[index].path), rng)
        measured = {name: value.item() for name, value in measure(to_tensor([made])).items()}
        for name, value in {**measured, "noise": -noise}.items():
            values[name].append(value)

    rules = {name: descriptions.thresholds(column, descriptions.COUNTS[name]) for name, column in values.items()}
    rules["appearance"] = descriptions.thresholds([i.mos for i in train], descriptions.COUNTS["appearance"])
    return rules


def find_levels(items: Sequence[Rated], album: Album, rules: dict[str, list[float]]) -> dict[Path, dict[str, int]]:
    """Find the slots of each picture: from people's description, else measured, and the appearance from the score."""
    levels = {}
    for item in items:
        measured = levels_of(album.tensor(item.path), rules)
        measured["appearance"] = int(item.mos > rules["appearance"][0])
        levels[item.path] = {**measured, **slots_of(descriptions.tidy(item.description))}
    return levels


# Features of a frozen trunk


@dataclass(frozen=True)
class Features:
    """Features of pictures and of degraded copies, for the stages that freeze the trunk."""

    values: Tensor  # (M, 1 + GRID^2, F), float16
    levels: list[dict[str, int]]  # without the appearance for degraded pictures, which have no scores
    texts: list[str]  # people's descriptions, or ""

    @property
    def rated(self) -> list[int]:
        """Rows of the undegraded pictures, in the order of the rated items."""
        return [row for row, levels in enumerate(self.levels) if "appearance" in levels]


def cached_features(
    network: BmqaNetwork, material: Material, recipe: Recipe, folder: Path, ranks: Ranks
) -> tuple[Features, Features]:
    """Return features of the training and of the held-out pictures, both with degraded copies."""
    network.eval()  # batch norms must not make a picture's features depend on its neighbors
    ratings, copies, seed = material.ratings, recipe.degraded, recipe.seed
    return (
        _cached(network, ratings.train, material, copies, seed, folder / "features.pt", ranks),
        _cached(network, ratings.val, material, copies, seed + 1, folder / "held_out.pt", ranks),
    )


def _cached(
    network: BmqaNetwork, items: Sequence[Rated], material: Material, copies: int, seed: int, path: Path, ranks: Ranks
) -> Features:
    """Read features from a file if they are of the same trunk and pictures; else compute and write them."""
    facts = [[item.path.name for item in items], copies, seed, material.rules]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for value in (*network.tower.state_dict().values(), network.center, network.scale):
        digest.update(value.cpu().numpy().tobytes())
    origin = digest.hexdigest()

    def write() -> None:
        computed = compute_features(network, items, material, copies, seed)
        with replacing(path) as new:
            torch.save({**vars(computed), "origin": origin}, new)

    return ranks.make_once(path, lambda: _read(path, origin), write)


def _read(path: Path, origin: str) -> Features | None:
    """Read features from a file; None if it does not exist, is damaged or was made from other inputs."""
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        if saved["origin"] != origin:
            return None
        return Features(saved["values"], saved["levels"], saved["texts"])
    except Exception as error:  # zip, pickle and torch each raise errors of their own
        log.info("%s is damaged (%s) and computed again", path, error)
        return None


@torch.no_grad()
def compute_features(
    network: BmqaNetwork, items: Sequence[Rated], material: Material, copies: int, seed: int
) -> Features:
    """Compute features of pictures, each followed by those of its degraded copies."""
    from tqdm import tqdm

    device = network.center.device
    values, levels, texts = [], [], []
    for index, item in enumerate(tqdm(items, desc="features", unit="picture", disable=None)):
        picture = material.album(item.path)
        rng = np.random.default_rng([seed, index])
        degraded = [descriptions.as_degraded(picture, rng) for _ in range(copies)]
        values += [network.features(to_tensor([each]).to(device)).half().cpu() for each in (picture, *degraded)]
        levels += [material.levels[item.path], *(levels_of(to_tensor([each]), material.rules) for each in degraded)]
        texts += [descriptions.tidy(item.description), *[""] * copies]
    return Features(torch.cat(values), levels, texts)
