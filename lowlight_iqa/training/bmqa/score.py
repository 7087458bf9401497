"""The score stage: people's scores, from the picture and a description with simulated errors of a captioner."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data import Rated
from ...distributed import Ranks
from ...metrics.bmqa.network import BmqaNetwork
from ...metrics.bmqa.slots import SLOTS, plain_sentence
from ...metrics.bmqa.towers import CompactTower
from ...metrics.bmqa.vocabulary import padded
from ..loop import unfreeze
from ..losses import plcc_loss
from ..pictures import agreement, random_crop, to_tensor
from . import descriptions
from .contrastive import mask_words, word_loss
from .material import Features, Material, cached_features
from .recipe import Recipe
from .stage import Stage


def run_score(network: BmqaNetwork, stage: Stage) -> BmqaNetwork:
    """Train everything but the captioner on people's scores; the trunk only if it has a learning rate."""
    recipe, material = stage.recipe, stage.material
    train, val = material.ratings.train, material.ratings.val
    parts = [network.image_alignment, network.text_tower, network.text_alignment, network.probe, network.text_probe]
    heads = unfreeze(network, *parts)
    cached, val_cached = cached_features(network, material, recipe, stage.folder.parent, stage.ranks)
    trunk = unfreeze_trunk(network, recipe)
    if not stage.resume:
        start_probe(network, material, cached, recipe)

    rated_rows = cached.rated
    scores = material.ratings.scores

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        chosen = [int(index) for index in rng.choice(len(train), recipe.score_batch, replace=False)]
        if recipe.trunk_rate:
            crops = [random_crop(material.album(train[index].path), recipe.score_crop, rng) for index in chosen]
            features = net.features(to_tensor(ranks.share(crops)).to(net.center.device))
        else:
            features = cached.values[[rated_rows[index] for index in ranks.share(chosen)]].to(net.center)
        # A channel is dropped in all cells together, since its values in the cells are similar.
        features = features * F.dropout(torch.ones_like(features[:, :1]), recipe.channel_dropout)
        tokens = [
            mask_words(text_of(net, train[index], material, recipe, rng), recipe.unknown, rng) for index in chosen
        ]
        text = net.text(padded(ranks.share(tokens), net.center.device))
        raw = ranks.gather(net.fuse(net.image(features), text))

        standardized = (scores[chosen] - scores.mean()) / scores.std()
        target = torch.tensor(standardized, dtype=raw.dtype, device=raw.device)
        by_plcc, by_mse = plcc_loss(raw, target), F.mse_loss(raw, target)
        words = word_loss(net, material, recipe, rng, ranks)
        figures = {"plcc": by_plcc.item(), "mse": by_mse.item(), "words": words.item()}
        return by_plcc + recipe.by_mse * by_mse + recipe.words * words, figures

    def validate(net: BmqaNetwork) -> dict[str, float]:
        # The texts omit the appearance, which follows from the score.
        known = [{k: v for k, v in material.levels[item.path].items() if k != "appearance"} for item in val]
        tokens = [net.vocabulary.encode(plain_sentence(levels)) for levels in known]
        features = features_of(net, material) if recipe.trunk_rate else val_cached.values[val_cached.rated]
        return agreement(raw_scores(net, features, tokens), val)

    rates = [(trunk, recipe.trunk_rate), (heads, recipe.score_rate)]
    return stage.train(network, rates, batch_loss, len(train) // recipe.score_batch, validate=validate)


def unfreeze_trunk(network: BmqaNetwork, recipe: Recipe) -> list[nn.Parameter]:
    """Return the trunk's parameters without a compact trunk's leading stages; unfreeze them if they have a rate."""
    trunk: Any = network.tower.trunk
    trained = list(trunk.parameters())
    if isinstance(network.tower, CompactTower) and recipe.frozen:
        trained = [p for stage in trunk.stages[recipe.frozen :] for p in stage.parameters()]
    for parameter in trained if recipe.trunk_rate else ():
        parameter.requires_grad_(True)
    return trained


def text_of(
    network: BmqaNetwork, item: Rated, material: Material, recipe: Recipe, rng: np.random.Generator
) -> list[int]:
    """Return a description of a picture as tokens: people's, or one with simulated errors of a captioner."""
    text = descriptions.tidy(item.description)
    if not text:
        rates = {name: recipe.appearance_slip if name == "appearance" else recipe.slip for name in SLOTS}
        levels = descriptions.slip(material.levels[item.path], rates, rng)
        text = descriptions.write(levels, rng, varied=bool(rng.random() < 0.4))
    return network.vocabulary.encode(text)


@torch.no_grad()
def start_probe(network: BmqaNetwork, material: Material, cached: Features, recipe: Recipe) -> None:
    """Initialize the probe by ridge regression on the current vectors: a random probe would distort the towers."""
    rng = np.random.default_rng([recipe.seed, 5])
    used = network.config.modalities
    rows = []
    for row, item in zip(cached.rated, material.ratings.train, strict=True):
        image = network.image(cached.values[row : row + 1].to(network.center))
        text = network.text(padded([text_of(network, item, material, recipe, rng)], image.device))
        rows.append(torch.cat([image * (used != "text"), text * (used != "image")], 1))
    x = torch.cat(rows).double().cpu().numpy()

    scores = material.ratings.scores
    center = x.mean(0)
    x, y = x - center, (scores - scores.mean()) / scores.std()
    ridge = 0.03 * len(x) * x.var(0).mean() + 1e-9
    solution = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    network.probe.weight.copy_(torch.from_numpy(solution)[None])
    network.probe.bias.fill_(float(-center @ solution))


@torch.inference_mode()
def features_of(network: BmqaNetwork, material: Material) -> Tensor:
    """Return features of the whole held-out pictures, (M, 1 + GRID^2, F)."""
    device = network.center.device
    val = material.ratings.val
    return torch.cat([network.features(material.album.tensor(item.path).to(device)) for item in val])


@torch.inference_mode()
def raw_scores(network: BmqaNetwork, features: Tensor, tokens: Sequence[list[int]] | None) -> np.ndarray:
    """Return raw scores with these texts, or with the captioner's if ``tokens`` is None; float64."""
    raw = []
    for row in range(len(features)):
        one = features[row : row + 1].to(network.center)
        text = tokens[row] if tokens is not None else network.caption(one)[0][0]
        raw.append(network.fuse(network.image(one), network.text(padded([text], one.device))))
    return torch.cat(raw).double().cpu().numpy()
