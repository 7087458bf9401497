"""``lowlight-iqa card``: print the facts of a metric."""

from __future__ import annotations

import argparse

from ..registry import get_card, get_class


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``card``."""
    parser.description = "Print a card."
    parser.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """Print the facts of a metric."""
    print(get_card(args.name))
    if get_class(args.name).__module__.startswith("lowlight_iqa."):
        print("  license of the code: Apache-2.0; the license above is that of weights or parameters")
    return 0
