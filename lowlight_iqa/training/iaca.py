"""The recipe of ``iaca``: people's scores, the norm-in-norm loss on three outputs.

It is IACA's training adapted to a compact trunk and one processor; docs/iaca.md lists the differences.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..card import Card
from ..data import Rated
from ..distributed import Ranks
from ..functional.logistic import fit_logistic
from ..metrics.iaca import Iaca, IacaNetwork
from ..registry import get_card
from .loop import Schedule, check_numbers, log, start_run, train
from .losses import norm_in_norm
from .pictures import Album, agreement, random_crop, starting_trunk, to_tensor
from .ratings import Ratings, read_ratings


@dataclass(frozen=True)
class Recipe:
    """Every number of the training."""

    dataset: str = "biq2021"  # any of ``ratings.DATASETS``
    trunk: str = "lite2"
    initial: str = ""  # metric whose trunk training starts from, see ``starting_trunk``; else ImageNet's
    taps: tuple[int, ...] = (4, 6)  # stages of the trunk that are pooled
    illumination: bool = True  # weight positions by illumination; off for the ablation
    gating: bool = True  # gate deviations by means; off for the ablation
    epochs: int = 3
    batch: int = 24
    crop: int = 320
    rotation: float = 0.0  # degrees in either direction; IACA rotates by up to 2
    side: float = 0.1  # weight in the loss of each tap's own output
    trunk_rate: float = 1e-4
    head_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 50  # steps
    average: float = 0.98  # decay of the averaged weights, the ones that are saved
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, positive=("epochs", "batch", "crop"))


def iaca_loss(outputs: Tensor, target: Tensor, side: float = 0.1) -> Tensor:
    """Return the norm-in-norm loss of the last of outputs (N, K) plus ``side`` times that of each of the others."""
    *sides, whole = outputs.unbind(1)
    return norm_in_norm(whole, target) + side * torch.stack([norm_in_norm(each, target) for each in sides]).sum()


def rotated(picture: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate a picture (H, W, 3) about its center, nearest neighbor, black beyond the border, as IACA does."""
    return np.asarray(Image.fromarray(picture).rotate(degrees)) if degrees else picture


def train_iaca(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    resume: bool = False,
    device: str = "cpu",
) -> Path:
    """Train, map the output to the scores' scale on held-out pictures and write the metric to ``out/iaca``.

    Arguments and errors are those of ``train_leiq``.
    """
    ranks = start_run("iaca", out, recipe, device)
    album = Album()
    ratings = read_ratings(recipe.dataset, data, album, at_least=recipe.batch, batch_option="--batch")
    log.info("%d rated pictures, %d held out", len(ratings.train), len(ratings.val))

    network = IacaNetwork(recipe.trunk, recipe.taps, recipe.illumination, recipe.gating)
    network.trunk.load_state_dict(starting_trunk(recipe.trunk, recipe.initial).state_dict())
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    network = run_epochs(network, ratings, album, recipe, out, resume, ranks)

    directory = out / "iaca"
    if ranks.rank == 0:
        raw = outputs_of(network, ratings.val, album)
        mapping = fit_logistic(raw, [item.mos for item in ratings.val], limits=(0, 1))
        card = make_card(get_card("iaca"), recipe, ratings, agreement(raw, ratings.val))
        Iaca(card, network.cpu(), mapping).save_pretrained(directory)
        log.info("wrote %s", directory)
    ranks.barrier()
    return directory


def run_epochs(
    network: IacaNetwork, ratings: Ratings, album: Album, recipe: Recipe, out: Path, resume: bool, ranks: Ranks
) -> IacaNetwork:
    """Train on random crops; return the averaged network."""

    def batch_loss(net: IacaNetwork, rng: np.random.Generator, ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
        chosen = [ratings.train[i] for i in rng.choice(len(ratings.train), recipe.batch, replace=False)]
        angles = rng.uniform(-recipe.rotation, recipe.rotation, recipe.batch)
        crops = [
            random_crop(rotated(album(item.path), angle), recipe.crop, rng)
            for item, angle in zip(chosen, angles, strict=True)
        ]
        device = net.output.weight.device
        outputs = ranks.gather(net(to_tensor(ranks.share(crops)).to(device)))  # (batch, taps + 1)
        return iaca_loss(outputs, torch.tensor([item.mos for item in chosen], device=device), recipe.side), {}

    def validate(net: IacaNetwork) -> dict[str, float]:
        return agreement(outputs_of(net, ratings.val, album), ratings.val)

    schedule = Schedule(
        epochs=recipe.epochs,
        steps_per_epoch=len(ratings.train) // recipe.batch,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        average=recipe.average,
        seed=recipe.seed,
        made_from={**asdict(recipe), "data": ratings.fingerprint()},
    )
    heads = [*network.taps.parameters(), *network.output.parameters()]
    rates = [(list(network.trunk.parameters()), recipe.trunk_rate), (heads, recipe.head_rate)]
    return train(network, rates, batch_loss, schedule, out, resume=resume, validate=validate, ranks=ranks)


@torch.inference_mode()
def outputs_of(network: IacaNetwork, rated: Sequence[Rated], album: Album) -> np.ndarray:
    """Return the network's last raw output for whole pictures, float64."""
    device = network.output.weight.device
    parts = [network(album.tensor(item.path).to(device))[:, -1] for item in rated]
    return torch.cat(parts).double().cpu().numpy()


def make_card(card: Card, recipe: Recipe, ratings: Ratings, figures: dict[str, float]) -> Card:
    """Return the card of the trained metric."""
    without = [name for name in ("illumination", "gating") if not getattr(recipe, name)]
    return ratings.card(
        card,
        figures,
        summary="IACA's method on a compact trunk, trained by `lowlight-iqa train iaca`"
        f"{''.join(f', without {name}' for name in without)}; not the authors' checkpoint.",
        trained_on=f"{len(ratings.train)} pictures of {ratings.source} (MOS); trunk "
        f"EfficientNet-{recipe.trunk.capitalize()} from {'a trained metric' if recipe.initial else 'ImageNet'}",
    )
