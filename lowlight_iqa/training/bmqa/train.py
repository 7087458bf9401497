"""The recipe of ``bmqa`` in four stages: pretrain, align, score, caption. docs/bmqa.md says what each is for.

A stage starts from the last one before it in the same run folder, so a stage can be left out, as the ablation does.
Texts are people's where the data have them, otherwise made (``descriptions``); MLE's descriptions, which come without
pictures, teach the text tower what words say of the score.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from ...card import Card
from ...data import load, mle
from ...data.biq2021 import held_out
from ...data.rated import Rated
from ...distributed import Ranks
from ...evaluation.correlation import srcc
from ...functional.logistic import fit_logistic
from ...metrics.bmqa.metric import PAPER, Bmqa
from ...metrics.bmqa.network import BmqaNetwork, Config, paper_config
from ...metrics.bmqa.slots import SLOTS, levels_of, measure, plain_sentence, slots_of
from ...metrics.bmqa.towers import GRID
from ...metrics.bmqa.vocabulary import PAD, UNKNOWN, Vocabulary, padded
from ...registry import find
from ...weights.files import load_strictly, serialize
from ..loop import Schedule, log, start_log, train
from ..losses import info_nce, plcc_loss
from ..pictures import Album, agreement, random_crop, starting_trunk, to_tensor
from . import descriptions

STAGES = ("pretrain", "align", "score", "caption")
DATASETS = {
    "biq2021": ("train", 1.0),
    "mle": ("train", 10.0),
    "mliq": ("all", 1.0),
    "csv": ("all", 1.0),
}  # split, scale
NETWORK = "network.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; each stage has its own epochs, batch and rate."""

    dataset: str = "biq2021"  # or "mle", "mliq", "csv", whose descriptions are people's
    tower: str = "lite2"  # or a trunk of timm: "resnet50", "vit_base_patch32_224", "convnext_base"
    text: str = "transformer"  # or "rnn", "bow"
    modalities: str = "both"  # what the score is made of; "image" and "text" for the ablation
    pretrain_epochs: int = 2  # contrastive, the trunk moves; the paper: 50 on MS-COCO
    pretrain_batch: int = 48
    pretrain_crop: int = 256
    pretrain_rate: float = 1e-4
    align_epochs: int = 20  # contrastive, the trunk is kept
    align_batch: int = 256
    align_rate: float = 5e-4
    stop: float = 0.8  # mean contrastive loss of an epoch at which align ends; the paper's, for batches of 256
    score_epochs: int = 6  # on people's scores, everything moves but the captioner
    score_batch: int = 64
    score_crop: int = 320
    score_rate: float = 3e-4
    trunk_rate: float = 0.0  # of the score stage; 0 keeps the trunk and takes whole pictures' features, in minutes
    frozen: int = 3  # leading stages of a compact trunk that are kept in the score stage
    channel_dropout: float = 0.3  # of the image features in the score stage
    caption_epochs: int = 24  # the captioner, on kept features
    caption_batch: int = 64
    caption_rate: float = 1e-3
    degraded: int = 1  # degraded copies of each picture that align and caption see
    calibrating: int = 600  # degraded pictures on which the words' thresholds are found
    slip: float = 0.1  # chance of a neighboring word in the score stage, as a captioner errs
    appearance_slip: float = 0.3  # the same for the appearance, which follows from the score itself
    unknown: float = 0.1  # share of words hidden from the text tower
    texts: int = 32  # MLE's descriptions of a step
    words: float = 0.1  # weight of their scores, told from them alone
    by_mse: float = 0.25  # weight of the MSE of standardized scores beside the PLCC loss
    attend: float = 1.0  # weight of the doubly stochastic attention
    wording: float = 0.1  # weight of MLE's descriptions in the caption stage, told of no picture
    dropout: float = 0.5  # before the captioner's words
    weight_decay: float = 0.05
    warmup: int = 50  # steps
    average: float = 0.98  # decay of the averaged weights, the ones that are kept
    seed: int = 0


@dataclass(frozen=True)
class Material:
    """What a run learns from and is checked on."""

    fitting: list[Rated]
    checking: list[Rated]
    album: Album
    rules: dict[str, list[float]]  # the thresholds of each slot's words
    levels: dict[Path, dict[str, int]]  # the slots of each picture
    said: list[Rated]  # MLE's descriptions, of scenes to learn from
    said_held: list[Rated]


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
    """Train one stage; the last one writes the metric.

    Args:
        data: the folder (for "csv", the file) of ``recipe.dataset``.
        out: folder of the run; a stage writes ``train.log``, ``checkpoint.pt`` and its network to a folder of its name.
        recipe: the numbers.
        stage: one of ``STAGES``; it starts from the last stage before it that is in ``out``.
        texts: MLE's folder, of which the list MLE-training.json is read; None does without.
        initial: for the first stage of a run, whose trunk to start from: a metric with a compact trunk ("leiq"), a
            directory that training such a one has written, or, for a trunk of timm, its weights as safetensors. None:
            ImageNet for a compact trunk, random for one of timm.
        resume: go on from the stage's checkpoint.
        device: where to compute.

    Returns:
        The stage's folder; of the last stage, the directory for ``create_metric(..., weights=...)``.

    Raises:
        FileNotFoundError: the data are not complete; nothing to resume from.
        ValueError: no such stage or data set; fewer pictures than a batch; the checkpoint is of another schedule.
    """
    if stage not in STAGES:
        raise ValueError(f"there is no stage {stage!r}; there are: {', '.join(STAGES)}")
    ranks = Ranks.join(device)
    folder = out / stage
    start_log(folder, ranks)
    torch.manual_seed(recipe.seed)
    log.info("stage %s, recipe %s", stage, json.dumps(asdict(recipe)))
    before = [out / each / NETWORK for each in STAGES[: STAGES.index(stage)] if (out / each / NETWORK).is_file()]
    fitting, checking, album = read_pictures(data, recipe)
    said = [item for item in mle.read(texts, "train", pictures=False)] if texts else []
    said, said_held = ([item for item in said if held_out(item, 5) == held] for held in (False, True))
    if before:
        if initial:
            raise ValueError(f"{before[-1]} is there to start from; --initial is for the first stage of a run")
        network, rules = read_network(before[-1])
        network = with_modalities(network, recipe.modalities)
        log.info("from %s", before[-1])
    else:
        rules = find_rules(fitting, album, recipe)
        words = [*descriptions.all_words(), *(descriptions.tidy(item.description) for item in (*fitting, *said))]
        network = new_network(recipe, Vocabulary.of(words), initial)
        standardize(network, fitting, album)
    material = Material(
        fitting, checking, album, rules, find_levels([*fitting, *checking], album, rules), said, said_held
    )
    log.info("%d pictures, %d held out, %d descriptions, %d held out, %d words, rules %s", len(fitting), len(checking),
             len(said), len(said_held), len(network.vocabulary), json.dumps(rules))  # fmt: skip
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    run = {"pretrain": run_pretrain, "align": run_align, "score": run_score, "caption": run_caption}[stage]
    network = run(network, material, recipe, folder, resume, ranks)
    directory = folder
    if ranks.rank == 0:
        write_network(folder / NETWORK, network, rules)
        if stage == "caption":
            name = PAPER.get(recipe.tower, "bmqa")
            figures, mapping = measure_all(network, material)
            log.info("held out: %s", " ".join(f"{key} {value:.4f}" for key, value in figures.items()))
            card = make_card(find(name)[1], recipe, material, figures)
            Bmqa.from_network(card, network.cpu(), mapping, rules).save_pretrained(out / name)
    if stage == "caption":
        directory = out / PAPER.get(recipe.tower, "bmqa")
    ranks.barrier()
    log.info("wrote %s", directory)
    return directory


# What is learned from


def read_pictures(data: Path, recipe: Recipe) -> tuple[list[Rated], list[Rated], Album]:
    """The pictures to learn from and those held out, scores on 0..1."""
    if recipe.dataset not in DATASETS:
        raise ValueError(f"bmqa learns from {', '.join(DATASETS)}, not from {recipe.dataset!r}")
    split, scale = DATASETS[recipe.dataset]
    rated = [replace(item, mos=item.mos / scale) for item in load(recipe.dataset, data, split).items]
    fitting, checking = ([item for item in rated if held_out(item) == held] for held in (False, True))
    needed = max(recipe.pretrain_batch, recipe.score_batch)
    if len(fitting) < needed or len(checking) < 4:
        raise ValueError(
            f"{data} has {len(fitting)} pictures to learn from and {len(checking)} held out, needed are a batch "
            f"({needed}) and 4; lower --pretrain-batch and --score-batch or give more pictures"
        )
    return fitting, checking, Album()


def find_rules(fitting: Sequence[Rated], album: Album, recipe: Recipe) -> dict[str, list[float]]:
    """Thresholds at which each word comes as often as in MLE: on random degraded pictures, and on the scores."""
    rng = np.random.default_rng([recipe.seed, 3])
    chosen = rng.permutation(len(fitting))[: recipe.calibrating]
    found: dict[str, list[float]] = {name: [] for name in list(SLOTS)[:4]}
    for place in chosen:
        made = descriptions.as_degraded(album(fitting[place].path), rng, "mixture")
        for name, value in measure(to_tensor([made])).items():
            found[name].append(value.item())
    rules = {name: descriptions.thresholds(values, descriptions.COUNTS[name]) for name, values in found.items()}
    rules["appearance"] = descriptions.thresholds([i.mos for i in fitting], descriptions.COUNTS["appearance"])
    return rules


def find_levels(items: Sequence[Rated], album: Album, rules: dict[str, list[float]]) -> dict[Path, dict[str, int]]:
    """The slots of each picture: what people said of it, or measured and, the appearance, from the score."""
    levels = {}
    for item in items:
        made = levels_of(to_tensor([album(item.path)]), rules)
        made["appearance"] = int(item.mos > rules["appearance"][0])
        levels[item.path] = {**made, **slots_of(descriptions.tidy(item.description))}
    return levels


@dataclass(frozen=True)
class Kept:
    """Features of pictures and of degraded copies, for the stages that keep the trunk."""

    features: Tensor  # (M, 1 + GRID^2, F), float16
    levels: list[dict[str, int]]  # without the appearance for degraded pictures: no one scored them
    texts: list[str]  # people's, or ""

    @property
    def rated(self) -> list[int]:
        """The pictures that are not degraded, in the order of the items they were made from."""
        return [row for row, levels in enumerate(self.levels) if "appearance" in levels]


@torch.no_grad()
def keep(network: BmqaNetwork, items: Sequence[Rated], material: Material, copies: int, seed: int, path: Path) -> Kept:
    """Features of pictures, each followed by so many degraded copies; in a file, as long as the trunk is the same."""
    from tqdm import tqdm

    facts = [[item.path.name for item in items], copies, seed, material.rules]
    mark = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for value in (*network.tower.state_dict().values(), network.center, network.scale):
        mark.update(value.cpu().numpy().tobytes())
    if path.is_file():
        saved = torch.load(path, weights_only=True)
        if saved.pop("mark") == mark.hexdigest():
            return Kept(**saved)
    device = network.center.device
    features, levels, texts = [], [], []
    for place, item in enumerate(tqdm(items, desc="features", unit="picture", disable=None)):
        picture = material.album(item.path)
        rng = np.random.default_rng([seed, place])
        shown = [picture, *(descriptions.as_degraded(picture, rng) for _ in range(copies))]
        features += [network.features(to_tensor([each]).to(device)).half().cpu() for each in shown]
        made = [levels_of(to_tensor([each]), material.rules) for each in shown[1:]]
        levels += [material.levels[item.path], *made]
        texts += [descriptions.tidy(item.description), *[""] * copies]
    kept = Kept(torch.cat(features), levels, texts)
    new = path.with_suffix(f".{os.getpid()}")
    torch.save({**vars(kept), "mark": mark.hexdigest()}, new)
    new.replace(path)
    return kept


def keep_all(network: BmqaNetwork, material: Material, recipe: Recipe, folder: Path) -> tuple[Kept, Kept]:
    """Features of the pictures to learn from and of those held out, each with degraded copies."""
    fitting, held = folder.parent / "features.pt", folder.parent / "held_out.pt"
    return (
        keep(network, material.fitting, material, recipe.degraded, recipe.seed, fitting),
        keep(network, material.checking, material, recipe.degraded, recipe.seed + 1, held),
    )


def hide(tokens: list[int], share: float, rng: np.random.Generator) -> list[int]:
    """Tokens of which some words are unknown, as some of a user's words will be."""
    return [UNKNOWN if token > UNKNOWN and rng.random() < share else token for token in tokens]


# The network


def new_network(recipe: Recipe, vocabulary: Vocabulary, initial: str | None) -> BmqaNetwork:
    """An untrained network around a trunk that is not."""
    compact = recipe.tower.startswith("lite")
    config = Config(recipe.tower) if compact else paper_config(recipe.tower)
    network = BmqaNetwork(replace(config, text=recipe.text, modalities=recipe.modalities), vocabulary)
    trunk = network.tower.trunk
    if compact:
        load_strictly(trunk, starting_trunk(recipe.tower, initial or "").state_dict())
    elif initial:
        with safe_open(initial, framework="pt") as file:
            load_strictly(trunk, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118  (no mapping)
    return network


@torch.no_grad()
def standardize(network: BmqaNetwork, fitting: Sequence[Rated], album: Album, count: int = 300) -> None:
    """Center and scale the tower's features by those of some pictures."""
    some = fitting[:: max(1, len(fitting) // count)]
    features = torch.cat([network.tower(to_tensor([album(item.path)]))[0] for item in some])
    network.center.copy_(features.mean(0))
    network.scale.copy_(features.std(0) + 1e-3)


def write_network(path: Path, network: BmqaNetwork, rules: Mapping[str, list[float]]) -> None:
    """Keep what a stage has made, for the next one."""
    facts = {"network": asdict(network.config), "words": list(network.vocabulary.words), "rules": rules}
    path.write_bytes(serialize(network.state_dict(), facts))


def read_network(path: Path) -> tuple[BmqaNetwork, dict[str, list[float]]]:
    """What ``write_network`` wrote."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    network = BmqaNetwork(Config(**facts["network"]), Vocabulary(facts["words"]))
    load_strictly(network, tensors)
    return network, facts["rules"]


def with_modalities(network: BmqaNetwork, modalities: str) -> BmqaNetwork:
    """The network, scoring by these."""
    network.config = replace(network.config, modalities=modalities)
    return network


def free(network: BmqaNetwork, *parts: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    """Let these parts move and no others; their parameters."""
    network.requires_grad_(False)
    moving = [p for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]
    for parameter in moving:
        parameter.requires_grad_(True)
    return moving


def schedule_of(recipe: Recipe, epochs: int, steps: int) -> Schedule:
    """The stage's schedule."""
    return Schedule(epochs, max(1, steps), recipe.warmup, recipe.weight_decay, recipe.average, recipe.seed)


# Stages


def word_loss(net: BmqaNetwork, material: Material, recipe: Recipe, rng: np.random.Generator, ranks: Ranks) -> Tensor:
    """MSE of MLE's standardized scores, told from the descriptions alone; 0 where there are none."""
    if not material.said:
        return net.center.new_zeros(())
    scores = np.array([item.mos for item in material.said])
    rows = rng.choice(len(scores), recipe.texts)
    tokens = [
        hide(net.vocabulary.encode(descriptions.tidy(material.said[i].description)), recipe.unknown, rng) for i in rows
    ]
    raw = ranks.gather(told(net, ranks.share(tokens)))
    wanted = torch.tensor((scores[rows] - scores.mean()) / scores.std(), dtype=raw.dtype, device=raw.device)
    return F.mse_loss(raw, wanted)


def told(network: BmqaNetwork, tokens: Sequence[Sequence[int]]) -> Tensor:
    """Raw scores (N,) from texts alone."""
    return network.text_probe(network.text(padded(tokens, network.center.device)))[:, 0]  # type: ignore[no-any-return]


def pair_loss(net: BmqaNetwork, features: Tensor, tokens: list[list[int]], alike: list[Any], ranks: Ranks) -> Tensor:
    """Symmetric InfoNCE of the whole batch; ``features`` and ``tokens`` are this rank's, ``alike`` all pairs' slots."""
    images = ranks.gather(net.image(features))
    texts = ranks.gather(net.text(padded(tokens, features.device)))
    same = torch.tensor([[one == other for other in alike] for one in alike], device=features.device)
    return info_nce(images, texts, net.temperature.exp().clamp_min(0.01), same)


def run_pretrain(
    network: BmqaNetwork, material: Material, recipe: Recipe, folder: Path, resume: bool, ranks: Ranks
) -> BmqaNetwork:
    """Contrastive: both towers and their alignment on random crops, half of them degraded."""
    moving = free(network, network.tower, network.image_alignment, network.text_tower, network.text_alignment,
                  network.text_probe, network.temperature)  # fmt: skip

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        crops, tokens, alike = [], [], []
        for place in rng.choice(len(material.fitting), recipe.pretrain_batch, replace=False):
            item = material.fitting[place]
            crop = random_crop(material.album(item.path), recipe.pretrain_crop, rng)
            text = descriptions.tidy(item.description)
            if not text:
                crop = descriptions.as_degraded(crop, rng) if rng.random() < 0.5 else crop
                levels = levels_of(to_tensor([crop]), material.rules)
                text = descriptions.write(levels, rng, free=True)
            crops.append(crop)
            tokens.append(hide(net.vocabulary.encode(text), recipe.unknown, rng))
            alike.append(slots_of(text) if item.description else levels)
        features = net.features(to_tensor(ranks.share(crops)).to(net.center.device))
        pairs = pair_loss(net, features, ranks.share(tokens), alike, ranks)
        words = word_loss(net, material, recipe, rng, ranks)
        return pairs + recipe.words * words, {"pairs": pairs.item(), "words": words.item()}

    schedule = schedule_of(recipe, recipe.pretrain_epochs, len(material.fitting) // recipe.pretrain_batch)
    rates = [(moving, recipe.pretrain_rate)]
    return train(
        network, rates, batch_loss, schedule, folder, resume=resume, validate=words_only(material), ranks=ranks
    )


def run_align(
    network: BmqaNetwork, material: Material, recipe: Recipe, folder: Path, resume: bool, ranks: Ranks
) -> BmqaNetwork:
    """Contrastive on low-light pairs until the loss is as low as the paper stops at; the trunk is kept."""
    moving = free(network, network.image_alignment, network.text_tower, network.text_alignment, network.text_probe,
                  network.temperature)  # fmt: skip
    kept, _ = keep_all(network, material, recipe, folder)
    size = min(recipe.align_batch, len(kept.levels) // ranks.world * ranks.world)

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        rows = [int(row) for row in rng.choice(len(kept.levels), size, replace=False)]
        texts = [kept.texts[row] or descriptions.write(kept.levels[row], rng, free=True) for row in rows]
        tokens = [hide(net.vocabulary.encode(text), recipe.unknown, rng) for text in texts]
        features = kept.features[ranks.share(rows)].to(net.center)
        pairs = pair_loss(net, features, ranks.share(tokens), [kept.levels[row] for row in rows], ranks)
        words = word_loss(net, material, recipe, rng, ranks)
        return pairs + recipe.words * words, {"pairs": pairs.item(), "words": words.item()}

    return train(
        network,
        [(moving, recipe.align_rate)],
        batch_loss,
        schedule_of(recipe, recipe.align_epochs, len(kept.levels) // size),
        folder,
        resume=resume,
        validate=words_only(material),
        stop=lambda figures: figures["pairs"] <= recipe.stop,
        ranks=ranks,
    )


def words_only(material: Material) -> Any:
    """The check of the contrastive stages: SRCC of MLE's held-out scenes from their descriptions alone."""
    return (lambda network: {"words_srcc": srcc_of_words(network, material.said_held)}) if material.said_held else None


@torch.inference_mode()
def srcc_of_words(network: BmqaNetwork, said: Sequence[Rated]) -> float:
    """SRCC with people's scores of what descriptions alone tell."""
    tokens = [network.vocabulary.encode(descriptions.tidy(item.description)) for item in said]
    return srcc(told(network, tokens).double().cpu().numpy(), [item.mos for item in said])


def run_score(
    network: BmqaNetwork, material: Material, recipe: Recipe, folder: Path, resume: bool, ranks: Ranks
) -> BmqaNetwork:
    """People's scores; descriptions with the mistakes that a captioner makes. Everything moves but the captioner."""
    fitting = material.fitting
    scores = np.array([item.mos for item in fitting])
    rates = {name: recipe.appearance_slip if name == "appearance" else recipe.slip for name in SLOTS}
    parts = [network.image_alignment, network.text_tower, network.text_alignment, network.probe, network.text_probe]
    heads = free(network, *parts)
    trunk = list(network.tower.trunk.parameters())
    if network.config.tower.startswith("lite"):
        kept: Any = network.tower.trunk
        fixed = {id(p) for part in (kept.stem, *kept.stages[: recipe.frozen]) for p in part.parameters()}
        trunk = [p for p in trunk if not (recipe.frozen and id(p) in fixed)]
    for parameter in trunk if recipe.trunk_rate else ():
        parameter.requires_grad_(True)
    kept, held = keep_all(network, material, recipe, folder)
    whole, shown = kept.rated, held.features[held.rated]
    if not resume:
        start_probe(network, material, kept, recipe, rates)

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        rows = [int(row) for row in rng.choice(len(fitting), recipe.score_batch, replace=False)]
        if recipe.trunk_rate:
            crops = [random_crop(material.album(fitting[row].path), recipe.score_crop, rng) for row in rows]
            features = net.features(to_tensor(ranks.share(crops)).to(net.center.device))
        else:
            features = kept.features[[whole[row] for row in ranks.share(rows)]].to(net.center)
        # A channel is dropped in all places: the others know what it says in one.
        features = features * F.dropout(torch.ones_like(features[:, :1]), recipe.channel_dropout)
        tokens = [hide(spoken(net, fitting[row], material, rates, rng), recipe.unknown, rng) for row in rows]
        text = net.text(padded(ranks.share(tokens), net.center.device))
        raw = ranks.gather(net.fuse(net.image(features), text))
        wanted = torch.tensor((scores[rows] - scores.mean()) / scores.std(), dtype=raw.dtype, device=raw.device)
        by_plcc, by_mse = plcc_loss(raw, wanted), F.mse_loss(raw, wanted)
        words = word_loss(net, material, recipe, rng, ranks)
        figures = {"plcc": by_plcc.item(), "mse": by_mse.item(), "words": words.item()}
        return by_plcc + recipe.by_mse * by_mse + recipe.words * words, figures

    def validate(net: BmqaNetwork) -> dict[str, float]:
        # The appearance is left out of the texts: it follows from the score.
        known = [{k: v for k, v in material.levels[i.path].items() if k != "appearance"} for i in material.checking]
        tokens = [net.vocabulary.encode(plain_sentence(levels)) for levels in known]
        features = features_of(net, material) if recipe.trunk_rate else shown
        return agreement(scored(net, features, tokens), material.checking)

    schedule = schedule_of(recipe, recipe.score_epochs, len(fitting) // recipe.score_batch)
    groups = [(trunk, recipe.trunk_rate), (heads, recipe.score_rate)]
    return train(network, groups, batch_loss, schedule, folder, resume=resume, validate=validate, ranks=ranks)


def spoken(
    network: BmqaNetwork, item: Rated, material: Material, rates: Mapping[str, float], rng: np.random.Generator
) -> list[int]:
    """A description of a picture, people's or made, with a captioner's mistakes in the latter."""
    text = descriptions.tidy(item.description)
    if not text:
        levels = descriptions.slip(material.levels[item.path], rates, rng)
        text = descriptions.write(levels, rng, free=bool(rng.random() < 0.4))
    return network.vocabulary.encode(text)


@torch.no_grad()
def start_probe(
    network: BmqaNetwork, material: Material, kept: Kept, recipe: Recipe, rates: Mapping[str, float]
) -> None:
    """Start the probe at the ridge regression on the vectors as they are: a random one would pull the trunk about."""
    rng = np.random.default_rng([recipe.seed, 5])
    rows = []
    for place, item in zip(kept.rated, material.fitting, strict=True):
        image = network.image(kept.features[place : place + 1].to(network.center))
        text = network.text(padded([spoken(network, item, material, rates, rng)], image.device))
        use = network.config.modalities
        rows.append(torch.cat([image * (use != "text"), text * (use != "image")], 1))
    x = torch.cat(rows).double().cpu().numpy()
    scores = np.array([item.mos for item in material.fitting])
    middle = x.mean(0)
    x, y = x - middle, (scores - scores.mean()) / scores.std()
    ridge = 0.03 * len(x) * x.var(0).mean() + 1e-9
    solution = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    network.probe.weight.copy_(torch.from_numpy(solution)[None])
    network.probe.bias.fill_(float(-middle @ solution))


@torch.inference_mode()
def features_of(network: BmqaNetwork, material: Material) -> Tensor:
    """Features of the whole held-out pictures, (M, 1 + GRID^2, F)."""
    device = network.center.device
    return torch.cat([network.features(to_tensor([material.album(i.path)]).to(device)) for i in material.checking])


@torch.inference_mode()
def scored(network: BmqaNetwork, features: Tensor, tokens: Sequence[list[int]] | None) -> np.ndarray:
    """Raw scores by these texts or by the captioner's, float64."""
    raw = []
    for place in range(len(features)):
        shown = features[place : place + 1].to(network.center)
        said = [tokens[place]] if tokens is not None else [network.caption(shown)[0][0]]
        raw.append(network.fuse(network.image(shown), network.text(padded(said, shown.device))))
    return torch.cat(raw).double().cpu().numpy()


def run_caption(
    network: BmqaNetwork, material: Material, recipe: Recipe, folder: Path, resume: bool, ranks: Ranks
) -> BmqaNetwork:
    """The captioner, on kept features of pictures and degraded ones; how natural the latter look nobody said."""
    moving = free(network, network.captioner)
    kept, held = keep_all(network, material, recipe, folder)
    size = min(recipe.caption_batch, len(kept.levels) // ranks.world * ranks.world)

    def batch_loss(net: BmqaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        rows = [int(row) for row in rng.choice(len(kept.levels), size, replace=False)]
        tokens, asked = targets(net, kept, rows, rng)
        mine = ranks.share(range(size))
        features = kept.features[[rows[i] for i in mine]].to(net.center)
        logits, looked = net.captioner(features, tokens[mine].to(features.device), recipe.dropout)
        losses = F.cross_entropy(logits.mT, tokens[mine].to(logits.device), reduction="none")  # (N, T)
        asked = asked.to(logits)
        by_words = ranks.gather((losses * asked[mine]).sum(1)).sum() / asked.sum()
        heard = (tokens[mine] != PAD).to(looked)[..., None]
        places = ((looked[..., 1:] + looked[..., :1] / (GRID * GRID)) * heard).sum(1)  # of each place, over the words
        by_places = ranks.gather((1 - places).square().mean(1)).mean()
        wording = wording_loss(net, material, recipe, rng, ranks)
        figures = {"by_words": by_words.item(), "by_places": by_places.item(), "wording": wording.item()}
        return by_words + recipe.attend * by_places + recipe.wording * wording, figures

    def validate(net: BmqaNetwork) -> dict[str, float]:
        return caption_figures(net, held)

    schedule = schedule_of(recipe, recipe.caption_epochs, len(kept.levels) // size)
    rates = [(moving, recipe.caption_rate)]
    return train(network, rates, batch_loss, schedule, folder, resume=resume, validate=validate, ranks=ranks)


def wording_loss(
    net: BmqaNetwork, material: Material, recipe: Recipe, rng: np.random.Generator, ranks: Ranks
) -> Tensor:
    """Cross-entropy of the words of MLE's descriptions, of features that say nothing; 0 where there are none."""
    if not material.said:
        return net.center.new_zeros(())
    rows = rng.choice(len(material.said), recipe.texts)
    texts = [net.vocabulary.encode(descriptions.tidy(material.said[row].description)) for row in rows]
    tokens = padded(ranks.share(texts), net.center.device)
    nothing = net.center.new_zeros(len(tokens), 1 + GRID * GRID, len(net.center))
    logits, _ = net.captioner(nothing, tokens, recipe.dropout)
    losses = F.cross_entropy(logits.mT, tokens, reduction="none") * (tokens != PAD)
    total: Tensor = ranks.gather(losses.sum(1)).sum()
    return total / sum(len(text) for text in texts)


def targets(network: BmqaNetwork, kept: Kept, rows: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Tokens (N, T) to say of pictures, and which of them are asked for: not a degraded picture's appearance."""
    said, asked = [], []
    for row in rows:
        levels = kept.levels[row]
        known = "appearance" in levels
        filled = levels if known else {**levels, "appearance": int(rng.integers(2))}
        tokens = network.vocabulary.encode(kept.texts[row] or descriptions.write(filled, rng))
        said.append(tokens)
        until = len(tokens) if known else tokens.index(network.vocabulary.encode("presenting")[0]) + 1
        asked.append([1] * until + [0] * (len(tokens) - until))
    return padded(said), padded(asked)


@torch.inference_mode()
def caption_figures(network: BmqaNetwork, kept: Kept) -> dict[str, float]:
    """Share of captions with a slot's right word, and of words that are among the first five guesses."""
    right: dict[str, list[bool]] = {name: [] for name in SLOTS}
    first_five = []
    rng = np.random.default_rng(0)
    for start in range(0, len(kept.levels), 16):
        rows = range(start, min(start + 16, len(kept.levels)))
        features = kept.features[list(rows)].to(network.center)
        for row, (tokens, _) in zip(rows, network.caption(features), strict=True):
            found = slots_of(network.vocabulary.decode(tokens))
            for name, level in kept.levels[row].items():
                right[name].append(found.get(name) == level)
        wanted, asked = targets(network, kept, rows, rng)
        logits, _ = network.captioner(features, wanted.to(features.device))
        among = (logits.topk(5, 2).indices.cpu() == wanted[..., None]).any(2)
        first_five += among[asked.bool()].tolist()
    figures = {name: float(np.mean(hits)) for name, hits in right.items() if hits}
    return {**figures, "top_5": float(np.mean(first_five))}


# The result


def measure_all(network: BmqaNetwork, material: Material) -> tuple[dict[str, float], list[float]]:
    """Figures on held-out pictures by the captioner's words, and the mapping from raw scores to 0..1."""
    features = features_of(network, material)
    raw = scored(network, features, None)
    figures = agreement(raw, material.checking)
    levels = [material.levels[item.path] for item in material.checking]
    texts = [descriptions.tidy(item.description) for item in material.checking]
    figures |= caption_figures(network, Kept(features, levels, texts))
    if material.said_held:
        figures["srcc of MLE's descriptions alone"] = srcc_of_words(network, material.said_held)
    return figures, list(fit_logistic(raw, [item.mos for item in material.checking], limits=(0, 1)))


def make_card(card: Card, recipe: Recipe, material: Material, figures: dict[str, float]) -> Card:
    """The card of a freshly trained metric: what it is, what it learned from, its validation figures."""
    by = {"both": "", "image": ", scoring by the image alone", "text": ", scoring by the caption alone"}
    return replace(
        card,
        summary=f"BMQA's method, trained by `lowlight-iqa train bmqa`{by[recipe.modalities]}; not the authors'.",
        trained_on=f"{len(material.fitting)} pictures of {recipe.dataset} (MOS), descriptions of them"
        + (f", {len(material.said)} descriptions of MLE" if material.said else ""),
        reached={
            f"{name}, held-out {'scenes' if 'MLE' in name else 'pictures'}": f"{value:.3f}"
            for name, value in figures.items()
        },
    )
