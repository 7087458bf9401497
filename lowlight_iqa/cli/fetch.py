"""``lowlight-iqa fetch``: download weights and check their hashes."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``fetch``."""
    parser.description = (
        "Download weights into the cache, or copy them to a directory for a machine without a network, "
        "check their hashes and print their path."
    )
    parser.add_argument("what", metavar="NAME", help="a metric, or hf://owner/repo@COMMIT")
    parser.add_argument("--to", type=Path, metavar="DIR", help="for create_metric(..., weights=DIR)")


def run(args: argparse.Namespace) -> int:
    """Download and check weights, and print their path."""
    from ..registry import get_card
    from ..weights.resolve import name_of, on_hub
    from ..weights.transfer import fetch

    if on_hub(args.what):
        print(fetch(get_card(name_of(args.what)), args.what, args.to))
    else:
        print(fetch(get_card(args.what), to=args.to))
    return 0
