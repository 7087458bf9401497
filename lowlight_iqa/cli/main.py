"""The ``lowlight-iqa`` command: picks the module of the subcommand, runs it, turns errors into one line.

Each command is a module beside this one with ``add(subparsers)``, which declares its options, and
``run(args)``, which does it and returns the exit status. Only the one that is named gets imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .. import __version__
from .options import PROGRAM, Parser, report

COMMANDS = {  # module: its line in --help
    "score": "score pictures and folders",
    "explain": "show where a picture is good and bad",
    "compare": "compare enhancement methods: tables, figures, a page",
    "list": "list the metrics",
    "card": "print the facts of a metric",
    "cite": "print the BibTeX of a metric's paper",
    "convert": "make weights of the authors' checkpoints",
    "train": "train a metric",
    "fit": "fit a metric's score to your own ratings",
    "fetch": "download weights",
    "push": "upload weights to the Hugging Face Hub",
    "evaluate": "measure a metric's agreement with people on a data set",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments, without the program's name; None for those of the process.

    Returns:
        The exit status: 0 for success, 1 if some pictures could not be scored, 2 if it could not run.
    """
    if sys.stdout is None:
        report("standard output is closed; send it to a file or to /dev/null")
        return 2
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may lack letters of a file's name

    try:
        argv = sys.argv[1:] if argv is None else argv
        args = build_parser(argv).parse_args(argv)
        status = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError) as error:
        report(str(error))
        return 2
    return int(status)


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the command that ``argv`` names; the others are there by name alone."""
    parser = Parser(prog=PROGRAM, description="No-reference quality of low-light pictures.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for name, line in COMMANDS.items():
        if list(argv[:1]) != [name]:
            subparsers.add_parser(name, help=line)
            continue
        importlib.import_module(f"{__package__}.{name}").add(subparsers)
    return parser
