"""``lowlight-iqa cite``: the BibTeX of the papers behind metrics."""

import argparse

from ..citations import bibtex


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``cite``."""
    parser.description = "Print the BibTeX of the papers behind metrics."
    parser.add_argument("names", metavar="NAME", nargs="+")


def run(args: argparse.Namespace) -> int:
    """Print each paper once, in the order of the names."""
    print("\n\n".join(dict.fromkeys(bibtex(name) for name in args.names)))
    return 0
