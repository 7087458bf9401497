"""``lowlight-iqa train``: one subcommand for each recipe, one option for each of its numbers."""

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..scoring.sources import find_pictures
from .options import Subparsers, add_device, pick_device, report


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``train`` and its recipes."""
    from ..training import bmqa, iaca, leiq, leiq_authors

    parser.description = "Train a metric; works unchanged under torchrun. The result is a directory for --weights."
    chosen = parser.add_subparsers(title="recipes", metavar="RECIPE", required=True)
    rated = "BIQ2021 or another data set"

    recipe = add_recipe(
        chosen, "leiq", rated, leiq.Recipe, leiq.train_leiq, lambda args: {"clean": list(find_pictures(args.clean))}
    )
    recipe.add_argument(
        "--clean", type=Path, action="append", default=[], metavar="DIR", help="folder of further clean pictures"
    )

    for name in ("leiq-b16", "leiq-so400m"):
        recipe = add_recipe(
            chosen,
            name,
            "MLE",
            leiq_authors.Recipe,
            partial(leiq_authors.train_leiq_authors, name),
            lambda args: {"initial": args.initial, "from_scratch": args.from_scratch},
        )
        recipe.add_argument(
            "--initial", type=Path, metavar="FILE", help="SigLIP2 weights of the tower: safetensors or a state dict"
        )
        recipe.add_argument("--from-scratch", action="store_true", help="start from random weights instead")

    add_recipe(chosen, "iaca", rated, iaca.Recipe, iaca.train_iaca)

    recipe = add_recipe(
        chosen,
        "bmqa",
        rated,
        bmqa.Recipe,
        bmqa.train_bmqa,
        lambda args: {"stage": args.stage, "texts": args.mle, "initial": args.initial},
    )
    recipe.add_argument(
        "--stage", required=True, choices=bmqa.STAGES, help="each starts from the last before it in --out"
    )
    recipe.add_argument("--mle", type=Path, metavar="DIR", help="MLE's folder, for its descriptions")
    recipe.add_argument(
        "--initial", metavar="PATH", help="metric whose trunk the first stage starts from: leiq, or a directory"
    )


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


def add_recipe(
    subparsers: Subparsers,
    name: str,
    data: str,
    recipe: Callable[..., Any],
    train: Callable[..., Path],
    further: Callable[[argparse.Namespace], dict[str, Any]] = lambda args: {},
) -> argparse.ArgumentParser:
    """Declare a subcommand that trains the metric ``name`` on ``data``, with an option for each field of ``recipe``.

    ``train`` is called with data, out, recipe, resume and device, and what ``further`` returns.
    """
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

    defaults = asdict(recipe())
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
        common = {"resume": args.resume, "device": pick_device(args.device)}
        return train(args.data, args.out, recipe(**fields), **common, **further(args))

    parser.set_defaults(train=train_by)
    return parser
