"""``lowlight-iqa convert``: convert the authors' checkpoints to weights."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``convert``."""
    parser.description = (
        "Convert an authors' checkpoint, or those of all splits in a folder, and install the weights under "
        "the metric's name. No code in it is run."
    )
    parser.add_argument("name", metavar="NAME", help="the metric, such as leiq-b16")
    parser.add_argument("source", metavar="FILE_OR_FOLDER", type=Path, help="a .pth, or the folder of a model's splits")
    parser.add_argument(
        "--mat",
        metavar="FILE_OR_FOLDER",
        type=Path,
        help="predictions and labels that the scale is fitted to (default: the .mat next to each .pth)",
    )
    for name in ("slope", "intercept"):
        parser.add_argument(
            f"--{name}", type=float, metavar="X", help="of score = slope * output + intercept (iaca-resnext101)"
        )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-o", "--out", type=Path, metavar="DIR", help="write there, for --weights DIR")
    target.add_argument("--install", action="store_true", help="make them the metric's default weights (default)")


def run(args: argparse.Namespace) -> int:
    """Convert, and print the directory of the result."""
    from ..registry import get_card, get_class, list_metrics
    from ..weights.checkpoint import convert
    from ..weights.resolve import installed

    card, build = get_card(args.name), getattr(get_class(args.name), "from_tensors", None)
    if build is None:
        convertible = [name for name in list_metrics() if hasattr(get_class(name), "from_tensors")]
        raise ValueError(f"{args.name} has no checkpoint to convert; convert is for {', '.join(convertible)}")
    numbers = {name: getattr(args, name) for name in ("slope", "intercept") if getattr(args, name) is not None}
    print(convert(card, build, args.source, args.out or installed(args.name), args.mat, numbers))
    return 0
