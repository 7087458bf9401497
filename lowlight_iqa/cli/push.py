"""``lowlight-iqa push``: upload weights to the Hugging Face Hub."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``push``."""
    parser.description = "Check weights, upload them and print the pinned name under which they can be loaded."
    parser.add_argument("directory", metavar="DIR", type=Path, help="written by save_pretrained or train")
    parser.add_argument("repo", metavar="OWNER/REPO", help="created if it does not exist")
    parser.add_argument("--private", action="store_true", help="make it private")


def run(args: argparse.Namespace) -> int:
    """Check, upload and print ``hf://owner/repo@<commit>``."""
    from ..registry import get_card
    from ..weights.resolve import name_of
    from ..weights.transfer import push

    print(push(get_card(name_of(args.directory)), args.directory, args.repo, private=args.private))
    return 0
