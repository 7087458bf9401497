"""The recipe of ``iaca``: people's scores, the norm-in-norm loss on three outputs.

It follows IACA's training with what a compact trunk and one processor ask for; docs/iaca.md lists the differences.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..card import Card
from ..data import biq2021
from ..distributed import Ranks
from ..functional.logistic import fit_logistic
from ..metrics.iaca import Iaca, IacaNetwork
from ..registry import find
from .loop import Schedule, log, start_log, train
from .losses import norm_in_norm
from .pictures import Album, agreement, random_crop, starting_trunk, to_tensor


@dataclass(frozen=True)
class Recipe:
    """Every number of the training."""

    trunk: str = "lite2"
    initial: str = ""  # whose trunk to start from, see ``starting_trunk``; else ImageNet's
    taps: tuple[int, ...] = (4, 6)  # stages of the trunk that are looked at
    illumination: bool = True  # weigh places by illumination; off for the ablation
    gating: bool = True  # gate deviations by means; off for the ablation
    epochs: int = 3
    batch: int = 24
    crop: int = 320
    rotation: float = 0.0  # degrees to either side; IACA turns by up to 2
    side: float = 0.1  # weight in the loss of each tap's own output
    trunk_rate: float = 1e-4
    head_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 50  # steps
    average: float = 0.98  # decay of the averaged weights, the ones that are kept
    seed: int = 0


def iaca_loss(outputs: Tensor, target: Tensor, side: float = 0.1) -> Tensor:
    """Norm-in-norm loss of the last column of outputs (N, K), and with weight ``side`` of each of the others."""
    *sides, whole = outputs.unbind(1)
    return norm_in_norm(whole, target) + side * torch.stack([norm_in_norm(each, target) for each in sides]).sum()


def rotated(picture: np.ndarray, degrees: float) -> np.ndarray:
    """A picture (H, W, 3) turned about its center, nearest neighbor, black beyond the border, as IACA does it."""
    return np.asarray(Image.fromarray(picture).rotate(degrees)) if degrees else picture


def train_iaca(data: Path, out: Path, recipe: Recipe, *, resume: bool = False, device: str = "cpu") -> Path:
    """Train, map the output to the scale of the scores on held-out pictures and write the metric to ``out/iaca``.

    Args:
        data: the BIQ2021 folder.
        out: folder of the run: ``train.log``, ``checkpoint.pt``, ``iaca/`` in the end.
        recipe: the numbers.
        resume: go on from the checkpoint.
        device: where to compute.

    Returns:
        The directory of the metric, for ``create_metric("iaca", weights=...)``.

    Raises:
        FileNotFoundError: the data set is not complete; nothing to resume from.
        ValueError: fewer pictures than a batch; the checkpoint is of another schedule.
    """
    ranks = Ranks.join(device)
    start_log(out, ranks)
    torch.manual_seed(recipe.seed)
    log.info("recipe %s", json.dumps(asdict(recipe)))
    rated, album = biq2021.read(data, "train"), Album()
    fitting, checking = ([item for item in rated if biq2021.held_out(item) == held] for held in (False, True))
    log.info("%d rated pictures, %d held out", len(fitting), len(checking))
    if len(fitting) < recipe.batch:
        raise ValueError(f"{data} has {len(fitting)} pictures to learn from, less than a batch; lower --batch")

    network = IacaNetwork(recipe.trunk, recipe.taps, recipe.illumination, recipe.gating)
    network.trunk.load_state_dict(starting_trunk(recipe.trunk, recipe.initial).state_dict())
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch_loss(net: IacaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        chosen = [fitting[i] for i in rng.choice(len(fitting), recipe.batch, replace=False)]
        angles = rng.uniform(-recipe.rotation, recipe.rotation, recipe.batch)
        crops = [
            random_crop(rotated(album(item.path), angle), recipe.crop, rng)
            for item, angle in zip(chosen, angles, strict=True)
        ]
        outputs = ranks.gather(net(to_tensor(ranks.share(crops)).to(device)))  # (batch, taps + 1)
        target = torch.tensor([item.mos for item in chosen], device=device)
        return iaca_loss(outputs, target, recipe.side), {}

    schedule = Schedule(
        epochs=recipe.epochs,
        steps_per_epoch=len(fitting) // recipe.batch,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        average=recipe.average,
        seed=recipe.seed,
    )
    heads = [*network.taps.parameters(), *network.output.parameters()]

    def validate(net: IacaNetwork) -> dict[str, float]:
        return agreement(outputs_of(net, checking, album), checking)

    average = train(
        network,
        [(list(network.trunk.parameters()), recipe.trunk_rate), (heads, recipe.head_rate)],
        batch_loss,
        schedule,
        out,
        resume=resume,
        validate=validate,
        ranks=ranks,
    )
    directory = out / "iaca"
    if ranks.rank == 0:
        raw = outputs_of(average, checking, album)
        mapping = fit_logistic(raw, [item.mos for item in checking], limits=(0, 1))
        card = make_card(find("iaca")[1], recipe, len(fitting), agreement(raw, checking))
        Iaca.from_network(card, average.cpu(), mapping).save_pretrained(directory)
        log.info("wrote %s", directory)
    ranks.barrier()
    return directory


@torch.inference_mode()
def outputs_of(network: IacaNetwork, rated: Sequence[biq2021.Rated], album: Album) -> np.ndarray:
    """The last raw output on whole pictures, float64."""
    device = network.output.weight.device
    parts = [network(to_tensor([album(item.path)]).to(device))[:, -1] for item in rated]
    return torch.cat(parts).double().cpu().numpy()


def make_card(card: Card, recipe: Recipe, pictures: int, figures: dict[str, float]) -> Card:
    """The card of a freshly trained metric: what it is, what it learned from, its validation figures."""
    without = [name for name in ("illumination", "gating") if not getattr(recipe, name)]
    return replace(
        card,
        summary="IACA's method on a compact trunk, trained by `lowlight-iqa train iaca`"
        f"{''.join(f', without {name}' for name in without)}; not the authors' checkpoint.",
        trained_on=f"{pictures} pictures of BIQ2021's training list (MOS); trunk "
        f"EfficientNet-{recipe.trunk.capitalize()} from {'a trained metric' if recipe.initial else 'ImageNet'}",
        reached={f"{name}, held-out pictures": f"{value:.3f}" for name, value in figures.items()},
    )
