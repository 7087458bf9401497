"""The recipe of ``leiq``: people's scores for the score, known degradations for the six attributes.

A step takes rated pictures (PLCC loss of the MOS head) and groups of degraded ones (PLCC loss of the six attribute
heads; for the MOS head, the order within a group). A second part (``rated_epochs``) may take rated pictures only.
Without epochs the trunk is not trained and the heads are ridge regressions on it. At the end a convex fit of the MOS
head orders exposures. See docs/leiq.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...attributes import ATTRIBUTES
from ...card import Card
from ...data import Rated
from ...distributed import Ranks
from ...evaluation.correlation import srcc
from ...functional.logistic import fit_logistic
from ...metrics.leiq import TASKS, Leiq, LeiqNetwork
from ...registry import get_card
from ..degradations import to_uint8
from ..loop import Schedule, log, start_run, train, unfreeze
from ..losses import plcc_loss
from ..pictures import agreement, random_view, starting_trunk, to_tensor
from .groups import LEVELS, PAIRS, Material, gather_material, group_loss, make_pair
from .heads import refit_attributes, settle_order, start_heads, well_exposed
from .recipe import Recipe


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
        data: the folder of the data set; for "csv", the file.
        out: folder of the run: ``train.log``, ``checkpoint.pt``, the degraded pictures, ``leiq/`` at the end.
        recipe: the numbers.
        clean: further clean pictures to degrade.
        resume: continue from the checkpoint.
        device: where to compute.

    Raises:
        FileNotFoundError: the data set is not complete; nothing to resume from.
        ValueError: too few pictures; a checkpoint that is damaged or of another recipe.
        OSError: a file cannot be written.
    """
    ranks = start_run("leiq", out, recipe, device)
    network = LeiqNetwork(recipe.backbone, recipe.hidden)
    network.trunk.load_state_dict(starting_trunk(recipe.backbone, recipe.initial).state_dict())
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    material = gather_material(data, out, recipe, clean, ranks)
    ratings = material.ratings
    log.info("%d rated pictures, %d held out, %d groups", len(ratings.train), len(ratings.val), len(material.groups))

    if not resume or not recipe.epochs:
        start_heads(network, material, recipe)
    network = run_parts(network, material, recipe, out, resume, ranks)
    if recipe.rated_epochs:  # they changed the trunk, but not the attribute heads
        refit_attributes(network, material, recipe)

    name = "leiq-robust" if recipe.bound else "leiq"
    directory = out / name
    if ranks.rank == 0:
        settle_order(network, material, recipe)
        figures, mappings = measure(network, material)
        card = make_card(get_card(name), recipe, material, figures)
        Leiq(card, network.cpu(), mappings, recipe.view).save_pretrained(directory)
        log.info("wrote %s", directory)
    ranks.barrier()
    return directory


def run_parts(
    network: LeiqNetwork, material: Material, recipe: Recipe, out: Path, resume: bool, ranks: Ranks
) -> LeiqNetwork:
    """Train on rated and degraded pictures, then on rated ones only, for the recipe's epochs of each."""
    trunk = unfreeze_trunk(network, recipe.frozen)
    losses = Losses(material, recipe, ranks)
    # Settings of later parts may change before a run is resumed.
    first = {name: value for name, value in asdict(recipe).items() if not name.startswith(("rated_", "ladder"))}
    made_from = {**first, "data": material.ratings.fingerprint(), "groups": material.origin}
    schedule = Schedule(
        epochs=recipe.epochs,
        steps_per_epoch=recipe.epoch_steps or max(1, len(material.ratings.train) // recipe.rated),
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        average=recipe.average,
        seed=recipe.seed,
        made_from=made_from,
    )

    def validate(net: LeiqNetwork) -> dict[str, float]:
        return measure(net, material)[0]

    if recipe.epochs:
        rates = [(trunk, recipe.trunk_rate), (list(network.heads.parameters()), recipe.head_rate)]
        average = train(network, rates, losses.of_both, schedule, out, resume=resume, validate=validate, ranks=ranks)
        network.load_state_dict(average.state_dict())

    if recipe.rated_epochs:
        folder = out / "rated"
        folder.mkdir(exist_ok=True)
        head = list(network.heads["mos"].parameters())
        network = train(
            network,
            [(trunk, recipe.rated_rate), (head, recipe.rated_rate)],
            losses.of_attacked if recipe.bound else losses.of_rated,
            replace(schedule, epochs=recipe.rated_epochs, made_from={**made_from, "rated_rate": recipe.rated_rate}),
            folder,
            resume=resume and (folder / "checkpoint.pt").is_file(),
            validate=validate,
            ranks=ranks,
        )
    return network


def unfreeze_trunk(network: LeiqNetwork, frozen: int) -> list[nn.Parameter]:
    """Unfreeze the trunk except its leading ``frozen`` stages; return the unfrozen parameters."""
    stem = [network.trunk.stem] if frozen == 0 else []
    return unfreeze(network.trunk, *list(network.trunk.stages)[frozen:], *stem)


@dataclass(frozen=True)
class Losses:
    """The loss of a step's batch, drawn by the step's generator."""

    material: Material
    recipe: Recipe
    ranks: Ranks

    def outputs(self, network: LeiqNetwork, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Return the heads' outputs (N,) of a whole batch, of which this rank computes its shard."""
        batch = to_tensor(self.ranks.share(pictures)).to(network.center.device)
        raw = network(batch, self.recipe.frozen, self.recipe.dropout, self.recipe.half)
        return {task: self.ranks.gather(raw[task]) for task in TASKS}

    def drawn(self, rng: np.random.Generator) -> tuple[list[np.ndarray], Tensor]:
        """Return random views of rated pictures and their scores (N,)."""
        train, recipe = self.material.ratings.train, self.recipe
        chosen = [train[i] for i in rng.choice(len(train), recipe.rated, replace=False, p=self.material.chance)]
        views = [
            random_view(self.material.album(item.path), recipe.crop, rng, wider=recipe.wider, recoded=recipe.recoded)
            for item in chosen
        ]
        return views, torch.tensor([item.mos for item in chosen])

    def rated_batch(self, network: LeiqNetwork, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the MOS outputs (N,) of random crops of rated pictures, and their PLCC loss."""
        views, scores = self.drawn(rng)
        mos = self.outputs(network, views)["mos"]
        return mos, plcc_loss(mos, scores.to(mos.device))

    def of_rated(
        self, network: LeiqNetwork, rng: np.random.Generator, ranks: Ranks
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the loss of rated pictures."""
        return self.rated_batch(network, rng)[1], {}

    def of_attacked(
        self, network: LeiqNetwork, rng: np.random.Generator, ranks: Ranks
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the loss of rated pictures under adversarial changes too small to see.

        Each picture is changed at random within the bound, then by one signed-gradient step, six times in ten toward a
        better score (Wong et al., ICLR 2020). Both versions' scores should agree with people and with each other.
        The second picture of ``make_pair`` should score lower.
        """
        recipe, bound = self.recipe, self.recipe.bound / 255
        views, scores = self.drawn(rng)
        x = to_tensor(ranks.share(views)).to(network.center.device)
        draw = torch.Generator().manual_seed(int(rng.integers(2**62)))
        change = torch.empty(recipe.rated, *x.shape[1:]).uniform_(-bound, bound, generator=draw)
        direction = torch.where(torch.rand(recipe.rated, 1, 1, 1, generator=draw) < 0.6, 1.0, -1.0)
        change, direction = (values[ranks.rank :: ranks.world].to(x.device) for values in (change, direction))

        def mos_of(pictures: Tensor) -> Tensor:
            mos: Tensor = network(pictures, recipe.frozen, recipe.dropout, recipe.half)["mos"]
            return mos

        perturbed = (x + change).clamp(0, 1).requires_grad_()
        first = mos_of(perturbed)
        (slope,) = torch.autograd.grad(first.sum(), perturbed, retain_graph=True)
        step = 1.25 * bound * direction * slope.sign()
        second = mos_of((x + (change + step).clamp(-bound, bound)).clamp(0, 1))

        first, second = ranks.gather(first), ranks.gather(second)
        scores = scores.to(first.device)
        spread = first.detach().std() + 1e-6
        moved = ((second - first.detach()) / spread).square().mean()
        losses = plcc_loss(first, scores), plcc_loss(second, scores)
        order = self.order_of_pairs(network, rng, spread)
        figures = {"before": losses[0].item(), "attacked": losses[1].item(), "moved": moved.item() ** 0.5}
        return losses[0] + losses[1] + recipe.steady * moved + recipe.order * order, figures

    @cached_property
    def lit(self) -> list[Rated]:
        """The pictures of pairs."""
        return well_exposed(self.material, self.recipe)

    def order_of_pairs(self, network: LeiqNetwork, rng: np.random.Generator, spread: Tensor) -> Tensor:
        """Return the squared hinge loss of pairs, the first .3 ``spread`` above the second."""
        pairs: list[Tensor] = []
        for _ in range(self.recipe.rated // 4 if self.lit else 0):
            path = self.lit[rng.integers(len(self.lit))].path
            view = random_view(self.material.album(path), self.recipe.crop, rng)
            pairs += make_pair(rng.choice(PAIRS), to_tensor([view])[0], rng)
        if not pairs:
            return torch.zeros_like(spread)
        better, worse = self.outputs(network, [to_uint8(x) for x in pairs])["mos"].view(-1, 2).T
        loss: Tensor = (0.3 - (better - worse) / spread).relu().square().mean()
        return loss

    def of_both(
        self, network: LeiqNetwork, rng: np.random.Generator, ranks: Ranks
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the loss of rated pictures and of groups of degraded ones."""
        mos, rated_loss = self.rated_batch(network, rng)
        groups = self.material.groups
        groups = [groups[i] for i in rng.choice(len(groups), self.recipe.groups, replace=False)]
        raw = self.outputs(network, [picture for group in groups for picture in group.pictures])
        targets = torch.from_numpy(np.concatenate([group.targets for group in groups])).to(mos.device)
        degraded_loss = group_loss(groups, raw, targets, mos.detach().std() + 1e-3, self.recipe.order)
        return 2 * rated_loss + degraded_loss, {"rated": rated_loss.item(), "groups": degraded_loss.item()}


@torch.inference_mode()
def outputs(network: LeiqNetwork, pictures: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """Return the raw outputs of all heads for batches of pictures, float64."""
    device = network.center.device
    parts = [network(batch.to(device)) for batch in pictures]
    return {task: torch.cat([part[task] for part in parts]).double().cpu().numpy() for task in TASKS}


def measure(network: LeiqNetwork, material: Material) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return figures on held-out pictures, and the logistic mapping of every head to its scale, fitted to them.

    An attribute's figure is the SRCC on mixtures, where every part of the degradation model acts at random.
    """
    val, groups = material.ratings.val, material.val_groups
    raw = outputs(network, (material.album.tensor(item.path) for item in val))
    figures = agreement(raw["mos"], val)
    mappings = {"mos": list(fit_logistic(raw["mos"], [10 * item.mos for item in val], limits=(0, 10)))}

    degraded = outputs(network, (to_tensor(list(group.pictures)) for group in groups))
    targets = np.concatenate([group.targets for group in groups])
    mixed = np.repeat([group.kind == "mixture" for group in groups], LEVELS)
    for index, name in enumerate(ATTRIBUTES):
        figures[name] = srcc(degraded[name][mixed], targets[mixed, index])
        mappings[name] = list(fit_logistic(degraded[name], targets[:, index], limits=(1, 5)))

    ordered = [
        np.mean(np.diff(scores) < 0)
        for scores, group in zip(degraded["mos"].reshape(-1, LEVELS), groups, strict=True)
        if group.kind in ("under", "noise", "warm", "cold", "enhanced", "smooth")
    ]
    figures["order"] = float(np.mean(ordered))
    return figures, mappings


def make_card(card: Card, recipe: Recipe, material: Material, figures: dict[str, float]) -> Card:
    """Return the card of the trained metric."""
    return material.ratings.card(
        card,
        figures,
        summary="LEIQ's method on a compact trunk, trained by `lowlight-iqa train leiq`; not the authors' checkpoint.",
        trained_on=f"{len(material.ratings.train)} pictures of {material.ratings.source} (MOS) and {recipe.degraded} "
        f"groups of degraded pictures (attributes); trunk EfficientNet-{recipe.backbone.capitalize()} from ImageNet",
        base_model=f"timm/tf_efficientnet_{recipe.backbone}.in1k",
    )
