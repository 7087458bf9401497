"""The contrastive stages, pretrain and align: a picture and its description are mapped to similar vectors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data import Rated
from ...distributed import Ranks
from ...evaluation.correlation import srcc
from ...metrics.bmqa.network import BmqaNetwork
from ...metrics.bmqa.slots import levels_of, slots_of
from ...metrics.bmqa.vocabulary import UNKNOWN, padded
from ..loop import unfreeze
from ..losses import info_nce
from ..pictures import random_crop, to_tensor
from . import descriptions
from .material import Material, cached_features
from .recipe import Recipe
from .stage import Stage


def run_pretrain(network: BmqaNetwork, stage: Stage) -> BmqaNetwork:
    """Train both towers and their alignment on random crops, half of them degraded."""
    recipe, material = stage.recipe, stage.material
    train, album = material.ratings.train, material.album
    parts = [network.tower, network.image_alignment, network.text_tower, network.text_alignment, network.text_probe]
    trained = unfreeze(network, *parts, network.temperature)

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        crops, tokens, slots = [], [], []
        for index in rng.choice(len(train), recipe.pretrain_batch, replace=False):
            crop = random_crop(album(train[index].path), recipe.pretrain_crop, rng)
            crop, text, levels = described(crop, train[index], material, rng)
            crops.append(crop)
            tokens.append(mask_words(net.vocabulary.encode(text), recipe.unknown, rng))
            slots.append(levels)
        features = net.features(to_tensor(ranks.share(crops)).to(net.center.device))
        return contrastive_loss(net, features, tokens, slots, material, recipe, rng, ranks)

    steps = len(train) // recipe.pretrain_batch
    return stage.train(network, [(trained, recipe.pretrain_rate)], batch_loss, steps, validate=words_only(material))


def described(
    crop: np.ndarray, item: Rated, material: Material, rng: np.random.Generator
) -> tuple[np.ndarray, str, dict[str, int]]:
    """Return a crop, its description and the description's slots.

    Without a description by people it is degraded half of the time and described by measurements.
    """
    text = descriptions.tidy(item.description)
    if text:
        return crop, text, slots_of(text)
    if rng.random() < 0.5:
        crop = descriptions.as_degraded(crop, rng)
    levels = levels_of(to_tensor([crop]), material.rules)
    return crop, descriptions.write(levels, rng, varied=True), levels


def run_align(network: BmqaNetwork, stage: Stage) -> BmqaNetwork:
    """Train on cached features with a frozen trunk, until the loss reaches the paper's stopping value."""
    recipe, material = stage.recipe, stage.material
    parts = [network.image_alignment, network.text_tower, network.text_alignment, network.text_probe]
    trained = unfreeze(network, *parts, network.temperature)
    cached, _ = cached_features(network, material, recipe, stage.folder.parent, stage.ranks)
    size = min(recipe.align_batch, len(cached.levels) // stage.ranks.world * stage.ranks.world)

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        rows = [int(row) for row in rng.choice(len(cached.levels), size, replace=False)]
        texts = [cached.texts[row] or descriptions.write(cached.levels[row], rng, varied=True) for row in rows]
        tokens = [mask_words(net.vocabulary.encode(text), recipe.unknown, rng) for text in texts]
        slots = [cached.levels[row] for row in rows]
        features = cached.values[ranks.share(rows)].to(net.center)
        return contrastive_loss(net, features, tokens, slots, material, recipe, rng, ranks)

    return stage.train(
        network,
        [(trained, recipe.align_rate)],
        batch_loss,
        len(cached.levels) // size,
        validate=words_only(material),
        stop=lambda figures: figures["pairs"] <= recipe.stop,
    )


def contrastive_loss(
    network: BmqaNetwork,
    features: Tensor,
    tokens: list[list[int]],
    slots: list[dict[str, int]],
    material: Material,
    recipe: Recipe,
    rng: np.random.Generator,
    ranks: Ranks,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of pairs and of MLE's descriptions; ``features`` are this rank's shard, the lists the batch."""
    pairs = pair_loss(network, features, ranks.share(tokens), slots, ranks)
    words = word_loss(network, material, recipe, rng, ranks)
    return pairs + recipe.words * words, {"pairs": pairs.item(), "words": words.item()}


def pair_loss(
    network: BmqaNetwork, features: Tensor, tokens: list[list[int]], slots: list[Any], ranks: Ranks
) -> Tensor:
    """Return the symmetric InfoNCE of a whole batch; pairs with the same slots are not negatives of each other."""
    images = ranks.gather(network.image(features))
    texts = ranks.gather(network.text(padded(tokens, features.device)))
    same = torch.tensor([[one == other for other in slots] for one in slots], device=features.device)
    return info_nce(images, texts, network.temperature.exp().clamp_min(0.01), same)


def word_loss(
    network: BmqaNetwork, material: Material, recipe: Recipe, rng: np.random.Generator, ranks: Ranks
) -> Tensor:
    """Return the MSE of MLE's standardized scores predicted from the descriptions; 0 if there are no descriptions."""
    if not material.texts:
        return network.center.new_zeros(())
    scores = np.array([item.mos for item in material.texts])
    rows = rng.choice(len(scores), recipe.texts)
    texts = [network.vocabulary.encode(descriptions.tidy(material.texts[row].description)) for row in rows]
    tokens = [mask_words(text, recipe.unknown, rng) for text in texts]
    raw = ranks.gather(scores_of_texts(network, ranks.share(tokens)))
    target = torch.tensor((scores[rows] - scores.mean()) / scores.std(), dtype=raw.dtype, device=raw.device)
    return F.mse_loss(raw, target)


def mask_words(tokens: list[int], share: float, rng: np.random.Generator) -> list[int]:
    """Replace a share of the tokens by the unknown token, since users' texts have unknown words."""
    return [UNKNOWN if token > UNKNOWN and rng.random() < share else token for token in tokens]


def scores_of_texts(network: BmqaNetwork, tokens: Sequence[Sequence[int]]) -> Tensor:
    """Return raw scores (N,) predicted from texts only."""
    return network.text_probe(network.text(padded(tokens, network.center.device)))[:, 0]  # type: ignore[no-any-return]


def words_only(material: Material) -> Callable[[BmqaNetwork], Mapping[str, float]] | None:
    """Return the validation function of the contrastive stages; None without held-out descriptions."""
    if not material.val_texts:
        return None
    return lambda network: {"words_srcc": srcc_of_words(network, material.val_texts)}


@torch.inference_mode()
def srcc_of_words(network: BmqaNetwork, items: Sequence[Rated]) -> float:
    """Return the SRCC of people's scores and those predicted from descriptions only."""
    tokens = [network.vocabulary.encode(descriptions.tidy(item.description)) for item in items]
    return srcc(scores_of_texts(network, tokens).double().cpu().numpy(), [item.mos for item in items])
