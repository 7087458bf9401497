"""The recipe of ``leiq``: people's scores for the score, known degradations for the six attributes.

A step takes rated pictures (PLCC loss of the MOS head) and groups of degraded ones (PLCC loss of the six attribute
heads; and, for the MOS head, the order within a group: less degraded before more degraded, clean before mixed).
The early stages of the trunk keep their ImageNet weights: with a few thousand pictures they are better not moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones import load_imagenet
from ..card import Card
from ..correlation import fit_logistic, plcc, srcc
from ..data import biq2021
from ..images import read_image
from ..losses import order_loss, plcc_loss
from ..metrics.leiq import SHORT_SIDE, TASKS, Leiq, LeiqNetwork, reduce
from ..registry import find
from .degradations import ATTRIBUTES, RAMPS, degrade, is_typical, mixture, to_uint8
from .loop import Ranks, Schedule, log, start_log, train

LEVELS = 6  # pictures of a group: the clean one and five degraded ones
# Ramps whose first steps people may like or not notice ask for their order without a margin.
MARGIN = {"mixture": 0.0, "lift": 0.0, "halo": 0.0, "oversaturate": 0.0, "desaturate": 0.0, "jpeg": 0.0}
FULL_MARGIN = 0.15  # of the rated batch's deviation


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; the defaults made the bundled weights."""

    trunk: str = "lite1"
    hidden: int = 128
    frozen: int = 3  # leading stages of the trunk that keep their ImageNet weights
    epochs: int = 9
    rated: int = 24  # rated pictures of a step
    crop: int = 448  # their random crop
    bright: float = 0.4  # share of them that is not dark; the list holds mostly dark ones, the world does not
    groups: int = 5  # groups of degraded pictures of a step
    degraded: int = 800  # groups made beforehand
    degraded_crop: int = 288
    clean_mos: float = 0.70  # a picture above it counts as clean
    dropout: float = 0.2  # of the pooled features
    ridge: float = 1000.0  # strength of the ridge regression that the heads start from
    trunk_rate: float = 1e-4
    head_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup: int = 100  # steps
    average: float = 0.998  # decay of the averaged weights, the ones that are kept
    seed: int = 0


@dataclass(frozen=True)
class Group:
    """Which degraded pictures belong together."""

    kind: str  # name of a ramp, or "mixture"
    pictures: np.ndarray  # (LEVELS, H, W, 3) bytes, the clean one first
    targets: np.ndarray  # (LEVELS, 6) on 1..5


class Album:
    """Pictures by path, decoded once and kept as bytes."""

    def __init__(self) -> None:
        self._kept: dict[Path, np.ndarray] = {}

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W, 3) bytes, the shorter side at most ``SHORT_SIDE``."""
        if path not in self._kept:
            self._kept[path] = to_uint8(reduce(read_image(path)[None], SHORT_SIDE)[0])
        return self._kept[path]


def to_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """Bytes (H, W, 3) of one size to a batch (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def random_crop(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A crop of at most ``size`` on a side, mirrored half of the time: neither changes the quality."""
    height, width = picture.shape[:2]
    top, left = (int(rng.integers(0, max(0, side - size) + 1)) for side in (height, width))
    cut = picture[top : top + size, left : left + size]
    return cut[:, ::-1] if rng.random() < 0.5 else cut


def make_groups(clean: Sequence[Path], count: int, size: int, seed: int, album: Album) -> Iterable[Group]:
    """Groups of degraded crops; two of three are mixtures, the third is a ramp, each kind in turn."""
    kinds = list(RAMPS)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        cut = random_crop(album(clean[int(rng.integers(len(clean)))]), size, rng)
        kind = kinds[index // 3 % len(kinds)] if index % 3 == 2 else "mixture"
        ways = list(RAMPS[kind]) if kind in RAMPS else [mixture(rng) for _ in range(LEVELS - 1)]
        source = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1).float() / 255
        # No camera is without noise, and a target that is the same for most pictures could not be ranked.
        ways = [replace(how, noise=max(how.noise, rng.uniform(0.01, 0.08))) for how in ways]
        made = [degrade(source, how, rng) for how in ways]
        yield Group(
            kind,
            np.stack([cut, *(picture for picture, _ in made)]),
            np.array([[5.0] * len(ATTRIBUTES), *(targets for _, targets in made)], np.float32),
        )


def cached_groups(
    path: Path, clean: Sequence[Path], count: int, size: int, seed: int, album: Album, ranks: Ranks
) -> list[Group]:
    """``make_groups``, kept on disk so that a resumed run and other processes need not make them again."""
    from tqdm import tqdm

    if ranks.rank == 0 and not path.is_file():
        made = list(
            tqdm(
                make_groups(clean, count, size, seed, album),
                total=count,
                unit="group",
                desc=path.stem,
                disable=None,
            )
        )
        new = path.with_suffix(".new.npz")
        np.savez(
            new,
            kinds=np.array([group.kind for group in made]),
            pictures=np.stack([group.pictures for group in made]),
            targets=np.stack([group.targets for group in made]),
        )
        new.replace(path)
    ranks.barrier()
    with np.load(path) as file:
        kinds, pictures, targets = file["kinds"], file["pictures"], file["targets"]
    return [Group(str(kind), shown, wanted) for kind, shown, wanted in zip(kinds, pictures, targets, strict=True)]


def group_loss(groups: Sequence[Group], raw: dict[str, Tensor], targets: Tensor, spread: Tensor) -> Tensor:
    """Attribute PLCC losses and the MOS head's order loss of whole groups; outputs in the groups' order.

    Args:
        groups: G groups.
        raw: outputs of the heads, (G * LEVELS,) each.
        targets: (G * LEVELS, 6).
        spread: deviation of the MOS outputs on rated pictures, to give the margin its unit.
    """
    loss = sum(plcc_loss(raw[name], targets[:, place]) for place, name in enumerate(ATTRIBUTES))
    scores = raw["mos"].view(len(groups), LEVELS) / spread
    for group, row in zip(groups, scores, strict=True):
        margin = MARGIN.get(group.kind, FULL_MARGIN)
        if group.kind == "mixture":  # mixtures have no order among themselves
            row = torch.stack([row[:1].expand(LEVELS - 1), row[1:]], 1)
        loss = loss + order_loss(row, margin) / len(groups)
    return loss


@torch.inference_mode()
def outputs(network: LeiqNetwork, pictures: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """Raw outputs of all heads for batches of pictures."""
    parts = [network(batch) for batch in pictures]
    return {task: torch.cat([part[task] for part in parts]).double().numpy() for task in TASKS}


def train_leiq(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    clean: Sequence[Path] = (),
    resume: bool = False,
    ranks: Ranks | None = None,
) -> Path:
    """Train, map the heads to their scales on held-out pictures and write the metric to ``out/leiq``.

    Args:
        data: the BIQ2021 folder.
        out: folder of the run: ``train.log``, ``checkpoint.pt``, the degraded pictures, ``leiq/`` in the end.
        recipe: the numbers.
        clean: more clean pictures to degrade.
        resume: go on from the checkpoint.
        ranks: this process among others.

    Returns:
        The directory of the metric, for ``create_metric("leiq", weights=...)``.
    """
    ranks = ranks or Ranks.join()
    start_log(out, ranks)
    torch.manual_seed(recipe.seed)
    log.info("recipe %s", json.dumps(asdict(recipe)))
    album = Album()

    rated = biq2021.read(data, "train")
    fitting = [item for item in rated if not biq2021.held_out(item)]
    checking = [item for item in rated if biq2021.held_out(item)]
    sources = [
        [item.path for item in part if item.mos > recipe.clean_mos and is_typical(to_tensor([album(item.path)])[0])]
        for part in (fitting, checking)
    ]
    for part, paths in (("training", [*sources[0], *clean]), ("validation", sources[1])):
        if not paths:
            raise ValueError(
                f"no {part} picture counts as clean (MOS above {recipe.clean_mos}, well exposed, colored); "
                "lower --clean-mos or give more rated pictures"
            )
    groups = cached_groups(
        out / "degraded.npz",
        [*sources[0], *clean],
        recipe.degraded,
        recipe.degraded_crop,
        recipe.seed,
        album,
        ranks,
    )
    held = cached_groups(
        out / "held_out.npz",
        sources[1],
        max(8, recipe.degraded // 8),
        recipe.degraded_crop,
        recipe.seed + 1,
        album,
        ranks,
    )
    log.info(
        "%d rated pictures, %d held out, %d groups, %d held out",
        len(fitting),
        len(checking),
        len(groups),
        len(held),
    )

    network = LeiqNetwork(recipe.trunk, recipe.hidden)
    network.trunk.load_state_dict(load_imagenet(recipe.trunk).state_dict())
    network.to(memory_format=torch.channels_last)
    chance = np.array([recipe.bright if not item.dark else 1 - recipe.bright for item in fitting])
    for kind in (True, False):
        members = np.array([item.dark == kind for item in fitting])
        chance[members] /= max(1, members.sum())
    chance /= chance.sum()
    start_heads(network, fitting, chance * len(fitting), groups, recipe, album)

    moving = [p for stage in network.trunk.stages[recipe.frozen :] for p in stage.parameters()]
    if recipe.frozen == 0:
        moving += list(network.trunk.stem.parameters())
    network.trunk.requires_grad_(False)
    for parameter in moving:
        parameter.requires_grad_(True)

    def batch_loss(net: nn.Module, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        chosen = [fitting[i] for i in rng.choice(len(fitting), recipe.rated, replace=False, p=chance)]
        crops = [random_crop(album(item.path), recipe.crop, rng) for item in chosen]
        shown = [groups[i] for i in rng.choice(len(groups), recipe.groups, replace=False)]
        degraded = [picture for group in shown for picture in group.pictures]
        mos = ranks.gather(net(to_tensor(ranks.share(crops)), recipe.frozen, recipe.dropout)["mos"])
        by_rating = plcc_loss(mos, torch.tensor([item.mos for item in chosen]))
        local = net(to_tensor(ranks.share(degraded)), recipe.frozen, recipe.dropout)
        raw = {task: ranks.gather(local[task]) for task in TASKS}
        targets = torch.from_numpy(np.concatenate([group.targets for group in shown]))
        by_group = group_loss(shown, raw, targets, mos.detach().std() + 1e-3)
        return 2 * by_rating + by_group, {"rated": by_rating.item(), "groups": by_group.item()}

    def validate(net: nn.Module) -> dict[str, float]:
        figures, _ = measure(net, checking, held, album)
        return figures

    schedule = Schedule(
        epochs=recipe.epochs,
        steps_per_epoch=max(1, len(fitting) // recipe.rated),
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        average=recipe.average,
        seed=recipe.seed,
    )
    rates = [(moving, recipe.trunk_rate), (list(network.heads.parameters()), recipe.head_rate)]
    average = train(network, rates, batch_loss, schedule, out, resume=resume, validate=validate, ranks=ranks)
    directory = out / "leiq"
    if ranks.rank == 0:
        figures, mappings = measure(average, checking, held, album)
        card = make_card(find("leiq")[1], recipe, len(fitting), len(checking), figures)
        Leiq.from_network(card, average, mappings).save_pretrained(directory)
        log.info("wrote %s", directory)
    ranks.barrier()
    return directory


@torch.no_grad()
def start_heads(
    network: LeiqNetwork,
    rated: Sequence[biq2021.Rated],
    weights: np.ndarray,
    groups: Sequence[Group],
    recipe: Recipe,
    album: Album,
) -> None:
    """Standardize the pooled features and start every head at the ridge regression on the untrained trunk's.

    A head that starts at random first pulls the trunk to where it happens to be (Kumar et al., ICLR 2022).
    """
    from tqdm import tqdm

    everything = len(network.trunk.stages)  # no stage needs a gradient here

    def features(pictures: Iterable[Tensor], total: int) -> Tensor:
        bar = tqdm(pictures, total=total, desc="features", disable=None)
        return torch.cat([network.statistics(batch, everything) for batch in bar])

    of_rated = features((to_tensor([album(item.path)]) for item in rated), len(rated))
    of_groups = features((to_tensor(list(group.pictures)) for group in groups), len(groups))
    both = torch.cat([of_rated, of_groups])
    network.center.copy_(both.mean(0))
    network.scale.copy_(both.std(0) + 1e-4)
    labels = {"mos": (of_rated, np.array([item.mos for item in rated]), weights)}
    targets = np.concatenate([group.targets for group in groups])
    for place, name in enumerate(ATTRIBUTES):
        labels[name] = (of_groups, targets[:, place], np.ones(len(targets)))
    for task, (given, wanted, weight) in labels.items():
        x = ((given - network.center) / network.scale).double().numpy()
        x = x - np.average(x, 0, weight)
        y = (wanted - np.average(wanted, weights=weight)) / wanted.std()
        weighted = x.T * weight
        solution = np.linalg.solve(weighted @ x + recipe.ridge * np.eye(x.shape[1]), weighted @ y)
        first, second = network.heads[task]
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02 / layer.in_features**0.5)
            nn.init.zeros_(layer.bias)
        first.weight[0] = torch.from_numpy(solution).to(first.weight)
        second.weight[0, 0] = 1.0


def measure(
    network: nn.Module, rated: Sequence[biq2021.Rated], groups: Sequence[Group], album: Album
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Figures on held-out pictures, and the logistic mapping of every head to its scale fitted on them."""
    shown = outputs(network, (to_tensor([album(item.path)]) for item in rated))
    mos = np.array([item.mos for item in rated])
    dark = np.array([item.dark for item in rated])
    figures = {"srcc": srcc(shown["mos"], mos), "plcc": plcc(shown["mos"], mos)}
    for name, part in (("dark", dark), ("bright", ~dark)):
        if part.sum() > 2:
            figures[f"srcc_{name}"] = srcc(shown["mos"][part], mos[part])
    mappings = {"mos": list(fit_logistic(shown["mos"], 10 * mos, limits=(0, 10)))}

    degraded = outputs(network, (to_tensor(list(group.pictures)) for group in groups))
    targets = np.concatenate([group.targets for group in groups])
    mixed = np.repeat([group.kind == "mixture" for group in groups], LEVELS)
    for place, name in enumerate(ATTRIBUTES):
        figures[name] = srcc(degraded[name][mixed], targets[mixed, place])
        mappings[name] = list(fit_logistic(degraded[name], targets[:, place], limits=(1, 5)))
    ordered = [
        np.mean(np.diff(degraded["mos"][i * LEVELS : (i + 1) * LEVELS]) < 0)
        for i, group in enumerate(groups)
        if group.kind in ("under", "noise", "warm", "cold", "enhanced", "smooth")
    ]
    figures["order"] = float(np.mean(ordered))
    return figures, mappings


def make_card(card: Card, recipe: Recipe, fitted: int, held: int, figures: dict[str, float]) -> Card:
    """The card of a freshly trained metric: its own facts, its validation figures."""
    return replace(
        card,
        summary="LEIQ's method on a compact trunk, trained by `lowlight-iqa train leiq`; not the authors' checkpoint.",
        trained_on=f"{fitted} pictures of BIQ2021's training list (MOS) and {recipe.degraded} groups of degraded "
        f"pictures (attributes); trunk EfficientNet-{recipe.trunk.capitalize()} from ImageNet",
        reached={f"{name}, {held} held-out pictures": f"{value:.3f}" for name, value in figures.items()},
    )
