"""``lowlight-iqa list``: print name, direction, range and summary of each metric."""

import argparse

from ..registry import get_card, list_metrics
from .options import print_table


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``list``."""
    parser.description = "List the metrics."
    parser.add_argument("--learned", action="store_true", help="only those trained on people's scores")
    parser.add_argument("--commercial", action="store_true", help="only those with weights for commercial use")


def run(args: argparse.Namespace) -> int:
    """Print name, direction, range and summary of each metric."""
    rows = [("name", "better", "range", "summary")]
    for name in list_metrics(learned=args.learned or None, commercial=args.commercial or None):
        card = get_card(name)
        low, high = card.score_range
        rows.append((name, "lower" if card.lower_better else "higher", f"{low:g} to {high:g}", card.summary))
    print_table(rows)
    return 0
