"""The heads of ``leiq`` in closed form: their initialization, and the final fit to ladders of falling exposure.

A head is linear in the trunk's pooled statistics, so both are convex problems.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from ...attributes import ATTRIBUTES
from ...data import Rated
from ...metrics.leiq import LeiqNetwork
from ..degradations import LADDER, TENTH, render
from ..linear import adjust, layers_of, weight_of
from ..loop import log
from ..pictures import Album, to_tensor
from .groups import Group, Material
from .recipe import Recipe

NOISE_SIDES = (512, 384, 384, 256, 256, 256, 128, 128, 128)


@torch.no_grad()
def statistics(network: LeiqNetwork, pictures: Iterable[Tensor], total: int, frozen: int = 0) -> Tensor:
    """Return the trunk's pooled statistics (N, F) of batches of pictures, with ``frozen`` stages as in training."""
    from tqdm import tqdm

    bar = tqdm(pictures, total=total, desc="features", disable=None)
    return torch.cat([network.statistics(batch.to(network.center.device), frozen) for batch in bar])


def of_pictures(network: LeiqNetwork, items: Sequence[Rated], album: Album, frozen: int = 0) -> Tensor:
    """Return the statistics of whole rated pictures, (N, F)."""
    return statistics(network, (album.tensor(item.path) for item in items), len(items), frozen)


def standardized(network: LeiqNetwork, rows: Tensor) -> np.ndarray:
    """Standardize statistics as the network does before its heads, in float64."""
    values: np.ndarray = ((rows - network.center) / network.scale).double().cpu().numpy()
    return values


# Initialization


@torch.no_grad()
def start_heads(network: LeiqNetwork, material: Material, recipe: Recipe) -> None:
    """Standardize the pooled features and initialize every head by ridge regression on the untrained trunk's features.

    A random head would at first distort the trunk (Kumar et al., ICLR 2022).
    """
    train, groups = material.ratings.train, material.groups
    # In bfloat16 if training follows; without epochs these heads are final and need float32.
    frozen = len(network.trunk.stages) if recipe.epochs else 0
    of_rated = of_pictures(network, train, material.album, frozen)
    of_groups = of_degraded(network, groups, frozen)
    both = torch.cat([of_rated, of_groups])
    network.center.copy_(both.mean(0))
    network.scale.copy_(both.std(0) + 1e-4)

    x = standardized(network, of_rated)
    set_head(network, "mos", ridge(x, material.ratings.scores, material.chance * len(train), recipe.ridge))
    set_attributes(network, of_groups, groups, recipe)


@torch.no_grad()
def refit_attributes(network: LeiqNetwork, material: Material, recipe: Recipe) -> None:
    """Fit the attribute heads again by ridge regression, after the trunk has changed."""
    torch.manual_seed(recipe.seed)  # a resumed run has drawn other random numbers before
    set_attributes(network, of_degraded(network, material.groups), material.groups, recipe)


def of_degraded(network: LeiqNetwork, groups: Sequence[Group], frozen: int = 0) -> Tensor:
    """Return the statistics of all pictures of groups, (N, F)."""
    return statistics(network, (to_tensor(list(group.pictures)) for group in groups), len(groups), frozen)


def set_attributes(network: LeiqNetwork, rows: Tensor, groups: Sequence[Group], recipe: Recipe) -> None:
    """Set the attribute heads to the ridge regressions on statistics (N, F) of groups."""
    x = standardized(network, rows)
    targets = np.concatenate([group.targets for group in groups])
    for index, name in enumerate(ATTRIBUTES):
        set_head(network, name, ridge(x, targets[:, index], np.ones(len(targets)), recipe.ridge))


def ridge(x: np.ndarray, y: np.ndarray, weight: np.ndarray, strength: float) -> np.ndarray:
    """Return the weighted ridge regression (F,) of standardized labels y (N,) on centered features x (N, F)."""
    x = x - np.average(x, 0, weight)
    y = (y - np.average(y, weights=weight)) / y.std()
    weighted = x.T * weight
    solution: np.ndarray = np.linalg.solve(weighted @ x + strength * np.eye(x.shape[1]), weighted @ y)
    return solution


def set_head(network: LeiqNetwork, task: str, solution: np.ndarray) -> None:
    """Set a head to the linear map ``solution`` (F,), with small random weights in its other units for training."""
    first, second = layers_of(network.heads[task])
    for layer in (first, second):
        nn.init.normal_(layer.weight, std=0.02 / layer.in_features**0.5)
        nn.init.zeros_(layer.bias)
    first.weight[0] = torch.from_numpy(solution).to(first.weight)
    second.weight[0, 0] = 1.0


# The exposure ladder


@torch.no_grad()
def settle_order(network: LeiqNetwork, material: Material, recipe: Recipe) -> None:
    """Adjust the MOS head only, so that its score falls with the exposure of well-exposed training pictures.

    In training an exposure ramp is one group among many, and its first step, half the light, is often out of order.
    """
    lit = well_exposed(material, recipe)
    if not lit:
        return

    pictures = (material.album.tensor(item.path)[0] for item in lit)
    renderings = (torch.stack([render(picture, step) for step in LADDER]) for picture in pictures)
    ladders = standardized(network, statistics(network, renderings, len(lit)))
    ladders = rearrange(ladders, "(picture step) f -> picture step f", step=len(LADDER))
    # All rated pictures: if they were fewer than the features, a change could preserve their scores and move others.
    rated = standardized(network, of_pictures(network, material.ratings.train, material.album))

    before = weight_of(network.heads["mos"])
    spread = (rated @ before).std()
    rated = (rated - rated.mean(0)) / spread
    steps = (ladders[:, :-1] - ladders[:, 1:]) / spread
    steps = rearrange(steps, "picture step f -> (picture step) f")
    noise = standardized(network, statistics(network, noise_pictures(), len(NOISE_SIDES)))
    above = (ladders[:, None, TENTH] - noise) / spread
    above = rearrange(above, "picture noise f -> (picture noise) f")
    change = ladder_change(before, steps, above, rated, recipe)

    shares = [(steps @ head).reshape(len(lit), -1).min(1) > 0 for head in (before, before + change)]
    log.info("exposure ladders in order: %.3f, before %.3f", shares[1].mean(), shares[0].mean())
    adjust(network.heads["mos"], change)


def well_exposed(material: Material, recipe: Recipe) -> list[Rated]:
    """Return a random choice of well-exposed training pictures with good scores."""
    rng = np.random.default_rng([recipe.seed, 2])
    threshold = material.ratings.at_quantile_of(recipe.ladder_mos)
    lit = [item for item in material.ratings.train if 80 < item.mean_luma < 170 and item.mos >= threshold]
    return [lit[i] for i in rng.permutation(len(lit))[: recipe.ladders]]


def noise_pictures() -> Iterable[Tensor]:
    """Make pictures of uniform noise, (1, 3, S, S), colored and gray in turn."""
    generator = torch.Generator().manual_seed(0)
    for index, side in enumerate(NOISE_SIDES):
        codes = torch.randint(256, (1, 1 if index % 3 == 2 else 3, side, side), generator=generator)
        yield codes.expand(-1, 3, -1, -1) / 255


def ladder_change(
    head: np.ndarray, steps: np.ndarray, above: np.ndarray, rated: np.ndarray, recipe: Recipe
) -> np.ndarray:
    """Return the change d (F,) of a head (F,) that orders the ladders and changes other scores little.

    It minimizes a convex sum: squared hinges of the ladders' ``steps`` (S, F), differences of the statistics between
    each exposure and the next darker one; squared hinges of a tenth of the exposure ``above`` noise (T, F); the change
    of the scores of ``rated`` pictures, centered (N, F); and the size of d. All are in deviations of the head's scores
    of these.
    """
    penalty = recipe.ladder_keep * rated.T @ rated / len(rated) + recipe.ladder_ridge * np.eye(len(head))
    # Each set has the same weight whatever its size; hinges are squared, so rows are scaled by the root.
    weights = np.repeat([len(steps), len(above) / recipe.ladder_noise], [len(steps), len(above)]) ** -0.5
    rows = np.concatenate([steps, above]) * weights[:, None]
    margins = recipe.ladder_margin * weights
    change = np.zeros_like(head)
    for _ in range(20):  # Newton's method on a piecewise quadratic function
        active = rows @ (head + change) < margins
        target = margins[active] - rows[active] @ head
        previous = change
        change = np.linalg.solve(rows[active].T @ rows[active] + penalty, rows[active].T @ target)
        if np.allclose(previous, change, atol=1e-9):
            break
    return change
