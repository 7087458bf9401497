"""``lowlight-iqa train``: one subcommand for each recipe, one option for each of its numbers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from ..scoring.sources import find_pictures
from .options import Subparsers, add_device, pick_device, report

R = TypeVar("R")  # a recipe


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``train`` and its recipes."""
    parser.description = "Train a metric; works unchanged under torchrun. The result is a directory for --weights."
    chosen = parser.add_subparsers(title="recipes", metavar="RECIPE", required=True)
    add_train_leiq(chosen)
    for name in ("leiq-b16", "leiq-so400m"):
        add_train_leiq_authors(chosen, name)
    add_train_iaca(chosen)
    add_train_bmqa(chosen)


def run(args: argparse.Namespace) -> int:
    """Train, and print the directory of the result."""
    from ..distributed import Ranks

    try:
        directory = args.train(args)
    except (ModuleNotFoundError, FloatingPointError) as error:
        report(str(error))
        return 2
    finally:
        Ranks.leave()
    if os.environ.get("RANK", "0") == "0":  # only one of the processes prints it
        print(directory)
    return 0


def add_train_leiq(subparsers: Subparsers) -> None:
    """Declare ``train leiq``."""
    from ..training.leiq import Recipe, train_leiq

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        clean = list(find_pictures(args.clean))
        return train_leiq(args.data, args.out, recipe, clean=clean, resume=args.resume, device=device)

    parser = add_recipe(subparsers, "leiq", "BIQ2021 or another data set", Recipe, train)
    parser.add_argument(
        "--clean", type=Path, action="append", default=[], metavar="DIR", help="folder of further clean pictures"
    )


def add_train_leiq_authors(subparsers: Subparsers, name: str) -> None:
    """Declare ``train leiq-b16`` or ``train leiq-so400m``, the authors' models."""
    from ..training.leiq_authors import Recipe, train_leiq_authors

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        start = {"initial": args.initial, "from_scratch": args.from_scratch}
        return train_leiq_authors(name, args.data, args.out, recipe, **start, resume=args.resume, device=device)

    parser = add_recipe(subparsers, name, "MLE", Recipe, train)
    parser.add_argument(
        "--initial", type=Path, metavar="FILE", help="SigLIP2 weights of the tower: safetensors or a state dict"
    )
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights instead")


def add_train_iaca(subparsers: Subparsers) -> None:
    """Declare ``train iaca``."""
    from ..training.iaca import Recipe, train_iaca

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        return train_iaca(args.data, args.out, recipe, resume=args.resume, device=device)

    add_recipe(subparsers, "iaca", "BIQ2021 or another data set", Recipe, train)


def add_train_bmqa(subparsers: Subparsers) -> None:
    """Declare ``train bmqa``."""
    from ..training.bmqa import STAGES, Recipe, train_bmqa

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

    parser = add_recipe(subparsers, "bmqa", "BIQ2021 or another data set", Recipe, train)
    parser.add_argument("--stage", required=True, choices=STAGES, help="each starts from the last before it in --out")
    parser.add_argument("--mle", type=Path, metavar="DIR", help="MLE's folder, for its descriptions")
    parser.add_argument(
        "--initial", metavar="PATH", help="metric whose trunk the first stage starts from: leiq, or a directory"
    )


def add_recipe(
    subparsers: Subparsers,
    name: str,
    data: str,
    recipe: Callable[..., R],
    train: Callable[[argparse.Namespace, R, str], Path],
) -> argparse.ArgumentParser:
    """Declare a subcommand that calls ``train``, with an option for each field of ``recipe``, a dataclass."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=f"train {name} on {data}",
        description=f"Train {name} on {data} and print the directory of the result.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="folder of the data set; csv: the file"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="log, checkpoint and result")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    add_device(parser)

    defaults = asdict(recipe())  # type: ignore[call-overload]
    for field_name, value in defaults.items():
        kind: dict[str, Any] = {"type": type(value)}
        if isinstance(value, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(value, tuple):
            kind = {"type": type(value[0]), "nargs": "+"}
        parser.add_argument(f"--{field_name.replace('_', '-')}", default=value, help="(of the recipe)", **kind)

    def train_by(args: argparse.Namespace) -> Path:
        fields = {key: getattr(args, key) for key in defaults}
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        return train(args, recipe(**fields), pick_device(args.device))

    parser.set_defaults(train=train_by)
    return parser
