"""The pipeline on many machines: Ray Data shares the pictures out to actors, each of which runs it.

The driver lists the pictures and writes the scores, in the sinks that a single machine has; Ray moves paths one way and
numbers the other, restarts what dies and hands its pictures to another. A picture that cannot be scored is a row with
an error.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metric import Assessment
from .pipeline import Record, Work, as_inputs, make_metrics, run
from .sinks import facts, open_sink
from .sources import Input, Source, find_sources

if TYPE_CHECKING:
    import numpy as np

ROWS = 64  # pictures that an actor is given at a time: what is scored anew if it dies
BLOCKS = 10_000  # at most: Ray plans with all of them


def score(
    pictures: Any,
    metrics: Sequence[str] = ("leiq",),
    out: str | Path = "scores.parquet",
    *,
    resume: bool = False,
    **options: Any,
) -> Path:
    """Score pictures on a Ray cluster and write the scores.

    Args:
        pictures: as ``records`` takes them.
        metrics: names.
        out: .parquet, .csv or .jsonl, on the driver's disk, written as the scores come.
        resume: go on with ``out``; what it holds is skipped.
        options: of ``records``.

    Returns:
        ``out``.

    Raises:
        ValueError: Ray is not installed, options that do not go together, or an actor that cannot start.
    """
    with open_sink(out, list(metrics), resume=resume) as sink:
        for record in records(pictures, metrics, skip=sink.holds, **options):
            sink.write(record)
    return Path(out)


def records(
    pictures: Any,
    metrics: Sequence[str] = ("leiq",),
    *,
    attributes: bool = False,
    weights: str | Path | None = None,
    device: str = "cpu",
    actors: int | tuple[int, int] | None = None,
    cpus: float = 1,
    gpus: float = 0,
    batch: int | None = None,
    address: str | None = None,
    skip: Any = None,
) -> Iterator[Record]:
    """Yield a record for each picture, in the order in which they are done.

    Args:
        pictures: paths that every machine can open, folders, globs and lists of such; addresses such as s3://bucket/dir
            that pyarrow opens; or a ``ray.data.Dataset`` with a column ``path``, or ``bytes`` and ``path``.
        metrics: names.
        attributes: also what each metric says of light, noise, ...
        weights: as for ``create_metric``, for a single metric.
        device: where the actors compute; with "cuda", give ``gpus``.
        actors: how many, or (fewest, most); None for as many as the cluster has processors (or GPUs) for.
        cpus: processors of each actor.
        gpus: GPUs of each actor; a fraction shares one.
        batch: pictures of one size scored together.
        address: of a running cluster; None starts one on this machine, or uses that of $RAY_ADDRESS.
        skip: a function that tells of a ``Source`` whether to leave it out.
    """
    ray = import_ray(address)
    make_metrics(metrics, weights, "cpu")  # what is wrong with them is better told here than by an actor
    if actors is None:
        resources = ray.cluster_resources()
        free = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / cpus
        actors = (1, max(1, int(free)))
    fewest, most = (actors, actors) if isinstance(actors, int) else actors

    dataset = pictures
    if not isinstance(pictures, ray.data.Dataset):
        dataset, failed = _dataset(ray, as_inputs(pictures), skip)
        yield from failed
    if dataset is None:
        return

    scored = dataset.map_batches(
        Scorer,
        fn_constructor_args=(list(metrics), weights, device, attributes, max(1, int(cpus)), batch),
        batch_size=ROWS,
        compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    try:
        for row in scored.iter_rows():
            yield _record(row)
    except ray.exceptions.RayError as error:
        raise ValueError(f"the Ray job failed: {str(error).strip().splitlines()[-1]}") from error


def import_ray(address: str | None = None) -> Any:
    """Import Ray and connect to a cluster.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError('this needs Ray: pip install "lowlight_iqa[ray]"') from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except ConnectionError as error:
            raise ValueError(f"no Ray cluster answers at {address}; start one by `ray start --head`") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


class Scorer:
    """What an actor is: the metrics, loaded once."""

    def __init__(
        self,
        metrics: Sequence[str],
        weights: str | Path | None,
        device: str,
        attributes: bool,
        workers: int,
        batch: int | None,
    ) -> None:
        self.work = Work(make_metrics(metrics, weights, device), attributes=attributes, digest=True)
        self.workers, self.batch = workers, batch

    def __call__(self, rows: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        """Score some rows: a column ``path`` and perhaps ``bytes``, ``size`` and ``modified``."""
        names = [str(path) for path in rows["path"]]
        contents = rows.get("bytes", names)
        sizes, times = (rows.get(key, [-1] * len(names)) for key in ("size", "modified"))
        sources = (
            _source(name, content, int(size), int(modified))
            for name, content, size, modified in zip(names, contents, sizes, times, strict=True)
        )
        found = list(run(sources, self.work, workers=self.workers, batch=self.batch))
        return {
            "path": [record.path for record in found],
            "size": [record.size for record in found],
            "modified": [record.modified for record in found],
            "sha256": [record.digest for record in found],
            "facts": [json.dumps(facts(record)) for record in found],
        }


def _source(name: str, content: Any, size: int, modified: int) -> Source:
    """The picture of a row: its bytes, those at an address, or the file of that name."""
    if isinstance(content, bytes):
        return Source(name, content, size, modified)
    if "://" not in name:
        return Source(name, name, size, modified)
    from pyarrow.fs import FileSystem

    try:
        system, path = FileSystem.from_uri(name)
        with system.open_input_stream(path) as file:
            return Source(name, file.read(), size, modified)
    except (OSError, ValueError) as error:
        return Source(name, error=f"{name} cannot be read: {error}")


def _dataset(ray: Any, pictures: Iterable[Input], skip: Any) -> tuple[Any, list[Record]]:
    """The pictures that are to be scored as a dataset, None if there are none; and what cannot be opened."""
    import pyarrow

    failed: list[Record] = []
    columns: dict[str, list[Any]] = {"path": [], "size": [], "modified": []}
    for source in _listed(pictures):
        if skip is not None and skip(source):
            continue
        if source.error:
            failed.append(Record(source.name, error=source.error))
        elif not isinstance(source.picture, (str, os.PathLike)):
            raise ValueError(
                f"{source.name} is no file of its own; give Ray a dataset of bytes: ray.data.read_webdataset or "
                "read_parquet, with columns path and bytes"
            )
        else:
            columns["path"].append(source.name)
            columns["size"].append(source.size)
            columns["modified"].append(source.modified)
    if not columns["path"]:
        return None, failed

    blocks = min(BLOCKS, -(-len(columns["path"]) // ROWS))
    return ray.data.from_arrow(pyarrow.table(columns)).repartition(blocks), failed


def _listed(pictures: Iterable[Input]) -> Iterator[Source]:
    """As ``find_sources``; folders at an address such as s3:// are listed too."""
    for picture in pictures:
        if not isinstance(picture, (str, os.PathLike)) or "://" not in str(picture):
            yield from find_sources([picture])
            continue

        from pyarrow.fs import FileSelector, FileSystem, FileType

        from ..images import SUFFIXES

        address = str(picture)
        try:
            system, path = FileSystem.from_uri(address)
            info = system.get_file_info(path)
            found = [info] if info.type == FileType.File else system.get_file_info(FileSelector(path, recursive=True))
        except (OSError, ValueError) as error:
            yield Source(address, error=f"{address} cannot be listed: {error}")
            continue
        scheme = address.split("://", 1)[0]
        for info in sorted(found, key=lambda info: info.path):
            if info.type == FileType.File and Path(info.path).suffix.lower() in SUFFIXES:
                name = f"{scheme}://{info.path}"
                yield Source(name, name, info.size, info.mtime_ns or -1)


def _record(row: dict[str, Any]) -> Record:
    """The record that an actor made a row of."""
    found = json.loads(row["facts"])
    results = {
        name: Assessment(value["score"], *(value.get(key, {}) for key in ("attributes", "uncalibrated")))
        for name, value in found.items()
        if isinstance(value, dict)
    }
    error = found.get("error", "")
    return Record(row["path"], results, error, int(row["size"]), int(row["modified"]), row["sha256"])
