"""``lowlight-iqa cite``: the BibTeX of the papers behind metrics."""

from __future__ import annotations

import argparse

from ..citations import bibtex
from .options import Subparsers


def add(subparsers: Subparsers) -> None:
    """Declare ``cite``."""
    parser = subparsers.add_parser(
        "cite",
        help="print the BibTeX of a metric's paper",
        description="Print the BibTeX of the papers behind metrics.",
    )
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print each paper once, in the order of the names."""
    print("\n\n".join(dict.fromkeys(bibtex(name) for name in args.names)))
    return 0
