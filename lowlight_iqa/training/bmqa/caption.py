"""The caption stage: the captioner, on cached features of pictures and of degraded copies."""

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
from ..loop import unfreeze
from . import descriptions
from .material import Features, Material, cached_features
from .recipe import Recipe
from .stage import Stage


def run_caption(network: BmqaNetwork, stage: Stage) -> BmqaNetwork:
    """Train the captioner; the appearance of degraded pictures is unknown and not trained on."""
    recipe, material = stage.recipe, stage.material
    trained = unfreeze(network, network.captioner)
    cached, val_cached = cached_features(network, material, recipe, stage.folder.parent, stage.ranks)
    size = min(recipe.caption_batch, len(cached.levels) // stage.ranks.world * stage.ranks.world)

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        rows = [int(row) for row in rng.choice(len(cached.levels), size, replace=False)]
        tokens, known = targets(net, cached, rows, rng)
        shard = ranks.share(range(size))
        features = cached.values[[rows[i] for i in shard]].to(net.center)
        tokens, shard_known = tokens[shard].to(features.device), known[shard].to(features)
        logits, attention = net.captioner(features, tokens, recipe.dropout)

        losses = F.cross_entropy(logits.mT, tokens, reduction="none")  # (N, T)
        by_words = ranks.gather((losses * shard_known).sum(1)).sum() / known.to(features).sum()
        by_cells = ranks.gather(unattended(attention, tokens)).mean()
        wording = wording_loss(net, material, recipe, rng, ranks)
        figures = {"by_words": by_words.item(), "by_cells": by_cells.item(), "wording": wording.item()}
        return by_words + recipe.attend * by_cells + recipe.wording * wording, figures

    def validate(net: BmqaNetwork) -> dict[str, float]:
        return caption_figures(net, val_cached)

    steps = len(cached.levels) // size
    return stage.train(network, [(trained, recipe.caption_rate)], batch_loss, steps, validate=validate)


def unattended(attention: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean squared distance (N,) from 1 of each cell's attention (N, T, 1 + GRID^2), summed over words.

    The attention to the whole picture, the first position, is spread over all cells.
    """
    mask = (tokens != PAD).to(attention)[..., None]  # (N, T, 1)
    cells = attention[..., 1:] + attention[..., :1] / (GRID * GRID)
    return (1 - (cells * mask).sum(1)).square().mean(1)


def wording_loss(
    network: BmqaNetwork, material: Material, recipe: Recipe, rng: np.random.Generator, ranks: Ranks
) -> Tensor:
    """Return the cross-entropy of MLE's descriptions given features of 0; 0 if there are no descriptions."""
    if not material.texts:
        return network.center.new_zeros(())
    rows = rng.choice(len(material.texts), recipe.texts)
    texts = [network.vocabulary.encode(descriptions.tidy(material.texts[row].description)) for row in rows]
    tokens = padded(ranks.share(texts), network.center.device)
    zeros = network.center.new_zeros(len(tokens), 1 + GRID * GRID, len(network.center))
    logits, _ = network.captioner(zeros, tokens, recipe.dropout)
    losses = F.cross_entropy(logits.mT, tokens, reduction="none") * (tokens != PAD)
    total: Tensor = ranks.gather(losses.sum(1)).sum()
    return total / sum(len(text) for text in texts)


def targets(
    network: BmqaNetwork, cached: Features, rows: Sequence[int], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return target tokens (N, T) of pictures, and a mask of the known ones: not a degraded picture's appearance."""
    presenting = network.vocabulary.encode("presenting")[0]
    texts, known = [], []
    for row in rows:
        levels = cached.levels[row]
        complete = "appearance" in levels
        filled = levels if complete else {**levels, "appearance": int(rng.integers(2))}
        tokens = network.vocabulary.encode(cached.texts[row] or descriptions.write(filled, rng))
        count = len(tokens) if complete else tokens.index(presenting) + 1
        texts.append(tokens)
        known.append([1] * count + [0] * (len(tokens) - count))
    return padded(texts), padded(known)


@torch.inference_mode()
def caption_figures(network: BmqaNetwork, features: Features) -> dict[str, float]:
    """Return the share of captions with the right word of each slot, and the top-5 accuracy of words."""
    right: dict[str, list[bool]] = {name: [] for name in SLOTS}
    top_five = []
    rng = np.random.default_rng(0)
    for start in range(0, len(features.levels), 16):
        rows = range(start, min(start + 16, len(features.levels)))
        values = features.values[list(rows)].to(network.center)
        for row, (caption, _) in zip(rows, network.caption(values), strict=True):
            captioned = slots_of(network.vocabulary.decode(caption))
            for name, level in features.levels[row].items():
                right[name].append(captioned.get(name) == level)

        tokens, known = targets(network, features, rows, rng)
        logits, _ = network.captioner(values, tokens.to(values.device))
        hits = (logits.topk(5, 2).indices.cpu() == tokens[..., None]).any(2)
        top_five += hits[known.bool()].tolist()
    figures = {name: float(np.mean(matches)) for name, matches in right.items() if matches}
    return {**figures, "top_5": float(np.mean(top_five))}
