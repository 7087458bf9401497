"""``lowlight-iqa fit``: fit a bundled metric's score to your own ratings."""

import argparse
from pathlib import Path

from .options import add_device, pick_device


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``fit``."""
    from ..training.ratings import DATASETS

    parser.description = (
        "Fit the score of a metric to your own ratings in closed form, in minutes on a CPU, and print SRCC "
        "before and after on pictures left out of the fit, with 95 % bootstrap intervals. Ratings that cannot be "
        "predicted are refused."
    )
    parser.add_argument("metric", metavar="NAME", help="leiq, iaca or bmqa")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV with the columns image and mos (higher is better) and, for pictures of one scene, group",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for --weights DIR")
    parser.add_argument(
        "--scale",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="ends of the ratings' scale (default: the lowest and the highest rating)",
    )
    parser.add_argument("--dataset", choices=DATASETS, default="csv", help="what --data is (default: csv)")
    parser.add_argument("--weights", metavar="DIR", help="of the initial metric, instead of the bundled ones")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Fit, and print the agreement and the directory of the result."""
    from ..training.fit import fit

    result = fit(
        args.metric,
        args.data,
        args.out,
        dataset=args.dataset,
        scale=tuple(args.scale) if args.scale else None,
        weights=args.weights,
        device=pick_device(args.device),
    )
    print(result)
    print(result.directory)
    return 0
