"""The recipe of ``leiq-b16`` and ``leiq-so400m``: LEIQ's own method at its own scale, on MLE.

The authors have not released their training code: loss and preprocessing are theirs, everything else follows their
related repository DroneIQA-VLE (see docs/leiq-authors.md).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import backbones
from ..card import Card
from ..data import mle
from ..data.rated import Rated, one_of
from ..distributed import Ranks
from ..evaluation.correlation import plcc, srcc
from ..functional.logistic import fit_logistic, logistic
from ..images import read_image
from ..metrics.leiq_authors import TOWERS, LeiqSiglip, SiglipNetwork, preprocess, resize_8_bit
from ..registry import get_card
from ..weights.files import WeightsNotFound, load_strictly
from .loop import Schedule, check_numbers, log, start_run, train
from .losses import plcc_loss
from .ratings import fingerprint


@dataclass(frozen=True)
class Recipe:
    """Every number of the training."""

    split: str = "scene"  # validate on other scenes; "random": on pictures of the same scenes, as the authors do
    seed: int = 0  # also of the split: the authors' splits are 0 to 9
    epochs: int = 10
    batch: int = 32
    rate: float = 1e-5
    decay: float = 0.95  # of the rate, after every second epoch
    weight_decay: float = 1e-7
    half: bool = True  # the tower's matrix products in bfloat16
    checkpointing: bool = True  # recompute the tower's blocks in the backward pass instead of storing them

    def __post_init__(self) -> None:
        check_numbers(self, positive=("epochs", "batch"))


@dataclass(frozen=True)
class Steps(Schedule):
    """Adam, and a learning rate that falls after every second epoch."""

    decay: float = 1.0

    optimizer: ClassVar = torch.optim.Adam

    def factor(self, step: int) -> float:
        """Return the factor of the learning rates at a step."""
        return self.decay ** (step // self.steps_per_epoch // 2)


# Data


def divide(rated: Sequence[Rated], how: str, seed: int) -> tuple[list[Rated], list[Rated]]:
    """Split into four fifths for training and one fifth for validation: by "scene", or "random" as the authors do."""
    by_scene = one_of(how, ("scene", "random")) == "scene"
    units = [item.group if by_scene else str(item.path) for item in rated]
    shuffled = list(dict.fromkeys(units))
    random.Random(seed).shuffle(shuffled)
    chosen = set(shuffled[: len(shuffled) * 4 // 5])

    train_items: list[Rated] = []
    val_items: list[Rated] = []
    for item, unit in zip(rated, units, strict=True):
        (train_items if unit in chosen else val_items).append(item)
    return train_items, val_items


def labels_of(rated: Sequence[Rated], task: str) -> list[float]:
    """Return the labels of a task, or refuse a picture that has none."""
    without = [item.path.name for item in rated if task != "mos" and task not in item.attributes]
    if without:
        raise ValueError(f"{without[0]} has no label of {task}, which this metric learns; complete the list")
    return [item.mos if task == "mos" else item.attributes[task] for item in rated]


class Album:
    """Pictures by path, decoded and resized once and cached as bytes."""

    def __init__(self) -> None:
        self._cached: dict[Path, Tensor] = {}

    def crop(self, path: Path, side: int, corner: tuple[float, float]) -> Tensor:
        """Return a square (3, side, side) of the resized picture in [0, 1]; ``corner`` goes from (0, 0) to (1, 1)."""
        if path not in self._cached:
            levels = (read_image(path)[None] * 255).round().byte()
            self._cached[path] = (resize_8_bit(levels)[0] * 255).round().byte()

        whole = self._cached[path]
        top, left = (int(part * (length - side + 1)) for part, length in zip(corner, whole.shape[1:], strict=True))
        return whole[:, top : top + side, left : left + side] / 255


# Validation


class Validation:
    """Figures of every epoch on the held-out pictures; weights and mappings of the best epoch.

    As in the authors' code, the best epoch has the highest (SRCC + PLCC) / 2 of the MOS on these pictures, and PLCC is
    computed after the logistic fitted to them: its figures are optimistic.
    """

    def __init__(self, rated: Sequence[Rated]) -> None:
        self.rated = rated
        self.epochs: list[dict[str, float]] = []
        self.best = 0
        self.weights: dict[str, Tensor] = {}
        self.mappings: dict[str, list[float]] = {}

    @torch.inference_mode()
    def __call__(self, network: SiglipNetwork) -> dict[str, float]:
        """Return SRCC and PLCC of every task, for files as the metric scores them, in float32."""
        device = next(network.parameters()).device
        rows = []
        for item in self.rated:
            picture = preprocess(read_image(item.path)).to(device)
            rows.append(torch.stack(list(network(picture[None]).values()), 1))
        raw = torch.cat(rows).double().cpu().numpy()  # (N, tasks)

        figures: dict[str, float] = {}
        mappings = {}
        for task, values in zip(network.tasks, raw.T, strict=True):
            labels = labels_of(self.rated, task)
            mappings[task] = list(fit_logistic(values, labels, (0, 10) if task == "mos" else (1, 5)))
            figures[f"{task}_srcc"] = srcc(values, labels)
            figures[f"{task}_plcc"] = plcc(logistic(values, mappings[task]), labels)

        self.epochs.append(figures)
        if not self.weights or criterion(figures) > criterion(self.epochs[self.best]):
            self.best, self.mappings = len(self.epochs) - 1, mappings
            self.weights = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint stores."""
        return {key: value for key, value in vars(self).items() if key != "rated"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        vars(self).update(state)


def criterion(figures: Mapping[str, float]) -> float:
    """Return the figure by which the best epoch is chosen."""
    return (figures["mos_srcc"] + figures["mos_plcc"]) / 2


# The run


def load_tower(name: str, file: Path | None) -> nn.Module:
    """Build a metric's tower with the weights of a file: safetensors, or a state dict that holds only tensors.

    Keys may be those of timm, open_clip or this library's weights; those of a text tower are ignored.

    Raises:
        WeightsNotFound: no such file.
        ValueError: keys or shapes that do not fit.
    """
    from safetensors.torch import load_file

    from ..weights.checkpoint import read_checkpoint

    base = get_card(name).base_model
    if file is None or not file.is_file():
        raise WeightsNotFound(
            f"{'no weights are given for the tower' if file is None else f'{file} does not exist'}; download those of "
            f"SigLIP2 (open_clip_model.safetensors of {base} on the Hugging Face Hub) and give --initial FILE"
        )
    tensors = load_file(file) if file.suffix == ".safetensors" else read_checkpoint(file)
    last = "patch_embed.proj.weight"
    prefix = next((key.removesuffix(last) for key in tensors if key.endswith(last)), "")
    own = {key.removeprefix(prefix): value.float() for key, value in tensors.items() if key.startswith(prefix)}
    tower = backbones.siglip_tower(TOWERS[name][0])
    try:
        load_strictly(tower, own, assign=True)
    except ValueError as error:
        raise ValueError(f"{file} is not {TOWERS[name][0]}, the tower of {name}: {error}") from error
    return tower


def train_leiq_authors(
    name: str,
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    initial: Path | None = None,
    from_scratch: bool = False,
    resume: bool = False,
    device: str = "cpu",
) -> Path:
    """Train, select the best epoch, map its outputs to the labels' scales and write the metric to ``out/name``.

    ``initial`` is the file of SigLIP2 weights that the tower starts from; ``from_scratch`` starts from random weights
    instead, and the card says so. Other arguments and errors are those of ``train_leiq``.

    Raises:
        WeightsNotFound: no weights to start from, and ``from_scratch`` is false.
    """
    if from_scratch and initial is not None:
        raise ValueError(f"--from-scratch starts from random weights, not from {initial}; give one of the two")
    ranks = start_run(name, out, recipe, device)
    train_items, val_items = read_split(data, recipe)

    tower = backbones.siglip_tower(TOWERS[name][0], "cpu") if from_scratch else load_tower(name, initial)
    tower.set_grad_checkpointing(recipe.checkpointing)  # type: ignore[operator]
    network = SiglipNetwork(name, tower).to(device)
    for task in network.tasks:
        labels_of(val_items, task)  # raises now, rather than after an epoch, if labels are missing

    validation = Validation(val_items)
    run_epochs(network, train_items, validation, recipe, out, resume, ranks)

    directory = out / name
    if ranks.rank == 0:
        network.load_state_dict(validation.weights)
        card = make_card(get_card(name), recipe, len(train_items), validation, initial)
        LeiqSiglip(card, network, validation.mappings).save_pretrained(directory)
        log.info("wrote %s, epoch %d of %d", directory, validation.best + 1, recipe.epochs)
    ranks.barrier()
    return directory


def read_split(data: Path, recipe: Recipe) -> tuple[list[Rated], list[Rated]]:
    """Read MLE; return the training and validation pictures."""
    train_items, val_items = divide(mle.read(data), recipe.split, recipe.seed)
    log.info("%d training and %d validation pictures, split: %s", len(train_items), len(val_items), recipe.split)
    log.info("the best epoch is chosen and mapped on the validation pictures: its figures on them are optimistic")
    if len(train_items) < recipe.batch or len(val_items) < 4:
        raise ValueError(
            f"{data} has {len(train_items)} training and {len(val_items)} validation pictures; "
            f"a batch of {recipe.batch} and 4 are needed, lower --batch or complete the data set"
        )
    return train_items, val_items


def run_epochs(
    network: SiglipNetwork,
    items: Sequence[Rated],
    validation: Validation,
    recipe: Recipe,
    out: Path,
    resume: bool,
    ranks: Ranks,
) -> None:
    """Train on random squares of the pictures; ``validation`` stores the best epoch's weights."""
    album = Album()
    device = next(network.parameters()).device
    labels = {task: torch.tensor(labels_of(items, task), device=device) for task in network.tasks}

    def batch_loss(net: SiglipNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.choice(len(items), recipe.batch, replace=False)
        corners = rng.random((recipe.batch, 2))
        mine = ranks.share(list(zip(chosen, corners, strict=True)))
        crops = torch.stack([album.crop(items[index].path, net.side, corner) for index, corner in mine])

        raw = net.outputs(crops.to(device), torch.bfloat16 if recipe.half else None)
        together = ranks.gather(torch.stack(list(raw.values()), 1))  # (batch, tasks)
        losses = {
            task: plcc_loss(column, labels[task][chosen]) for task, column in zip(raw, together.unbind(1), strict=True)
        }
        return torch.stack(list(losses.values())).sum(), {task: loss.item() for task, loss in losses.items()}

    facts = [(item.path.name, item.mos) for item in (*items, *validation.rated)]
    schedule = Steps(
        epochs=recipe.epochs,
        steps_per_epoch=len(items) // recipe.batch,
        warmup=0,
        weight_decay=recipe.weight_decay,
        average=0,
        seed=recipe.seed,
        decay=recipe.decay,
        made_from={**asdict(recipe), "metric": network.name, "data": fingerprint(facts)},
    )
    rates = [(list(network.parameters()), recipe.rate)]
    train(
        network,
        rates,
        batch_loss,
        schedule,
        out,
        resume=resume,
        validate=validation,
        stateful=[validation],
        ranks=ranks,
    )


def make_card(card: Card, recipe: Recipe, pictures: int, validation: Validation, initial: Path | None) -> Card:
    """Return the card of the trained metric: its initial weights, its data and its figures."""
    checked, scenes = len(validation.rated), len({item.group for item in validation.rated})
    others = f"{checked} pictures of {scenes} {'other' if recipe.split == 'scene' else 'of the same'} scenes"
    best, last = validation.epochs[validation.best], validation.epochs[-1]
    tasks = [key.removesuffix("_srcc") for key in best if key.endswith("_srcc")]
    return replace(
        card,
        summary=f"LEIQ-Assessor trained by `lowlight-iqa train {card.name}`; not the authors' checkpoint.",
        source="LEIQ-Assessor, QoMEX 2026, arXiv 2606.29752; the authors' loss and preprocessing, recipe of a sibling",
        license="research use; MLE, the training data, states no license",
        trained_on=f"{pictures} pictures of MLE; epoch and scale chosen on {others}, split {recipe.seed}; tower "
        + (f"from {initial.name}" if initial else "FROM RANDOM WEIGHTS, without SigLIP2's training"),
        base_model=card.base_model if initial else "",
        checkpoint="",
        looks=0,
        reached={
            f"{task}, {others}": f"best epoch, {validation.best + 1} of {recipe.epochs}, optimistic as chosen by these "
            f"very pictures: SRCC {best[f'{task}_srcc']:.3f}, PLCC {best[f'{task}_plcc']:.3f}; "
            f"last epoch SRCC {last[f'{task}_srcc']:.3f}, PLCC {last[f'{task}_plcc']:.3f}"
            for task in tasks
        },
    )
