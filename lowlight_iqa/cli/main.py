"""The ``lowlight-iqa`` command: import the module of a subcommand, run it and print errors in one line.

Each command is a module of this package with ``add(parser)``, which declares its description and options, and
``run(args)``, which runs it and returns the exit status. Only the module of the given command is imported.
"""

import argparse
import ctypes
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from .. import __version__
from .options import PROGRAM, Parser, report

INTERRUPTED = 130  # exit status after Ctrl-C

COMMANDS = {  # module: its line in --help
    "score": "score pictures and folders",
    "explain": "show where a picture is good and bad",
    "compare": "compare enhancement methods: tables, figures, a page",
    "list": "list the metrics",
    "card": "print the facts of a metric",
    "cite": "print the BibTeX of a metric's paper",
    "convert": "convert the authors' checkpoints to weights",
    "train": "train a metric",
    "fit": "fit a metric's score to your own ratings",
    "export": "write a metric as an ONNX file",
    "fetch": "download weights",
    "push": "upload weights to the Hugging Face Hub",
    "evaluate": "measure a metric's agreement with people on a data set",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments, without the program's name; None for those of the process, which Ctrl-C then ends at once.

    Returns:
        The exit status: 0 for success, 1 if some pictures could not be scored, 2 if the command failed.
    """
    if argv is None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _leave)
        _keep_memory()
    if sys.stdout is None:
        report("standard output is closed; send it to a file or to /dev/null")
        return 2
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks

    try:
        argv = sys.argv[1:] if argv is None else argv
        args = build_parser(argv).parse_args(argv)
        status = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except (OSError, ValueError) as error:
        report(str(error))
        return 2
    return int(status)


def _keep_memory() -> None:
    """Let glibc keep the memory of tensors that are gone: getting it anew for each takes a tenth of the time."""
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 28)  # M_TRIM_THRESHOLD


def _leave(*_: object) -> NoReturn:
    """End the process on Ctrl-C, even while threads work or a library loads.

    Nothing is lost: files are replaced only when complete, and scores are written one by one.
    """
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # after a progress bar
    os._exit(INTERRUPTED)


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with the options of the command in ``argv`` and only the names of the others."""
    parser = Parser(prog=PROGRAM, description="No-reference quality of low-light pictures.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for name, line in COMMANDS.items():
        command = subparsers.add_parser(name, help=line)
        if list(argv[:1]) == [name]:
            module = importlib.import_module(f"{__package__}.{name}")
            module.add(command)
            command.set_defaults(run=module.run)
    return parser
