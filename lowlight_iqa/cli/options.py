"""Shared by the commands: the parser, error messages, tables, the choice of a device."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

PROGRAM = "lowlight-iqa"
Subparsers = Any  # argparse keeps the type of add_subparsers() private


class Parser(argparse.ArgumentParser):
    """A parser that prints errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Report wrong usage and exit with status 2."""
        report(f"{message}; see {self.prog} --help")
        sys.exit(2)


def report(message: str) -> None:
    """Print a problem in one line on stderr."""
    print(f"{PROGRAM}: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Escape control characters, so that a file's name cannot control the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns, with control characters escaped."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def add_metrics(parser: argparse.ArgumentParser, default: str) -> None:
    """Declare --metric, for ``metric_names``."""
    note = f"may be repeated, or NAME,NAME (default: {default})"
    parser.add_argument("-m", "--metric", action="append", metavar="NAME", help=note)


def metric_names(args: argparse.Namespace) -> list[str] | None:
    """Return the metrics given by --metric, each once; None for the default."""
    return list(dict.fromkeys(",".join(args.metric).split(","))) if args.metric else None


def add_intervals(parser: argparse.ArgumentParser, draws: int) -> None:
    """Declare --draws and --cache."""
    parser.add_argument("--draws", type=int, default=draws, help=f"resamples of each interval (default: {draws})")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="default: $LOWLIGHT_IQA_CACHE, ~/.cache/lowlight_iqa")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare --device, for ``pick_device``."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")


def pick_device(name: str) -> str:
    """Return the device given by --device; "auto" is a GPU if there is one."""
    import torch

    from ..registry import check_device

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(check_device(name))
