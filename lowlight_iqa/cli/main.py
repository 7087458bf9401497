"""The ``lowlight-iqa`` command: ``add_...`` declares a subcommand and its options, ``run_...`` does it."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .. import __version__
from ..images import SUFFIXES, read_image
from ..registry import create_metric, find, list_metrics

if TYPE_CHECKING:
    from ..metric import Assessment, Metric

PROGRAM = "lowlight-iqa"
Subparsers = Any  # argparse keeps the type of add_subparsers() private
R = TypeVar("R")  # a recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments, without the program's name; None for those of the process.

    Returns:
        The exit status: 0 for success, 1 if some pictures could not be scored, 2 if it could not run.
    """
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
    """The whole command line; training recipes, which take a second to import, only if ``argv`` trains."""
    parser = _Parser(prog=PROGRAM, description="No-reference quality of low-light pictures.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (add_score, add_list, add_card, add_convert, add_fetch, add_push, add_evaluate):
        add(subparsers)
    add_train(subparsers, argv)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        report(f"{message}; see {self.prog} --help")
        sys.exit(2)


def report(message: str) -> None:
    """Tell the user of a problem, in one line on stderr."""
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr, flush=True)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option --device, for ``pick_device``."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")


def pick_device(name: str) -> str:
    """The device that --device names.

    Raises:
        ValueError: there is no such device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros((), device=name)
    except Exception as error:  # torch raises AssertionError, RuntimeError or NotImplementedError
        raise ValueError(f"there is no device {name!r} ({str(error).splitlines()[0]}); try --device cpu") from error
    return name


# score


@dataclass(frozen=True)
class _Entry:
    """What became of one picture."""

    path: str
    results: dict[str, Assessment] = field(default_factory=dict)  # by metric
    error: str = ""

    def cells(self) -> dict[str, str]:
        """The columns of a table: ``leiq``, ``leiq.light``, ..."""
        cells = {"path": self.path}
        for name, result in self.results.items():
            cells[name] = f"{result.score:.6g}"
            cells |= {f"{name}.{key}": f"{value:.6g}" for key, value in result.attributes.items()}
            cells |= {f"{name}.{key}.uncalibrated": f"{value:.6g}" for key, value in result.uncalibrated.items()}
        return cells


def add_score(subparsers: Subparsers) -> None:
    """Declare ``score``."""
    parser = subparsers.add_parser(
        "score",
        help="score pictures and folders",
        description="Score pictures, one row for each, in the order given; folders are searched recursively. "
        'A picture that cannot be scored is reported on stderr and left out (in JSON it has an "error" '
        "instead of scores), and the exit status is 1.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="picture or folder")
    parser.add_argument(
        "-m",
        "--metric",
        action="append",
        metavar="NAME",
        help="may be repeated, or NAME,NAME (default: leiq)",
    )
    parser.add_argument(
        "--weights", metavar="DIR", help="or hf://owner/repo@COMMIT, instead of its own, for a single metric"
    )
    parser.add_argument(
        "--reference",
        metavar="PATH",
        type=Path,
        help="the dark input, or a folder with files of the same names",
    )
    parser.add_argument("--attributes", action="store_true", help="also what the metric says of light, noise, ...")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    add_device(parser)
    parser.set_defaults(run=run_score)


def run_score(args: argparse.Namespace) -> int:
    """Score pictures with one or more metrics; each is decoded once."""
    names = list(dict.fromkeys(",".join(args.metric or ["leiq"]).split(",")))
    cards = [find(name)[1] for name in names]
    if args.weights and len(names) > 1:
        raise ValueError(f"--weights belongs to one metric, not to {', '.join(names)}; score with one at a time")
    comparing = [card.name for card in cards if card.needs_reference]
    if comparing and args.reference is None:
        raise ValueError(f"{comparing[0]} compares with the dark input; give --reference")
    if args.reference is not None and not comparing:
        raise ValueError(f"--reference is of no use to {', '.join(names)}; leave it out")
    pictures = list(find_pictures(args.paths))
    device = pick_device(args.device)
    metrics = [create_metric(name, device=device, weights=args.weights) for name in names]

    failed: list[Path] = []
    entries = _score(pictures, metrics, args.reference, args.attributes, failed)
    {"table": _write_table, "csv": _write_csv, "json": _write_json}[args.format](entries, names)
    return 1 if failed else 0


def find_pictures(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among the paths as they are given, and the pictures in the folders among them, sorted.

    Raises:
        ValueError: a folder without pictures.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not inside:
            raise ValueError(f"{path} holds no pictures ({' '.join(sorted(SUFFIXES))})")
        yield from inside


def _score(
    pictures: Sequence[Path],
    metrics: Sequence[Metric],
    reference: Path | None,
    attributes: bool,
    failed: list[Path],
) -> Iterator[_Entry]:
    import torch
    from tqdm import tqdm

    for path in tqdm(pictures, unit="picture", file=sys.stderr, disable=not sys.stderr.isatty()):
        try:
            with torch.inference_mode():
                entry = _Entry(str(path), _results(path, metrics, reference, attributes))
        except (OSError, ValueError, torch.cuda.OutOfMemoryError) as error:
            failed.append(path)
            message = str(error) if str(path) in str(error) else f"{path}: {error}"
            with tqdm.external_write_mode(file=sys.stderr):
                report(message)
            entry = _Entry(str(path), error=message)
        yield entry


def _results(path: Path, metrics: Sequence[Metric], reference: Path | None, attributes: bool) -> dict[str, Assessment]:
    from ..metric import Assessment

    device = metrics[0].device
    picture = read_image(path)
    dark = None
    if reference is not None:
        dark = read_image(reference / path.name if reference.is_dir() else reference).to(device)
    results = {}
    for metric in metrics:
        x = metric.prepare(picture).to(device)
        if metric.card.needs_reference:
            results[metric.card.name] = Assessment(metric(x, reference=dark).item())
        elif attributes:
            results[metric.card.name] = metric.assess(x)
        else:
            results[metric.card.name] = Assessment(metric(x).item())
    return results


def _write_table(entries: Iterable[_Entry], names: Sequence[str]) -> None:
    rows = [entry.cells() for entry in entries if not entry.error]
    if rows:
        print_table([list(rows[0]), *(list(row.values()) for row in rows)])


def _write_csv(entries: Iterable[_Entry], names: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns: list[str] = []
    for entry in entries:
        if entry.error:
            continue
        cells = entry.cells()
        if not columns:  # known from the first picture that could be scored
            columns = list(cells)
            writer.writerow(columns)
        writer.writerow(cells.values())
    if not columns:
        writer.writerow(["path", *names])


def _write_json(entries: Iterable[_Entry], names: Sequence[str]) -> None:
    json.dump([_json(entry) for entry in entries], sys.stdout, indent=2)
    print()


def _json(entry: _Entry) -> dict[str, Any]:
    if entry.error:
        return {"path": entry.path, "error": entry.error}
    facts: dict[str, Any] = {"path": entry.path}
    for name, result in entry.results.items():
        facts[name] = {"score": result.score}
        if result.attributes:
            facts[name]["attributes"] = dict(result.attributes)
        if result.uncalibrated:
            facts[name]["uncalibrated"] = dict(result.uncalibrated)
        if result.description:
            facts[name]["description"] = result.description
    return facts


# list


def add_list(subparsers: Subparsers) -> None:
    """Declare ``list``."""
    parser = subparsers.add_parser("list", help="list the metrics", description="List the metrics.")
    parser.add_argument("--learned", action="store_true", help="only those trained on people's scores")
    parser.add_argument("--commercial", action="store_true", help="only those with weights for commercial use")
    parser.set_defaults(run=run_list)


def run_list(args: argparse.Namespace) -> int:
    """Print name, direction, range and summary of each metric."""
    rows = [("name", "better", "range", "summary")]
    for name in list_metrics(learned=args.learned or None, commercial=args.commercial or None):
        card = find(name)[1]
        low, high = card.score_range
        rows.append((name, "lower" if card.lower_better else "higher", f"{low:g} to {high:g}", card.summary))
    print_table(rows)
    return 0


# card


def add_card(subparsers: Subparsers) -> None:
    """Declare ``card``."""
    parser = subparsers.add_parser("card", help="print the facts of a metric", description="Print a card.")
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(run=run_card)


def run_card(args: argparse.Namespace) -> int:
    """Print every fact of a metric."""
    print(find(args.name)[1])
    return 0


# convert


def add_convert(subparsers: Subparsers) -> None:
    """Declare ``convert``."""
    parser = subparsers.add_parser(
        "convert",
        help="make weights of the authors' checkpoints",
        description="Make weights of an authors' checkpoint, or of the splits in a folder. No code in it is run.",
    )
    parser.add_argument("name", metavar="NAME", help="the metric, such as leiq-b16")
    parser.add_argument("source", metavar="FILE_OR_FOLDER", type=Path, help="a .pth, or the folder of a model's splits")
    parser.add_argument(
        "--mat",
        metavar="FILE_OR_FOLDER",
        type=Path,
        help="predictions and labels that the scale is fitted to (default: the .mat beside each .pth)",
    )
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("-o", "--out", type=Path, metavar="DIR", help="for --weights DIR")
    place.add_argument("--install", action="store_true", help="for the metric's bare name")
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> int:
    """Convert, and print the directory of the result."""
    from ..weights.checkpoint import convert
    from ..weights.files import store_dir

    print(convert(args.name, args.source, store_dir(args.name) if args.install else args.out, args.mat))
    return 0


# train


def add_train(subparsers: Subparsers, argv: Sequence[str]) -> None:
    """Declare ``train`` and, if ``argv`` has it, what can be trained."""
    parser = subparsers.add_parser(
        "train",
        help="train a metric",
        description="Train a metric; works unchanged under torchrun. The result is a directory for --weights.",
    )
    chosen = parser.add_subparsers(title="recipes", metavar="RECIPE", required=True)
    if "train" in argv:
        add_train_leiq(chosen, argv)
        add_train_iaca(chosen)
        add_train_bmqa(chosen)


def add_train_leiq(subparsers: Subparsers, argv: Sequence[str]) -> None:
    """Declare ``train leiq``: by the --backbone in ``argv`` the compact recipe or that of the authors' models."""
    from ..backbones import COMPACT
    from ..training.leiq.train import Recipe, train_leiq
    from ..training.leiq_authors import METRICS

    first = _Parser(prog=f"{PROGRAM} train leiq", add_help=False, allow_abbrev=False)
    first.add_argument("--backbone", choices=[*COMPACT, *METRICS])
    if first.parse_known_args(argv if list(argv[:2]) == ["train", "leiq"] else [])[0].backbone in METRICS:
        add_train_leiq_siglip(subparsers)
        return

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        clean = list(find_pictures(args.clean))
        return train_leiq(args.data, args.out, recipe, clean=clean, resume=args.resume, device=device)

    parser = add_recipe(subparsers, "leiq", "BIQ2021", Recipe, train)
    parser.epilog = f"--backbone {' or '.join(METRICS)} trains the authors' models, on MLE: see --help with it."
    parser.add_argument(
        "--clean", type=Path, action="append", default=[], metavar="DIR", help="folder of more clean pictures"
    )


def add_train_leiq_siglip(subparsers: Subparsers) -> None:
    """Declare ``train leiq`` with a backbone of the authors'."""
    from ..training.leiq_authors import Recipe, train_leiq_siglip

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        start = {"initial": args.initial, "from_scratch": args.from_scratch}
        return train_leiq_siglip(args.data, args.out, recipe, **start, resume=args.resume, device=device)

    parser = add_recipe(subparsers, "leiq", "MLE", Recipe, train)
    parser.add_argument(
        "--initial", type=Path, metavar="FILE", help="SigLIP2 weights of the tower: safetensors or a state dict"
    )
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights instead")


def add_train_iaca(subparsers: Subparsers) -> None:
    """Declare ``train iaca``."""
    from ..training.iaca import Recipe, train_iaca

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        return train_iaca(args.data, args.out, recipe, resume=args.resume, device=device)

    add_recipe(subparsers, "iaca", "BIQ2021", Recipe, train)


def add_train_bmqa(subparsers: Subparsers) -> None:
    """Declare ``train bmqa``."""
    from ..training.bmqa.train import STAGES, Recipe, train_bmqa

    def train(args: argparse.Namespace, recipe: Recipe, device: str) -> Path:
        return train_bmqa(
            args.data,
            args.out,
            recipe,
            stage=args.stage,
            texts=args.mle,
            initial=args.initial,
            resume=args.resume,
            device=device,
        )

    parser = add_recipe(subparsers, "bmqa", "BIQ2021", Recipe, train)
    parser.add_argument("--stage", required=True, choices=STAGES, help="each starts from the last before it in --out")
    parser.add_argument("--mle", type=Path, metavar="DIR", help="MLE's folder, for its descriptions")
    parser.add_argument(
        "--initial", metavar="PATH", help="whose trunk the first stage starts from: leiq, or the directory of a metric"
    )


def add_recipe(
    subparsers: Subparsers,
    name: str,
    data: str,
    recipe: Callable[..., R],
    train: Callable[[argparse.Namespace, R, str], Path],
) -> argparse.ArgumentParser:
    """Declare a recipe, a dataclass: every number of it is an option. ``train`` is given the options and the device."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=f"train {name} on {data}",
        description=f"Train {name} on {data} and print the directory of the result.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=f"the {data} folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="log, checkpoint and result")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    add_device(parser)
    defaults = asdict(recipe())  # type: ignore[call-overload]
    for field_name, value in defaults.items():
        kind: dict[str, Any] = {"type": type(value)}
        if isinstance(value, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(value, tuple):
            kind = {"type": type(value[0]), "nargs": "+"}
        parser.add_argument(f"--{field_name.replace('_', '-')}", default=value, help="(of the recipe)", **kind)

    def run(args: argparse.Namespace) -> int:
        given = {key: getattr(args, key) for key in defaults}
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        print(train(args, recipe(**given), pick_device(args.device)))
        return 0

    parser.set_defaults(run=run)
    return parser


# fetch


def add_fetch(subparsers: Subparsers) -> None:
    """Declare ``fetch``."""
    parser = subparsers.add_parser(
        "fetch",
        help="download weights",
        description="Download weights into the cache, or copy them to a directory for a machine without a network, "
        "check their hashes and print where they are.",
    )
    parser.add_argument("what", metavar="NAME", help="a metric, or hf://owner/repo@COMMIT")
    parser.add_argument("--to", type=Path, metavar="DIR", help="for create_metric(..., weights=DIR)")
    parser.set_defaults(run=run_fetch)


def run_fetch(args: argparse.Namespace) -> int:
    """Download, check and print the place."""
    from ..weights.files import fetch

    print(fetch(args.what, args.to))
    return 0


# push


def add_push(subparsers: Subparsers) -> None:
    """Declare ``push``."""
    parser = subparsers.add_parser(
        "push",
        help="upload weights to the Hugging Face Hub",
        description="Check weights, upload them and print the pinned name to load them by.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="as save_pretrained or train wrote it")
    parser.add_argument("repo", metavar="OWNER/REPO", help="made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make it private")
    parser.set_defaults(run=run_push)


def run_push(args: argparse.Namespace) -> int:
    """Check, upload and print ``hf://owner/repo@<commit>``."""
    from ..weights.files import push

    print(push(args.directory, args.repo, private=args.private))
    return 0


# evaluate


def add_evaluate(subparsers: Subparsers) -> None:
    """Declare ``evaluate``."""
    from ..data import NAMES

    parser = subparsers.add_parser(
        "evaluate",
        help="measure a metric's agreement with people on a data set",
        description="Score every picture of a data set and print SRCC, KRCC, PLCC and RMSE with 95 %% bootstrap "
        "intervals. Scores are cached: a second run is instant, an interrupted one goes on. Works unchanged under "
        "torchrun, which shares the pictures out.",
    )
    parser.add_argument("-m", "--metric", required=True, metavar="NAME")
    parser.add_argument("--weights", metavar="DIR", help="instead of the bundled ones")
    parser.add_argument("--dataset", required=True, choices=NAMES)
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="its folder; for csv, the file")
    parser.add_argument("--split", help="default: the one that papers report")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for every picture")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw MOS against score with the fitted logistic")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--submission", type=Path, metavar="FILE", help="write the MLE challenge's result.json")
    parser.add_argument("--draws", type=int, default=1000, help="resamples of each interval (default: 1000)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="default: $LOWLIGHT_IQA_CACHE, ~/.cache/lowlight_iqa")
    add_device(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    """Print the figures and write what was asked for."""
    from ..evaluation.evaluate import evaluate, import_pyplot

    if args.submission and args.dataset != "mle":
        raise ValueError(f"--submission is for the MLE challenge, not for {args.dataset}; write --csv instead")
    if args.plot:
        import_pyplot()  # better missed before the pictures are scored than after
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
    )
    if os.environ.get("RANK", "0") != "0":  # all processes know the result, one tells it
        return 0
    print(result)
    if args.csv:
        result.write_csv(args.csv)
    if args.json:
        args.json.write_text(json.dumps(result.facts(), indent=2) + "\n", encoding="utf-8")
    if args.submission:
        result.write_submission(args.submission)
    if args.plot:
        result.plot(args.plot)
    return 0
