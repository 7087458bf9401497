"""Shared by the stages: the initial network, its files, the trained parameters, and the call of the training loop."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ...data import Rated
from ...distributed import Ranks
from ...metrics.bmqa.network import BmqaNetwork, Config, paper_config
from ...metrics.bmqa.towers import TimmTower
from ...metrics.bmqa.vocabulary import Vocabulary
from ...weights.files import load_strictly, serialize
from ...wholefile import replacing
from ..loop import Schedule, train
from ..pictures import Album, starting_trunk
from .material import Material
from .recipe import Recipe

NETWORK = "network.safetensors"


@dataclass(frozen=True)
class Stage:
    """A stage of a run."""

    name: str
    folder: Path
    recipe: Recipe
    material: Material
    resume: bool
    ranks: Ranks

    def train(
        self,
        network: BmqaNetwork,
        rates: Sequence[tuple[Sequence[nn.Parameter], float]],
        batch_loss: Callable[[BmqaNetwork, np.random.Generator, Ranks], tuple[Tensor, Mapping[str, float]]],
        steps: int,
        *,
        validate: Callable[[BmqaNetwork], Mapping[str, float]] | None = None,
        stop: Callable[[Mapping[str, float]], bool] | None = None,
    ) -> BmqaNetwork:
        """Call ``loop.train`` with the stage's schedule of ``steps`` per epoch."""
        recipe = self.recipe
        schedule = Schedule(
            getattr(recipe, f"{self.name}_epochs"),
            max(1, steps),
            recipe.warmup,
            recipe.weight_decay,
            recipe.average,
            recipe.seed,
            {**asdict(recipe), "stage": self.name, "data": self.material.fingerprint()},
        )
        return train(
            network,
            rates,
            batch_loss,
            schedule,
            self.folder,
            resume=self.resume,
            validate=validate,
            stop=stop,
            ranks=self.ranks,
        )


# The initial network and its files


def new_network(recipe: Recipe, vocabulary: Vocabulary, initial: str | None) -> BmqaNetwork:
    """Build an untrained network around a trained trunk."""
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
def standardize(network: BmqaNetwork, items: Sequence[Rated], album: Album, *, trained: bool) -> None:
    """Center and scale the tower's features by those of about 300 of the pictures.

    If the trunk is not ``trained``, its batch norms are first set to the pictures' statistics.
    """
    some = items[:: max(1, len(items) // 300)]
    if not trained and isinstance(network.tower, TimmTower):
        side = network.tower.size
        small = [F.interpolate(album.tensor(item.path), (side, side), mode="bilinear", antialias=True) for item in some]
        update_bn(torch.cat(small).split(16), network.tower)

    network.eval()
    features = torch.cat([network.tower(album.tensor(item.path))[0] for item in some])
    network.center.copy_(features.mean(0))
    network.scale.copy_(features.std(0) + 1e-3)


def write_network(path: Path, network: BmqaNetwork, rules: Mapping[str, list[float]]) -> None:
    """Write a stage's network for the next stage."""
    facts = {"network": asdict(network.config), "words": list(network.vocabulary.words), "rules": rules}
    with replacing(path) as new:
        new.write_bytes(serialize(network.state_dict(), facts))


def read_network(path: Path, modalities: str) -> tuple[BmqaNetwork, dict[str, list[float]]]:
    """Read a network written by ``write_network``, with other modalities.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["config"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
        config = replace(Config(**facts["network"]), modalities=modalities)
        network = BmqaNetwork(config, Vocabulary(facts["words"]))
        rules = facts["rules"]
    except Exception as error:  # safetensors raises an error of its own
        raise ValueError(f"{path} is damaged ({error}); run its stage again") from error
    load_strictly(network, tensors)
    return network, rules
