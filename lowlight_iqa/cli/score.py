"""``lowlight-iqa score``: score pictures and folders."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..images import SUFFIXES, read_image
from ..registry import create_metric, get_card
from .options import Subparsers, add_device, pick_device, print_table, report

if TYPE_CHECKING:
    from ..metric import Assessment, Metric


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


def add(subparsers: Subparsers) -> None:
    """Declare ``score``."""
    parser = subparsers.add_parser(
        "score",
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score pictures with one or more metrics; each is decoded once."""
    names = list(dict.fromkeys(",".join(args.metric or ["leiq"]).split(",")))
    cards = [get_card(name) for name in names]
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
        x = metric.preprocess(picture).to(device)
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
