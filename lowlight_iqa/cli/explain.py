"""``lowlight-iqa explain``: write one picture's maps, score, attributes and sentence on one page."""

import argparse
from pathlib import Path

from ..extras import require
from .options import add_device, pick_device, printable

KINDS = (".html", ".png")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``explain``."""
    parser.description = "Write one page (or figure) with a picture, maps over it, score, attributes and sentence."
    parser.add_argument("picture", metavar="PICTURE", type=Path)
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, required=True, help="page.html or figure.png")
    parser.add_argument("-m", "--metric", default="leiq", help="leiq, iaca, bmqa, niqe, ... (default leiq)")
    parser.add_argument("--weights", metavar="DIR", help="instead of the metric's default weights")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page or the figure."""
    kind = args.out.suffix.lower()
    if kind not in KINDS:
        raise ValueError(f"{args.out} is neither .html nor .png; give it one of these suffixes")
    for name in ("jinja2", "matplotlib"):
        require(name, f"explain needs {name}", "report")

    from ..explanation import explain, write_html, write_png
    from ..registry import create_metric

    metric = create_metric(args.metric, weights=args.weights, device=pick_device(args.device))
    try:
        explanation = explain(args.picture, metric)
    except TypeError as error:
        raise ValueError(str(error)) from error
    write = write_html if kind == ".html" else write_png
    write(explanation, args.out)
    print(f"wrote {printable(str(args.out))}")
    return 0
