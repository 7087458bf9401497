"""``lowlight-iqa score``: score pictures and folders."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry import get_card
from .options import add_device, add_metrics, metric_names, pick_device, print_table, report

if TYPE_CHECKING:
    from ..scoring.pipeline import Record
    from ..scoring.sinks import Held
    from ..scoring.sources import Source


def add(parser: argparse.ArgumentParser) -> None:
    """Declare ``score``."""
    parser.description = (
        "Score pictures, one row for each, in the order given. A picture that cannot be scored is "
        'reported on stderr and left out of tables (in JSON and in --out it has an "error" instead of scores), and '
        "the exit status is 1."
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="picture, folder (searched recursively), glob, list (.txt, or .csv with a column path), .tar shard, "
        ".parquet with paths or bytes, or - for a list on standard input",
    )
    add_metrics(parser, "leiq")
    parser.add_argument(
        "--weights", metavar="DIR", help="or hf://owner/repo@COMMIT, instead of its own, for a single metric"
    )
    parser.add_argument("--reference", metavar="PATH", help="the dark input, or a folder with files of the same names")
    parser.add_argument("--attributes", action="store_true", help="also what the metric says of light, noise, ...")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="of standard output")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".csv, .jsonl or .parquet, written record by record, instead of standard output",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue --out: pictures in it, of the same path, size and time or content, are skipped",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads, on a CPU processes, that decode and score")
    parser.add_argument("--batch", type=int, metavar="N", help="pictures of one size scored together")
    parser.add_argument(
        "--engine", choices=("threads", "ray"), default="threads", help="ray: actors on this machine or a cluster"
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="of the Ray cluster (default: $RAY_ADDRESS, else local)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Score pictures with one or more metrics; each is decoded once."""
    names = metric_names(args) or ["leiq"]
    check(args, names)
    device = pick_device(args.device)

    tally = Tally(names)
    if args.out is None:
        records = tally.watch(start(args, names, device, tally, None), args.paths)
        {"table": _write_table, "csv": _write_csv, "json": _write_json}[args.format](records, names)
    else:
        from ..scoring.sinks import open_sink

        with open_sink(args.out, names, resume=args.resume) as sink:
            for record in tally.watch(start(args, names, device, tally, sink.held), args.paths):
                sink.write(record)

    tally.report()
    return 1 if tally.failed else 0


def start(
    args: argparse.Namespace, names: Sequence[str], device: str, tally: Tally, held: Held | None
) -> Iterator[Record]:
    """Start the engine; return an iterator of the records of pictures that are not in ``held``."""
    if args.engine == "ray":
        from ..scoring import ray

        options = {"attributes": args.attributes, "weights": args.weights, "device": device, "batch": args.batch}
        gpus = 1 if device.startswith("cuda") else 0
        where = {"actors": args.workers, "gpus": gpus, "address": args.address}
        return ray.records(args.paths, names, held=held, skipped=tally.skip, **where, **options)

    from ..scoring.pipeline import Work, make_metrics
    from ..scoring.pipeline import run as run_pipeline
    from ..scoring.sources import find_sources

    made = make_metrics(names, args.weights, device)
    work = Work(made, args.reference, args.attributes, digest=args.out is not None)
    sources = tally.missing(find_sources(args.paths), held)
    return run_pipeline(sources, work, workers=args.workers, batch=args.batch, processes=True)


def check(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse options that exclude each other, before anything is loaded."""
    comparing = [name for name in names if get_card(name).needs_reference]
    if args.weights and len(names) > 1:
        raise ValueError(f"--weights belongs to one metric, not to {', '.join(names)}; score with one at a time")
    if comparing and args.reference is None:
        raise ValueError(f"{comparing[0]} compares with the dark input; give --reference")
    if args.reference is not None and not comparing:
        raise ValueError(f"{', '.join(names)} does not take --reference; leave it out")
    if args.engine == "ray" and args.reference is not None:
        raise ValueError("--engine ray does not take --reference; use --engine threads")
    if args.address and args.engine != "ray":
        raise ValueError("--address belongs to --engine ray; give both")
    if args.resume and args.out is None:
        raise ValueError("--resume continues a file; give --out")


class Tally:
    """Counts of a run: a progress bar, and one line at the end."""

    def __init__(self, names: Sequence[str]) -> None:
        self.sums = {name: [0.0, 0.0] for name in names}  # running mean and sum of squared deviations
        self.scored = self.failed = self.skipped = 0
        self.start = 0.0

    def skip(self) -> None:
        """Count a picture that is skipped."""
        self.skipped += 1

    def missing(self, sources: Iterable[Source], held: Held | None) -> Iterator[Source]:
        """Yield the sources that are not in ``held``."""
        for source in sources:
            if held is not None and held.holds(source):
                self.skip()
            else:
                yield source

    def watch(self, records: Iterable[Record], paths: Sequence[str]) -> Iterator[Record]:
        """Yield the records, report those that failed and, on a terminal, show a progress bar."""
        from tqdm import tqdm

        self.start = time.monotonic()
        shown = sys.stderr.isatty()
        with tqdm(unit="picture", file=sys.stderr, disable=not shown, smoothing=0.1) as bar:
            if shown:
                threading.Thread(target=self._count, args=(bar, paths), daemon=True).start()
            for record in records:
                if record.error:
                    self.failed += 1
                    with tqdm.external_write_mode(file=sys.stderr):
                        report(record.error)
                else:
                    self.add(record)
                bar.update()
                yield record

    def _count(self, bar: Any, paths: Sequence[str]) -> None:
        from ..scoring.sources import count_files

        count = count_files(paths)
        if count is not None:
            bar.total = max(0, count - self.skipped)

    def add(self, record: Record) -> None:
        """Add a record to the means and deviations, by Welford's method."""
        self.scored += 1
        for name, result in record.results.items():
            mean, squares = self.sums[name]
            step = result.score - mean
            mean += step / self.scored
            self.sums[name] = [mean, squares + step * (result.score - mean)]

    def report(self) -> None:
        """Print means, deviations and counts, if there is more than one picture."""
        if self.scored + self.failed + self.skipped < 2:
            return
        figures = [
            f"{name} mean {mean:.4g}, deviation {(squares / self.scored) ** 0.5:.3g}"
            for name, (mean, squares) in self.sums.items()
            if self.scored
        ]
        rate = (self.scored + self.failed) / max(1e-9, time.monotonic() - self.start)
        counts = [f"{self.scored} scored", f"{self.failed} failed", f"{self.skipped} skipped"]
        print(
            "; ".join([", ".join(counts if self.skipped else counts[:2]), *figures, f"{rate:.3g} pictures/s"]),
            file=sys.stderr,
        )


def _cells(record: Record) -> dict[str, str]:
    from ..scoring.sinks import cells

    return {"path": record.path, **{name: f"{value:.6g}" for name, value in cells(record).items()}}


def _write_table(records: Iterable[Record], names: Sequence[str]) -> None:
    rows = [_cells(record) for record in records if not record.error]
    if rows:
        print_table([list(rows[0]), *(list(row.values()) for row in rows)])


def _write_csv(records: Iterable[Record], names: Sequence[str]) -> None:
    from ..scoring.sinks import csv_line, inert

    columns: list[str] = []
    for record in records:
        if record.error:
            continue
        cells = _cells(record)
        if not columns:  # determined by the first result
            columns = list(cells)
            print(csv_line(columns))
        print(csv_line([inert(cells.pop("path")), *cells.values()]))
    if not columns:
        print(csv_line(["path", *names]))


def _write_json(records: Iterable[Record], names: Sequence[str]) -> None:
    """Write a list, record by record."""
    from ..scoring.sinks import facts

    count = 0
    for count, record in enumerate(records, 1):
        print("[" if count == 1 else ",")
        print("\n".join(f"  {line}" for line in json.dumps(facts(record), indent=2).splitlines()), end="")
    print("\n]" if count else "[]")
