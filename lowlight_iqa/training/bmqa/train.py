"""The recipe of ``bmqa`` in four stages: pretrain, align, score, caption. docs/bmqa.md explains each of them.

A stage starts from the last one before it in the same run folder, so a stage can be omitted, as in the ablation.
"""

import json
from pathlib import Path

import torch

from ...card import Card
from ...functional.logistic import fit_logistic
from ...metrics.bmqa.metric import PAPER, Bmqa
from ...metrics.bmqa.network import BmqaNetwork
from ...metrics.bmqa.vocabulary import Vocabulary
from ...registry import get_card
from ..loop import log, start_run
from ..pictures import Album, agreement
from . import descriptions
from .caption import caption_figures, run_caption
from .contrastive import run_align, run_pretrain, srcc_of_words
from .material import Features, Material, find_levels, find_rules, read_pictures, read_texts
from .recipe import STAGES, Recipe
from .score import features_of, raw_scores, run_score
from .stage import NETWORK, Stage, new_network, read_network, standardize, write_network

RUN = {"pretrain": run_pretrain, "align": run_align, "score": run_score, "caption": run_caption}


def train_bmqa(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    stage: str,
    texts: Path | None = None,
    initial: str | None = None,
    resume: bool = False,
    device: str = "cpu",
) -> Path:
    """Train one stage and return its folder; the last stage writes the metric and returns its directory.

    A stage writes ``train.log``, ``checkpoint.pt`` and its network to a folder of its name in ``out``. ``texts`` is
    MLE's folder, of which the list MLE-training.json is read. ``initial`` is the trunk of a run's first stage: that of
    a metric with a compact trunk ("leiq") or of a training's directory, or, for a trunk of timm, its weights as
    safetensors; None: ImageNet for a compact trunk, random for one of timm. The rest is as for ``train_leiq``.
    """
    if stage not in STAGES:
        raise ValueError(f"there is no stage {stage!r}; there are: {', '.join(STAGES)}")
    folder = out / stage
    ranks = start_run(f"stage {stage}", folder, recipe, device)
    network, material = start(data, out, recipe, stage, texts, initial)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    network = RUN[stage](network, Stage(stage, folder, recipe, material, resume, ranks))

    name = PAPER.get(recipe.tower, "bmqa")
    directory = out / name if stage == "caption" else folder
    if ranks.rank == 0:
        write_network(folder / NETWORK, network, material.rules)
        if stage == "caption":
            figures, mapping = measure_all(network, material)
            log.info("held out: %s", " ".join(f"{key} {value:.4f}" for key, value in figures.items()))
            card = make_card(get_card(name), recipe, material, figures)
            Bmqa(card, network.cpu(), mapping, material.rules).save_pretrained(directory)
        log.info("wrote %s", directory)
    ranks.barrier()
    return directory


def start(
    data: Path, out: Path, recipe: Recipe, stage: str, texts: Path | None, initial: str | None
) -> tuple[BmqaNetwork, Material]:
    """Read the data and the network of the previous stage, or build a new one."""
    album = Album()
    ratings = read_pictures(data, recipe, album)
    train_texts, val_texts = read_texts(texts)

    before = [out / each / NETWORK for each in STAGES[: STAGES.index(stage)] if (out / each / NETWORK).is_file()]
    if before:
        if initial:
            raise ValueError(f"this stage starts from {before[-1]}; --initial is for the first stage of a run")
        network, rules = read_network(before[-1], recipe.modalities)
        log.info("from %s", before[-1])
    else:
        rules = find_rules(ratings.train, album, recipe)
        by_people = [descriptions.tidy(item.description) for item in (*ratings.train, *train_texts)]
        network = new_network(recipe, Vocabulary.of([*descriptions.all_words(), *by_people]), initial)
        standardize(network, ratings.train, album, trained=bool(initial))

    levels = find_levels([*ratings.train, *ratings.val], album, rules)
    counts = [len(part) for part in (ratings.train, ratings.val, train_texts, val_texts, network.vocabulary)]
    log.info("%d pictures, %d held out, %d descriptions, %d held out, %d words", *counts)
    log.info("rules %s", json.dumps(rules))
    return network, Material(ratings, album, train_texts, val_texts, rules, levels)


def measure_all(network: BmqaNetwork, material: Material) -> tuple[dict[str, float], list[float]]:
    """Return figures on held-out pictures with the captioner's words, and the mapping from raw scores to 0..1."""
    val = material.ratings.val
    features = features_of(network, material)
    raw = raw_scores(network, features, None)
    figures = agreement(raw, val)

    levels = [material.levels[item.path] for item in val]
    texts = [descriptions.tidy(item.description) for item in val]
    figures |= caption_figures(network, Features(features, levels, texts))
    if material.val_texts:
        figures["srcc of MLE's descriptions alone"] = srcc_of_words(network, material.val_texts)
    return figures, list(fit_logistic(raw, [item.mos for item in val], limits=(0, 1)))


def make_card(card: Card, recipe: Recipe, material: Material, figures: dict[str, float]) -> Card:
    """Return the card of the trained metric."""
    by = {"both": "", "image": ", scoring by the image alone", "text": ", scoring by the caption alone"}
    ratings, texts = material.ratings, material.texts
    return ratings.card(
        card,
        figures,
        summary=f"BMQA's method, trained by `lowlight-iqa train bmqa`{by[recipe.modalities]}; not the authors'.",
        trained_on=f"{len(ratings.train)} pictures of {ratings.source} (MOS), descriptions of them"
        + (f", {len(texts)} descriptions of MLE" if texts else ""),
    )
