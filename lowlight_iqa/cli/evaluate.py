"""``lowlight-iqa evaluate``: measure a metric's agreement with people on a data set."""

import argparse
import json
import os
import sys
from pathlib import Path

from .options import add_device, add_intervals, pick_device


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``evaluate``."""
    from ..data import list_datasets

    parser.description = (
        "Score every picture of a data set and print SRCC, KRCC, PLCC and RMSE with 95 % bootstrap "
        "intervals. Scores are cached: a second run is fast, an interrupted one continues."
    )
    parser.add_argument("-m", "--metric", required=True, metavar="NAME")
    parser.add_argument("--weights", metavar="DIR", help="instead of the bundled ones")
    parser.add_argument("--dataset", required=True, choices=list_datasets())
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="its folder; for csv, the file")
    parser.add_argument("--split", help="default: that of published results")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for every picture")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw MOS against score with the fitted logistic")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--submission", type=Path, metavar="FILE", help="write the MLE challenge's result.json")
    add_intervals(parser, 1000)
    parser.add_argument(
        "--distributed", action="store_true", help="divide the pictures among the processes of torchrun"
    )
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Print the figures and write the requested files."""
    from ..evaluation.evaluate import evaluate
    from ..wholefile import write_whole

    if args.submission and args.dataset != "mle":
        raise ValueError(f"--submission is for the MLE challenge, not for {args.dataset}; write --csv instead")
    if args.plot:
        from ..evaluation.plot import import_pyplot

        import_pyplot()  # raises now, rather than after scoring, if matplotlib is missing
    result = evaluate(
        args.metric,
        args.dataset,
        args.root,
        args.split,
        weights=args.weights,
        device=pick_device(args.device),
        cache=args.cache,
        draws=args.draws,
        progress=sys.stderr.isatty(),
        distributed=args.distributed,
    )
    if args.distributed and os.environ.get("RANK", "0") != "0":  # only one of the processes prints and writes
        return 0
    print(result)
    if args.csv:
        result.write_csv(args.csv)
    if args.json:
        write_whole(args.json, json.dumps(result.facts(), indent=2) + "\n")
    if args.submission:
        result.write_submission(args.submission)
    if args.plot:
        result.plot(args.plot)
    return 0
