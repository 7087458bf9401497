"""``lowlight-iqa convert``: make weights of the authors' checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import Subparsers


def add(subparsers: Subparsers) -> None:
    """Declare ``convert``."""
    parser = subparsers.add_parser(
        "convert",
        description="Make weights of an authors' checkpoint, or of the splits in a folder. No code in it is run.",
    )
    parser.add_argument("name", metavar="NAME", help="the metric, such as leiq-b16")
    parser.add_argument("source", metavar="FILE_OR_FOLDER", type=Path, help="a .pth, or the folder of a model's splits")
    parser.add_argument(
        "--mat",
        metavar="FILE_OR_FOLDER",
        type=Path,
        help="predictions and labels that the scale is fitted to (default: the .mat beside each .pth)",
    )
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("-o", "--out", type=Path, metavar="DIR", help="for --weights DIR")
    place.add_argument("--install", action="store_true", help="for the metric's bare name")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and print the directory of the result."""
    from ..weights.checkpoint import convert
    from ..weights.files import store_dir

    print(convert(args.name, args.source, store_dir(args.name) if args.install else args.out, args.mat))
    return 0
