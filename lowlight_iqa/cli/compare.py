"""``lowlight-iqa compare``: compare enhancement methods on the same pictures."""

import argparse
import sys
from pathlib import Path

from .options import add_device, add_intervals, add_metrics, metric_names, pick_device


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``compare``."""
    from ..comparison.match import KNOWN

    parser.description = (
        "Compare what several methods made of the same pictures: a table for LaTeX and Markdown with "
        "paired tests, every score as CSV, figures, and a page with all pictures. Pictures belong together by their "
        f"file's name less its extension and a suffix such as {', '.join(KNOWN[:3])} or the folder's own name."
    )
    parser.add_argument("methods", nargs="+", metavar="[NAME=]DIR", help="the pictures of a method")
    add_metrics(parser, "leiq,iaca,niqe and, with --input, loe")
    parser.add_argument("--input", type=Path, metavar="DIR", help="the dark pictures that the methods were given")
    parser.add_argument(
        "--reference", type=Path, metavar="DIR", help="their normal-light versions: adds PSNR, SSIM and CIEDE2000"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the results")
    parser.add_argument(
        "--suffix",
        action="append",
        metavar="TEXT",
        help="cut this off the end of names, instead of the usual suffixes; may be repeated; '' for nothing",
    )
    parser.add_argument(
        "--partial", action="store_true", help="leave out pictures that a folder lacks or that cannot be scored"
    )
    parser.add_argument(
        "--crop", type=_box, metavar="X,Y,W,H", help="what is shown enlarged (default: where methods differ most)"
    )
    parser.add_argument(
        "--show",
        type=lambda text: text.split(","),
        metavar="NAME,NAME",
        help="pictures of figures/strips (default: the three on which methods differ most)",
    )
    add_intervals(parser, 2000)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report; print its table and the path of the page."""
    from ..comparison.compare import compare

    result = compare(
        _methods(args.methods),
        metric_names(args),
        inputs=args.input,
        references=args.reference,
        out=args.out,
        suffixes=args.suffix,
        partial=args.partial,
        crop=args.crop,
        show=args.show,
        draws=args.draws,
        cache=args.cache,
        device=pick_device(args.device),
        progress=sys.stderr.isatty(),
    )
    print(result)
    print(f"\n{args.out / 'index.html'}")
    return 0


def _methods(arguments: list[str]) -> dict[str, Path] | list[Path]:
    """Return the folders of the methods, by name if an argument is NAME=DIR and not itself a folder."""
    if all(Path(text).is_dir() or "=" not in text for text in arguments):
        return [Path(text) for text in arguments]

    methods: dict[str, Path] = {}
    for text in arguments:
        name, _, folder = text.rpartition("=") if not Path(text).is_dir() else ("", "", text)
        name = name or Path(folder).resolve().name
        if name in methods:
            raise ValueError(f"two methods are called {name!r}; give them different names: NAME=DIR")
        methods[name] = Path(folder)
    return methods


def _box(text: str) -> tuple[int, int, int, int]:
    """Parse X,Y,W,H."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,width,height in pixels, such as 100,50,96,96") from None
    return x, y, width, height
