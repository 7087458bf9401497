"""``lowlight-iqa train``: one subcommand a recipe, one option a number of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from .options import PROGRAM, Parser, Subparsers, add_device, pick_device
from .score import find_pictures

R = TypeVar("R")  # a recipe


def add(subparsers: Subparsers, argv: Sequence[str]) -> None:
    """Declare ``train`` and what can be trained."""
    parser = subparsers.add_parser(
        "train",
        description="Train a metric; works unchanged under torchrun. The result is a directory for --weights.",
    )
    chosen = parser.add_subparsers(title="recipes", metavar="RECIPE", required=True)
    add_train_leiq(chosen, argv)
    add_train_iaca(chosen)
    add_train_bmqa(chosen)


def add_train_leiq(subparsers: Subparsers, argv: Sequence[str]) -> None:
    """Declare ``train leiq``: by the --backbone in ``argv`` the compact recipe or that of the authors' models."""
    from ..backbones import COMPACT
    from ..training.leiq.train import Recipe, train_leiq
    from ..training.leiq_authors import METRICS

    first = Parser(prog=f"{PROGRAM} train leiq", add_help=False, allow_abbrev=False)
    first.add_argument("--backbone", choices=[*COMPACT, *METRICS])
    if first.parse_known_args(argv if list(argv[:2]) == ["train", "leiq"] else [])[0].backbone in METRICS:
        add_train_leiq_siglip(subparsers)
        return

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        clean = list(find_pictures(args.clean))
        return train_leiq(args.data, args.out, recipe, clean=clean, resume=args.resume, device=device)

    parser = add_recipe(subparsers, "leiq", "BIQ2021", Recipe, train)
    parser.epilog = f"--backbone {' or '.join(METRICS)} trains the authors' models, on MLE: see --help with it."
    parser.add_argument(
        "--clean", type=Path, action="append", default=[], metavar="DIR", help="folder of more clean pictures"
    )


def add_train_leiq_siglip(subparsers: Subparsers) -> None:
    """Declare ``train leiq`` with a backbone of the authors'."""
    from ..training.leiq_authors import Recipe, train_leiq_siglip

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        start = {"initial": args.initial, "from_scratch": args.from_scratch}
        return train_leiq_siglip(args.data, args.out, recipe, **start, resume=args.resume, device=device)

    parser = add_recipe(subparsers, "leiq", "MLE", Recipe, train)
    parser.add_argument(
        "--initial", type=Path, metavar="FILE", help="SigLIP2 weights of the tower: safetensors or a state dict"
    )
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights instead")


def add_train_iaca(subparsers: Subparsers) -> None:
    """Declare ``train iaca``."""
    from ..training.iaca import Recipe, train_iaca

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        return train_iaca(args.data, args.out, recipe, resume=args.resume, device=device)

    add_recipe(subparsers, "iaca", "BIQ2021", Recipe, train)


def add_train_bmqa(subparsers: Subparsers) -> None:
    """Declare ``train bmqa``."""
    from ..training.bmqa.train import STAGES, Recipe, train_bmqa

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        return train_bmqa(
            args.data,
            args.out,
            recipe,
            stage=args.stage,
            texts=args.mle,
            initial=args.initial,
            resume=args.resume,
            device=device,
        )

    parser = add_recipe(subparsers, "bmqa", "BIQ2021", Recipe, train)
    parser.add_argument("--stage", required=True, choices=STAGES, help="each starts from the last before it in --out")
    parser.add_argument("--mle", type=Path, metavar="DIR", help="MLE's folder, for its descriptions")
    parser.add_argument(
        "--initial", metavar="PATH", help="whose trunk the first stage starts from: leiq, or the directory of a metric"
    )


def add_recipe(
    subparsers: Subparsers,
    name: str,
    data: str,
    recipe: Callable[..., R],
    train: Callable[[argparse.Namespace, R, str], Path],
) -> argparse.ArgumentParser:
    """Declare a recipe, a dataclass: every number of it is an option. ``train`` is given the options and the device."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=f"train {name} on {data}",
        description=f"Train {name} on {data} and print the directory of the result.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=f"the {data} folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="log, checkpoint and result")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    add_device(parser)
    defaults = asdict(recipe())  # type: ignore[call-overload]
    for field_name, value in defaults.items():
        kind: dict[str, Any] = {"type": type(value)}
        if isinstance(value, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(value, tuple):
            kind = {"type": type(value[0]), "nargs": "+"}
        parser.add_argument(f"--{field_name.replace('_', '-')}", default=value, help="(of the recipe)", **kind)

    def run(args: argparse.Namespace) -> int:
        given = {key: getattr(args, key) for key in defaults}
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        print(train(args, recipe(**given), pick_device(args.device)))
        return 0

    parser.set_defaults(run=run)
    return parser
