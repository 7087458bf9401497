"""The caption stage: the captioner, on cached features of pictures and of degraded copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...distributed import Ranks
from ...metrics.bmqa.network import BmqaNetwork
from ...metrics.bmqa.slots import SLOTS, slots_of
from ...metrics.bmqa.towers import GRID
from ...metrics.bmqa.vocabulary import PAD, padded
from . import descriptions
from .material import Features, Material, cached_features
from .recipe import Recipe
from .stage import Stage, unfreeze


def run_caption(network: BmqaNetwork, stage: Stage) -> BmqaNetwork:
    """Train the captioner; of degraded pictures nobody said how natural they look."""
    recipe, material = stage.recipe, stage.material
    trained = unfreeze(network, network.captioner)
    cached, val_cached = cached_features(network, material, recipe, stage.folder.parent, stage.ranks)
    size = min(recipe.caption_batch, len(cached.levels) // stage.ranks.world * stage.ranks.world)

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        rows = [int(row) for row in rng.choice(len(cached.levels), size, replace=False)]
        tokens, asked = targets(net, cached, rows, rng)
        mine = ranks.share(range(size))
        features = cached.values[[rows[i] for i in mine]].to(net.center)
        tokens, mine_asked = tokens[mine].to(features.device), asked[mine].to(features)
        logits, attended = net.captioner(features, tokens, recipe.dropout)

        losses = F.cross_entropy(logits.mT, tokens, reduction="none")  # (N, T)
        by_words = ranks.gather((losses * mine_asked).sum(1)).sum() / asked.to(features).sum()
        by_cells = ranks.gather(unattended(attended, tokens)).mean()
        wording = wording_loss(net, material, recipe, rng, ranks)
        figures = {"by_words": by_words.item(), "by_cells": by_cells.item(), "wording": wording.item()}
        return by_words + recipe.attend * by_cells + recipe.wording * wording, figures

    def validate(net: BmqaNetwork) -> dict[str, float]:
        return caption_figures(net, val_cached)

    steps = len(cached.levels) // size
    return stage.train(network, [(trained, recipe.caption_rate)], batch_loss, steps, validate=validate)


def unattended(attended: Tensor, tokens: Tensor) -> Tensor:
    """Return how far the attention (N, T, 1 + GRID^2), summed over the words, is from 1 in each cell; (N,).

    The share of the whole picture, the first, is spread over all cells.
    """
    said = (tokens != PAD).to(attended)[..., None]  # (N, T, 1)
    cells = attended[..., 1:] + attended[..., :1] / (GRID * GRID)
    return (1 - (cells * said).sum(1)).square().mean(1)


def wording_loss(
    network: BmqaNetwork, material: Material, recipe: Recipe, rng: np.random.Generator, ranks: Ranks
) -> Tensor:
    """Return the cross-entropy of MLE's descriptions, from features that say nothing; 0 where there are none."""
    if not material.texts:
        return network.center.new_zeros(())
    rows = rng.choice(len(material.texts), recipe.texts)
    texts = [network.vocabulary.encode(descriptions.tidy(material.texts[row].description)) for row in rows]
    tokens = padded(ranks.share(texts), network.center.device)
    nothing = network.center.new_zeros(len(tokens), 1 + GRID * GRID, len(network.center))
    logits, _ = network.captioner(nothing, tokens, recipe.dropout)
    losses = F.cross_entropy(logits.mT, tokens, reduction="none") * (tokens != PAD)
    total: Tensor = ranks.gather(losses.sum(1)).sum()
    return total / sum(len(text) for text in texts)


def targets(
    network: BmqaNetwork, cached: Features, rows: Sequence[int], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return tokens (N, T) to say of pictures, and which of them are asked for: not a degraded one's appearance."""
    presenting = network.vocabulary.encode("presenting")[0]
    texts, asked = [], []
    for row in rows:
        levels = cached.levels[row]
        known = "appearance" in levels
        filled = levels if known else {**levels, "appearance": int(rng.integers(2))}
        tokens = network.vocabulary.encode(cached.texts[row] or descriptions.write(filled, rng))
        until = len(tokens) if known else tokens.index(presenting) + 1
        texts.append(tokens)
        asked.append([1] * until + [0] * (len(tokens) - until))
    return padded(texts), padded(asked)


@torch.inference_mode()
def caption_figures(network: BmqaNetwork, features: Features) -> dict[str, float]:
    """Return the share of captions with a slot's right word, and of words that are among the first five guesses."""
    right: dict[str, list[bool]] = {name: [] for name in SLOTS}
    first_five = []
    rng = np.random.default_rng(0)
    for start in range(0, len(features.levels), 16):
        rows = range(start, min(start + 16, len(features.levels)))
        values = features.values[list(rows)].to(network.center)
        for row, (tokens, _) in zip(rows, network.caption(values), strict=True):
            found = slots_of(network.vocabulary.decode(tokens))
            for name, level in features.levels[row].items():
                right[name].append(found.get(name) == level)

        wanted, asked = targets(network, features, rows, rng)
        logits, _ = network.captioner(values, wanted.to(values.device))
        among = (logits.topk(5, 2).indices.cpu() == wanted[..., None]).any(2)
        first_five += among[asked.bool()].tolist()
    figures = {name: float(np.mean(hits)) for name, hits in right.items() if hits}
    return {**figures, "top_5": float(np.mean(first_five))}
