"""Training and validation data of ``leiq``: rated pictures, and groups of degraded versions of the clean ones."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...attributes import ATTRIBUTES
from ...data import Rated
from ...distributed import Ranks
from ...wholefile import replacing
from ..degradations import HALF, LADDER, RAMPS, TENTH, Degradation, degrade, is_typical, mixture, render
from ..loop import log
from ..losses import order_loss, plcc_loss
from ..pictures import Album, random_crop, to_tensor
from ..ratings import Ratings, read_ratings
from .recipe import Recipe

LEVELS = 6  # pictures of a group: the clean one and five degraded ones
# How much lower the next picture of a group should score, in deviations of the rated batch's scores. Ramps whose first
# steps people may like or not notice have no margin.
FULL_MARGIN = 0.4
MARGIN = {"mixture": 0.3, "jpeg": 0.2, "lift": 0.0, "halo": 0.0, "oversaturate": 0.0, "desaturate": 0.0}

PAIRS = ("exposure", "exposure", "exposure", "noise", "noise", "noise alone")


@dataclass(frozen=True)
class Group:
    """Degraded pictures of one clean picture."""

    kind: str  # name of a ramp, or "mixture"
    pictures: np.ndarray  # (LEVELS, H, W, 3) bytes, the clean one first
    targets: np.ndarray  # (LEVELS, 6) on 1..5


@dataclass(frozen=True)
class Material:
    """Training and validation data of a run."""

    ratings: Ratings
    chance: np.ndarray  # probability of drawing each training picture; sums to 1
    groups: list[Group]
    val_groups: list[Group]  # made from held-out pictures
    origin: str  # hash of the inputs of ``groups``
    album: Album


def gather_material(data: Path, out: Path, recipe: Recipe, clean: Sequence[Path], ranks: Ranks) -> Material:
    """Read the rated pictures and make the degraded ones."""
    album = Album(side=recipe.view)
    ratings = read_ratings(recipe.dataset, data, album, at_least=recipe.rated, batch_option="--rated")

    threshold = ratings.at_quantile_of(recipe.clean_mos)
    sources = [clean_pictures(part, threshold, album, recipe.degraded_crop) for part in (ratings.train, ratings.val)]
    sources[0] += clean
    for name, paths in zip(("training", "validation"), sources, strict=True):
        if not paths:
            raise ValueError(
                f"no {name} picture counts as clean (score above {threshold:.2f} of 1, well exposed, colored); "
                "lower --clean-mos or give more rated pictures"
            )

    size, seed = recipe.degraded_crop, recipe.seed
    val_count = max(8, recipe.degraded // 8)
    groups, origin = cached_groups(out / "degraded.npz", sources[0], recipe.degraded, size, seed, album, ranks)
    val_groups, _ = cached_groups(out / "held_out.npz", sources[1], val_count, size, seed + 1, album, ranks)
    return Material(ratings, chances(ratings, recipe.bright), groups, val_groups, origin, album)


def clean_pictures(rated: Sequence[Rated], threshold: float, album: Album, size: int) -> list[Path]:
    """Return the pictures with scores above a threshold that can be degraded in crops of ``size``."""
    return [item.path for item in rated if item.mos > threshold and is_clean(album(item.path), size)]


def is_clean(picture: np.ndarray, size: int) -> bool:
    """Check that a picture (H, W, 3) with a good score can be degraded in crops of ``size``."""
    return min(picture.shape[:2]) >= size and is_typical(to_tensor([picture])[0])


def chances(ratings: Ratings, bright: float) -> np.ndarray:
    """Return the probability of drawing each training picture; those that are not dark have ``bright`` together."""
    chance = np.array([1 - bright if item.dark else bright for item in ratings.train])
    for kind in (True, False):
        members = np.array([item.dark == kind for item in ratings.train])
        chance[members] /= max(1, members.sum())
    chance /= chance.sum()
    return chance


def make_groups(clean: Sequence[Path], count: int, size: int, seed: int, album: Album) -> Iterable[Group]:
    """Make groups of degraded crops; two of three are mixtures, the third is a ramp of each kind in turn."""
    kinds = list(RAMPS)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        crop = random_crop(album(clean[int(rng.integers(len(clean)))]), size, rng)
        kind = kinds[index // 3 % len(kinds)] if index % 3 == 2 else "mixture"
        ways = list(RAMPS[kind]) if kind in RAMPS else [mixture(rng) for _ in range(LEVELS - 1)]
        # Every camera has noise, and a target that is equal for most pictures could not be ranked.
        ways = [replace(how, noise=max(how.noise, rng.uniform(0.01, 0.08))) for how in ways]

        made = [degrade(to_tensor([crop])[0], how, rng) for how in ways]
        yield Group(
            kind,
            np.stack([crop, *(picture for picture, _ in made)]),
            np.array([[5.0] * len(ATTRIBUTES), *(targets for _, targets in made)], np.float32),
        )


def cached_groups(
    path: Path, clean: Sequence[Path], count: int, size: int, seed: int, album: Album, ranks: Ranks
) -> tuple[list[Group], str]:
    """Return ``make_groups`` of these arguments, read from a file if it holds them, and a hash of their inputs."""
    from tqdm import tqdm

    origin = origin_of(clean, count, size, seed)

    def write() -> None:
        groups = make_groups(clean, count, size, seed, album)
        write_groups(path, list(tqdm(groups, total=count, unit="group", desc=path.stem, disable=None)), origin)

    return ranks.make_once(path, lambda: read_groups(path, origin), write), origin


def origin_of(clean: Sequence[Path], count: int, size: int, seed: int) -> str:
    """Return a hash of all inputs of ``make_groups``: its arguments, the files and the degradations."""
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in clean]
    facts = [files, count, size, seed, LEVELS, HALF, repr(RAMPS)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_groups(path: Path, origin: str) -> list[Group] | None:
    """Read groups from a file; None if it does not exist, is damaged or was made from other inputs."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            saved_origin, kinds, pictures, targets = (file[name] for name in ("origin", "kinds", "pictures", "targets"))
    except Exception as error:  # zip, zlib and numpy each raise errors of their own
        log.info("%s is damaged (%s) and made again", path, error)
        return None
    if str(saved_origin) != origin:
        log.info("%s was made from other pictures or numbers and is made again", path)
        return None
    return [Group(str(kind), *arrays) for kind, *arrays in zip(kinds, pictures, targets, strict=True)]


def write_groups(path: Path, groups: Sequence[Group], origin: str) -> None:
    """Write groups for ``read_groups``."""
    with replacing(path) as new, new.open("wb") as file:
        np.savez(
            file,
            origin=np.array(origin),
            kinds=np.array([group.kind for group in groups]),
            pictures=np.stack([group.pictures for group in groups]),
            targets=np.stack([group.targets for group in groups]),
        )


def group_loss(
    groups: Sequence[Group], raw: dict[str, Tensor], targets: Tensor, spread: Tensor, order: float = 1.0
) -> Tensor:
    """Return the sum of the attributes' PLCC losses and, times ``order``, the MOS head's order loss over G groups.

    ``raw`` holds the heads' outputs in the groups' order, (G * LEVELS,) each; ``targets`` are (G * LEVELS, 6).
    ``spread``, the unit of the margin, is the deviation of the MOS outputs on rated pictures.
    """
    loss = torch.stack([plcc_loss(raw[name], targets[:, index]) for index, name in enumerate(ATTRIBUTES)]).sum()
    scores = rearrange(raw["mos"], "(group level) -> group level", level=LEVELS) / spread
    for group, row in zip(groups, scores, strict=True):
        margin = MARGIN.get(group.kind, FULL_MARGIN)
        if group.kind == "mixture":  # mixtures have no order among themselves; each is worse than the clean picture
            row = torch.stack([row[:1].expand(LEVELS - 1), row[1:]], 1)
        loss = loss + order * order_loss(row, margin) / len(groups)
    return loss


def make_pair(kind: str, clean: Tensor, rng: np.random.Generator) -> list[Tensor]:
    """Make two pictures (3, H, W) of a clean one; the second, darker, noisier or uniform noise, should score lower."""
    draw = rng.uniform
    if kind == "noise alone":
        noise = torch.from_numpy(rng.random(clean.shape, np.float32))
        return [render(clean, LADDER[TENTH]), noise[: rng.choice((1, 3))].expand(3, -1, -1)]
    stops = max(0.0, draw(-1.5, 4))
    better = Degradation(exposure=-stops, gain=stops * draw(0, 1), noise=max(0.0, draw(-0.3, 0.3)))
    darker, noisier = better.exposure - draw(0.7, 2.5), better.noise + draw(0.2, 0.6)
    worse = replace(better, exposure=darker) if kind == "exposure" else replace(better, noise=noisier)
    normal = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
    return [render(clean, how, normal) for how in (better, worse)]
