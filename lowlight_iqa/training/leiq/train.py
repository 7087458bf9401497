"""The recipe of ``leiq``: people's scores for the score, known degradations for the six attributes.

A step takes rated pictures (PLCC loss of the MOS head) and groups of degraded ones (PLCC loss of the six attribute
heads; and, for the MOS head, the order within a group: less degraded before more degraded, clean before mixed).
A second part (``rated_epochs``) may take rated pictures alone, to win back what the order of degraded pictures costs in
agreement with people. With no epochs the trunk stays as it is given and the heads, which are linear, are its ridge
regressions. In the end the order of exposures is settled by a convex fit of the MOS head.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...attributes import ATTRIBUTES
from ...card import Card
from ...data import biq2021
from ...distributed import Ranks
from ...evaluation.correlation import srcc
from ...functional.logistic import fit_logistic
from ...metrics.leiq import TASKS, Leiq, LeiqNetwork
from ...registry import find
from ..degradations import RAMPS, Degradation, degrade, is_typical, mixture, render
from ..loop import Schedule, log, start_log, train
from ..losses import order_loss, plcc_loss
from ..pictures import Album, agreement, random_crop, starting_trunk, to_tensor

LEVELS = 6  # pictures of a group: the clean one and five degraded ones
# By how much of the rated batch's deviation the next picture of a group must score lower. Where people may like the
# first steps of a ramp or not notice them, its order is asked for without a margin.
FULL_MARGIN = 0.4
MARGIN = {"mixture": 0.3, "jpeg": 0.2, "lift": 0.0, "halo": 0.0, "oversaturate": 0.0, "desaturate": 0.0}


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; the defaults are the first run of those that docs/leiq.md lists."""

    backbone: str = "lite2"
    hidden: int = 128
    initial: str = ""  # whose trunk to start from, see ``starting_trunk``; else ImageNet's
    frozen: int = 0  # leading stages of the trunk that keep the weights they start with
    epochs: int = 6  # 0 keeps the trunk and the heads they start with
    rated: int = 24  # rated pictures of a step
    crop: int = 320  # their random crop
    bright: float = 0.3  # share of them that is not dark; the list holds mostly dark ones, the world does not
    groups: int = 3  # groups of degraded pictures of a step
    degraded: int = 1200  # groups made beforehand
    degraded_crop: int = 256
    order: float = 1.0  # weight of the order of degraded pictures
    clean_mos: float = 0.55  # a picture above it counts as clean
    dropout: float = 0.2  # of the pooled features
    ridge: float = 1000.0  # strength of the ridge regression that the heads start from
    trunk_rate: float = 1.5e-4
    head_rate: float = 1e-4
    ladders: int = 1000  # well-exposed pictures whose falling exposure settles the MOS head in the end
    ladder_mos: float = 0.5  # that people liked at least so much; how bad pictures are ordered matters less
    ladder_margin: float = 0.25  # of a step, in deviations of the scores of rated pictures
    ladder_keep: float = 0.1  # weight of those scores' change
    ladder_ridge: float = 0.03
    weight_decay: float = 0.05
    warmup: int = 100  # steps
    average: float = 0.99  # decay of the averaged weights, the ones that are kept
    rated_epochs: int = 0  # of a second part, on rated pictures alone
    rated_rate: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Group:
    """Which degraded pictures belong together."""

    kind: str  # name of a ramp, or "mixture"
    pictures: np.ndarray  # (LEVELS, H, W, 3) bytes, the clean one first
    targets: np.ndarray  # (LEVELS, 6) on 1..5


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


def group_loss(
    groups: Sequence[Group], raw: dict[str, Tensor], targets: Tensor, spread: Tensor, order: float = 1.0
) -> Tensor:
    """Attribute PLCC losses and the MOS head's order loss of whole groups; outputs in the groups' order.

    Args:
        groups: G groups.
        raw: outputs of the heads, (G * LEVELS,) each.
        targets: (G * LEVELS, 6).
        spread: deviation of the MOS outputs on rated pictures, to give the margin its unit.
        order: weight of the order loss.
    """
    loss = torch.stack([plcc_loss(raw[name], targets[:, place]) for place, name in enumerate(ATTRIBUTES)]).sum()
    scores = raw["mos"].view(len(groups), LEVELS) / spread
    for group, row in zip(groups, scores, strict=True):
        margin = MARGIN.get(group.kind, FULL_MARGIN)
        if group.kind == "mixture":  # mixtures have no order among themselves
            row = torch.stack([row[:1].expand(LEVELS - 1), row[1:]], 1)
        loss = loss + order * order_loss(row, margin) / len(groups)
    return loss


@torch.inference_mode()
def outputs(network: LeiqNetwork, pictures: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """Raw outputs of all heads for batches of pictures."""
    device = next(network.parameters()).device
    parts = [network(batch.to(device)) for batch in pictures]
    return {task: torch.cat([part[task] for part in parts]).double().cpu().numpy() for task in TASKS}


@dataclass(frozen=True)
class Material:
    """What a run learns from and is checked on."""

    fitting: list[biq2021.Rated]
    checking: list[biq2021.Rated]  # the held-out part of the training list
    chance: np.ndarray  # of drawing each picture of ``fitting``; sums to 1
    groups: list[Group]
    held: list[Group]  # made from held-out pictures
    album: Album


def gather_material(data: Path, out: Path, recipe: Recipe, clean: Sequence[Path], ranks: Ranks) -> Material:
    """Read the rated pictures and make the degraded ones.

    Raises:
        FileNotFoundError: the data set is not complete.
        ValueError: no picture counts as clean.
    """
    album = Album()
    rated = biq2021.read(data, "train")
    parts = [[item for item in rated if biq2021.held_out(item) == held] for held in (False, True)]
    sources = [
        [item.path for item in part if item.mos > recipe.clean_mos and is_typical(to_tensor([album(item.path)])[0])]
        for part in parts
    ]
    sources[0] += clean
    for name, paths in zip(("training", "validation"), sources, strict=True):
        if not paths:
            raise ValueError(
                f"no {name} picture counts as clean (MOS above {recipe.clean_mos}, well exposed, colored); "
                "lower --clean-mos or give more rated pictures"
            )
    made = [
        cached_groups(out / f"{name}.npz", paths, count, recipe.degraded_crop, recipe.seed + offset, album, ranks)
        for offset, (name, paths, count) in enumerate(
            zip(("degraded", "held_out"), sources, (recipe.degraded, max(8, recipe.degraded // 8)), strict=True)
        )
    ]
    chance = np.array([1 - recipe.bright if item.dark else recipe.bright for item in parts[0]])
    for kind in (True, False):
        members = np.array([item.dark == kind for item in parts[0]])
        chance[members] /= max(1, members.sum())
    return Material(parts[0], parts[1], chance / chance.sum(), made[0], made[1], album)


def train_leiq(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    clean: Sequence[Path] = (),
    resume: bool = False,
    device: str = "cpu",
) -> Path:
    """Train, map the heads to their scales on held-out pictures and write the metric to ``out/leiq``.

    Args:
        data: the BIQ2021 folder.
        out: folder of the run: ``train.log``, ``checkpoint.pt``, the degraded pictures, ``leiq/`` in the end.
        recipe: the numbers.
        clean: more clean pictures to degrade.
        resume: go on from the checkpoint.
        device: where to compute.

    Returns:
        The directory of the metric, for ``create_metric("leiq", weights=...)``.
    """
    ranks = Ranks.join(device)
    start_log(out, ranks)
    torch.manual_seed(recipe.seed)
    log.info("recipe %s", json.dumps(asdict(recipe)))
    material = gather_material(data, out, recipe, clean, ranks)
    fitting, groups, album = material.fitting, material.groups, material.album
    log.info("%d rated pictures, %d held out, %d groups", len(fitting), len(material.checking), len(groups))

    network = LeiqNetwork(recipe.backbone, recipe.hidden)
    network.trunk.load_state_dict(starting_trunk(recipe.backbone, recipe.initial).state_dict())
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not resume or not recipe.epochs:
        start_heads(network, material, recipe)
    moving = [p for stage in list(network.trunk.stages)[recipe.frozen :] for p in stage.parameters()]
    if recipe.frozen == 0:
        moving += list(network.trunk.stem.parameters())
    network.trunk.requires_grad_(False)
    for parameter in moving:
        parameter.requires_grad_(True)

    def shared(net: LeiqNetwork, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        raw = net(to_tensor(ranks.share(pictures)).to(device), recipe.frozen, recipe.dropout)
        return {task: ranks.gather(raw[task]) for task in TASKS}

    def rated_loss(net: LeiqNetwork, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        chosen = [fitting[i] for i in rng.choice(len(fitting), recipe.rated, replace=False, p=material.chance)]
        mos = shared(net, [random_crop(album(item.path), recipe.crop, rng) for item in chosen])["mos"]
        return mos, plcc_loss(mos, torch.tensor([item.mos for item in chosen], device=device))

    def rated_alone(net: LeiqNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        return rated_loss(net, rng)[1], {}

    def batch_loss(net: LeiqNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        mos, by_rating = rated_loss(net, rng)
        shown = [groups[i] for i in rng.choice(len(groups), recipe.groups, replace=False)]
        raw = shared(net, [picture for group in shown for picture in group.pictures])
        targets = torch.from_numpy(np.concatenate([group.targets for group in shown])).to(device)
        by_group = group_loss(shown, raw, targets, mos.detach().std() + 1e-3, recipe.order)
        return 2 * by_rating + by_group, {"rated": by_rating.item(), "groups": by_group.item()}

    schedule = Schedule(
        epochs=recipe.epochs,
        steps_per_epoch=max(1, len(fitting) // recipe.rated),
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        average=recipe.average,
        seed=recipe.seed,
    )
    rates = [(moving, recipe.trunk_rate), (list(network.heads.parameters()), recipe.head_rate)]

    def validate(net: LeiqNetwork) -> dict[str, float]:
        return measure(net, material)[0]

    average = network
    if recipe.epochs:
        average = train(network, rates, batch_loss, schedule, out, resume=resume, validate=validate, ranks=ranks)
    if recipe.rated_epochs:
        network.load_state_dict(average.state_dict())
        second = out / "rated"
        second.mkdir(exist_ok=True)
        average = train(
            network,
            [(moving, recipe.rated_rate), (list(network.heads["mos"].parameters()), recipe.rated_rate)],
            rated_alone,
            replace(schedule, epochs=recipe.rated_epochs),
            second,
            resume=resume and (second / "checkpoint.pt").is_file(),
            validate=validate,
            ranks=ranks,
        )
    directory = out / "leiq"
    if ranks.rank == 0:
        settle_order(average, material, recipe)
        figures, mappings = measure(average, material)
        card = make_card(find("leiq")[1], recipe, material, figures)
        Leiq.from_network(card, average.cpu(), mappings).save_pretrained(directory)
        log.info("wrote %s", directory)
    ranks.barrier()
    return directory


@torch.no_grad()
def statistics(network: LeiqNetwork, pictures: Iterable[Tensor], total: int, frozen: int = 0) -> Tensor:
    """The trunk's pooled statistics of batches of pictures, a row each; ``frozen`` stages as training runs them."""
    from tqdm import tqdm

    bar = tqdm(pictures, total=total, desc="features", disable=None)
    return torch.cat([network.statistics(batch.to(network.center.device), frozen) for batch in bar])


def standardized(network: LeiqNetwork, rows: Tensor) -> np.ndarray:
    """Statistics as the heads see them, in float64."""
    values: np.ndarray = ((rows - network.center) / network.scale).double().cpu().numpy()
    return values


def layers_of(network: LeiqNetwork, task: str) -> tuple[nn.Linear, nn.Linear]:
    """The two linear layers of a head."""
    first, second = (layer for layer in network.heads[task].children() if isinstance(layer, nn.Linear))
    return first, second


def direction_of(network: LeiqNetwork, task: str) -> np.ndarray:
    """A head as one linear map of the statistics: both layers multiplied, float64."""
    first, second = layers_of(network, task)
    values: np.ndarray = (second.weight @ first.weight)[0].double().detach().cpu().numpy()
    return values


def turn(network: LeiqNetwork, task: str, change: np.ndarray) -> None:
    """Add ``change`` to the linear map that a head is, by the smallest change of its first layer."""
    first, second = layers_of(network, task)
    share = second.weight[0] / second.weight.square().sum()
    first.weight += torch.outer(share, torch.from_numpy(change).to(share))


@torch.no_grad()
def start_heads(network: LeiqNetwork, material: Material, recipe: Recipe) -> None:
    """Standardize the pooled features and start every head at the ridge regression on the untrained trunk's.

    A head that starts at random first pulls the trunk to where it happens to be (Kumar et al., ICLR 2022).
    """
    rated, groups = material.fitting, material.groups
    everything = len(network.trunk.stages)
    of_rated = statistics(network, (to_tensor([material.album(item.path)]) for item in rated), len(rated), everything)
    of_groups = statistics(network, (to_tensor(list(group.pictures)) for group in groups), len(groups), everything)
    both = torch.cat([of_rated, of_groups])
    network.center.copy_(both.mean(0))
    network.scale.copy_(both.std(0) + 1e-4)
    labels = {"mos": (of_rated, np.array([item.mos for item in rated]), material.chance * len(rated))}
    targets = np.concatenate([group.targets for group in groups])
    for place, name in enumerate(ATTRIBUTES):
        labels[name] = (of_groups, targets[:, place], np.ones(len(targets)))
    for task, (given, wanted, weight) in labels.items():
        x = standardized(network, given)
        x = x - np.average(x, 0, weight)
        y = (wanted - np.average(wanted, weights=weight)) / wanted.std()
        weighted = x.T * weight
        solution = np.linalg.solve(weighted @ x + recipe.ridge * np.eye(x.shape[1]), weighted @ y)
        first, second = layers_of(network, task)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02 / layer.in_features**0.5)
            nn.init.zeros_(layer.bias)
        first.weight[0] = torch.from_numpy(solution).to(first.weight)
        second.weight[0, 0] = 1.0


# Down to almost black: without the last two steps, black pictures scored above dark ones.
LADDER = tuple(Degradation(exposure=stops) for stops in (0.0, -1.0, -2.32, -3.32, -4.32, -6.0, -8.5))


@torch.no_grad()
def settle_order(network: LeiqNetwork, material: Material, recipe: Recipe) -> None:
    """Turn the MOS head, and nothing else, until the score falls with exposure on well-exposed training pictures.

    In training an exposure ramp is one group among many and its first step, half the light, is often out of order. Here
    the trunk's statistics are kept and the head is linear in them, so that its change d is the minimum of a convex sum:
    squared hinges of the ladders' steps, how far d moves the scores of rated pictures, and the size of d.
    """
    rng = np.random.default_rng([recipe.seed, 2])
    lit = [item for item in material.fitting if 80 < item.mean_luma < 170 and item.mos >= recipe.ladder_mos]
    lit = [lit[i] for i in rng.permutation(len(lit))[: recipe.ladders]]
    if not lit:
        return

    pictures = (to_tensor([material.album(item.path)])[0] for item in lit)
    renderings = (torch.stack([render(picture, step) for step in LADDER]) for picture in pictures)
    ladders = standardized(network, statistics(network, renderings, len(lit)))
    # All of them: were they fewer than the statistics, a change could leave them as they are and move others.
    rated = (to_tensor([material.album(item.path)]) for item in material.fitting)
    shown = standardized(network, statistics(network, rated, len(material.fitting)))
    now = direction_of(network, "mos")
    spread = (shown @ now).std()
    shown = (shown - shown.mean(0)) / spread
    ladders = ladders.reshape(len(lit), len(LADDER), -1)
    steps = ((ladders[:, :-1] - ladders[:, 1:]) / spread).reshape(-1, len(now))
    keep = recipe.ladder_keep * shown.T @ shown / len(shown) + recipe.ladder_ridge * np.eye(len(now))
    change = np.zeros_like(now)
    for _ in range(20):  # Newton's steps on the piecewise quadratic
        missing = recipe.ladder_margin - steps @ (now + change)
        active = steps[missing > 0]
        wanted = recipe.ladder_margin - active @ now
        last, change = change, np.linalg.solve(active.T @ active / len(steps) + keep, active.T @ wanted / len(steps))
        if np.allclose(last, change, atol=1e-9):
            break
    in_order = [(steps @ head).reshape(len(lit), -1).min(1) > 0 for head in (now, now + change)]
    log.info("exposure ladders in order: %.3f, before %.3f", in_order[1].mean(), in_order[0].mean())
    turn(network, "mos", change)


def measure(network: LeiqNetwork, material: Material) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Figures on held-out pictures, and the logistic mapping of every head to its scale fitted on them.

    An attribute's figure is the SRCC on mixtures, where every part of the degradation model acts at random.
    """
    rated, groups = material.checking, material.held
    shown = outputs(network, (to_tensor([material.album(item.path)]) for item in rated))
    figures = agreement(shown["mos"], rated)
    mappings = {"mos": list(fit_logistic(shown["mos"], [10 * item.mos for item in rated], limits=(0, 10)))}

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


def make_card(card: Card, recipe: Recipe, material: Material, figures: dict[str, float]) -> Card:
    """The card of a freshly trained metric: its own facts, its validation figures."""
    return replace(
        card,
        summary="LEIQ's method on a compact trunk, trained by `lowlight-iqa train leiq`; not the authors' checkpoint.",
        trained_on=f"{len(material.fitting)} pictures of BIQ2021's training list (MOS) and {recipe.degraded} groups of "
        f"degraded pictures (attributes); trunk EfficientNet-{recipe.backbone.capitalize()} from ImageNet",
        license="research use; training data without a stated license (BIQ2021); trunk Apache-2.0",
        datasets=("BIQ2021",),
        base_model=f"timm/tf_efficientnet_{recipe.backbone}.in1k",
        reached={f"{name}, held-out pictures": f"{value:.3f}" for name, value in figures.items()},
    )
