"""``lowlight-iqa export``: write a metric as an ONNX file."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``export``."""
    parser.description = "Write a metric as an ONNX file, compare its scores with the metric's, and print its path."
    parser.add_argument("name", metavar="NAME", help="such as leiq")
    parser.add_argument("--weights", metavar="DIR", help="instead of its own")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="or NAME.onnx")


def run(args: argparse.Namespace) -> int:
    """Export, and print the file's path."""
    from ..exporting import export_onnx
    from ..registry import create_metric

    print(export_onnx(create_metric(args.name, weights=args.weights), args.out or Path(f"{args.name}.onnx")))
    return 0
