"""The pipeline on many machines: Ray Data distributes the pictures to actors, each of which runs it.

The driver lists the pictures and writes the scores with the sinks of a single machine. Ray sends paths to the actors
and numbers back, and restarts actors that die. A picture that cannot be scored is a row with an error.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import require
from ..metric import Assessment
from .pipeline import Record, Work, as_inputs, make_metrics, run
from .sinks import Held, facts, open_sink
from .sources import SHARDS, Input, Source, find_sources, sources_of_shard

if TYPE_CHECKING:
    import numpy as np

ROWS = 64  # pictures that an actor gets at a time, and that are scored again if it dies
BLOCKS = 10_000  # at most, since Ray plans with all of them


def score(
    pictures: Any,
    metrics: Sequence[str] = ("leiq",),
    out: str | Path = "scores.parquet",
    *,
    resume: bool = False,
    **options: Any,
) -> Path:
    """Score pictures on a Ray cluster and write the scores to ``out``, as they arrive, on the driver's disk.

    ``out`` ends in .parquet, .csv or .jsonl; with ``resume`` it is continued, and pictures in it are skipped. The other
    arguments are those of ``records``.

    Raises:
        ValueError: Ray is not installed, options that exclude each other, or an actor that cannot start.
    """
    with open_sink(out, list(metrics), resume=resume) as sink:
        for record in records(pictures, metrics, held=sink.held, **options):
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
    held: Held | None = None,
    skipped: Callable[[], object] | None = None,
) -> Iterator[Record]:
    """Yield a record for each picture, in the order in which they are finished.

    Args:
        pictures: paths that every machine can open, of pictures, folders, lists, tar shards and Parquet, and globs;
            addresses such as s3://bucket/dir that pyarrow opens; or a ``ray.data.Dataset`` with a column ``path``,
            or ``bytes`` and ``path``.
        metrics: names.
        attributes: as for ``lowlight_iqa.score``.
        weights: as for ``lowlight_iqa.score``.
        device: where the actors compute; with "cuda", give ``gpus``.
        actors: how many, or (fewest, most); None for as many as the cluster has processors (or GPUs) for.
        cpus: processors of each actor.
        gpus: GPUs of each actor; a fraction shares one.
        batch: as for ``lowlight_iqa.score``.
        address: of a running cluster; None starts one on this machine, or uses that of $RAY_ADDRESS.
        held: pictures to skip.
        skipped: called for each skipped picture.
    """
    ray = import_ray(address)
    make_metrics(metrics, weights, "cpu")  # raises here rather than in an actor
    skipped = skipped or (lambda: None)
    if isinstance(pictures, ray.data.Dataset):
        dataset, rows, unlisted = pictures, ROWS, True
    else:
        found = _list(as_inputs(pictures), held, skipped)
        yield from found.failed
        blocks = _blocks(found)
        if not blocks:
            return
        # Blocks are made here: a task that splits a table would wait forever if actors hold all processors.
        dataset, rows, unlisted = ray.data.from_arrow(blocks), None, bool(found.shards)

    looked_for = held if unlisted else None
    scored = dataset.map_batches(
        Scorer,
        fn_constructor_args=(list(metrics), weights, device, attributes, max(1, int(cpus)), batch, looked_for),
        batch_size=rows,
        compute=_pool(ray, actors, cpus, gpus),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    try:
        for row in scored.iter_rows():
            if row["facts"]:
                yield _record(row)
            else:
                skipped()
    except ray.exceptions.RayError as error:
        raise ValueError(f"the Ray job failed: {str(error).strip().splitlines()[-1]}") from error


def import_ray(address: str | None = None) -> Any:
    """Import Ray and connect to a cluster.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    require("ray.data", "this needs Ray", "ray")
    import ray

    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except ConnectionError as error:
            raise ValueError(f"no Ray cluster answers at {address}; start one by `ray start --head`") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _pool(ray: Any, actors: int | tuple[int, int] | None, cpus: float, gpus: float) -> Any:
    """Return the strategy with so many actors, or with as many as the cluster has room for."""
    if actors is None:
        resources = ray.cluster_resources()
        free = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / cpus
        actors = (1, max(1, int(free)))
    fewest, most = (actors, actors) if isinstance(actors, int) else actors
    return ray.data.ActorPoolStrategy(min_size=fewest, max_size=most)


class Scorer:
    """An actor: the metrics, loaded once."""

    def __init__(
        self,
        metrics: Sequence[str],
        weights: str | Path | None,
        device: str,
        attributes: bool,
        workers: int,
        batch: int | None,
        held: Held | None,
    ) -> None:
        self.work = Work(make_metrics(metrics, weights, device), attributes=attributes, digest=True)
        self.workers, self.batch, self.held = workers, batch, held

    def __call__(self, rows: dict[str, np.ndarray[Any, Any]]) -> Iterator[dict[str, list[Any]]]:
        """Score rows: a column ``path``, of pictures or shards, and optionally ``bytes``, ``size`` and ``modified``.

        The row of a skipped picture has no facts.
        """
        left_out: list[Record] = []
        found = run(self._sources(rows, left_out), self.work, workers=self.workers, batch=self.batch)
        while chunk := [*islice(found, ROWS), *left_out]:
            left_out.clear()
            yield {
                "path": [record.path for record in chunk],
                "size": [record.size for record in chunk],
                "modified": [record.modified for record in chunk],
                "sha256": [record.digest for record in chunk],
                "facts": [json.dumps(facts(record)) if record.results or record.error else "" for record in chunk],
            }

    def _sources(self, rows: Mapping[str, Any], left_out: list[Record]) -> Iterator[Source]:
        """Yield the pictures of rows that are to be scored, and list the others in ``left_out``."""
        for cells in zip(*rows.values(), strict=True):
            row = dict(zip(rows, cells, strict=True))
            for source in _sources_of_row(row):
                if self.held is not None and self.held.holds(source):
                    left_out.append(Record(source.name))
                else:
                    yield source


def _sources_of_row(row: Mapping[str, Any]) -> Iterator[Source]:
    """Yield the picture of a row, or those of its shard."""
    name = str(row["path"])
    if isinstance(row.get("bytes"), bytes) or not name.lower().endswith(SHARDS):
        yield _source(row)
        return
    try:
        with _open(name) as file:
            for source in sources_of_shard(name, file):
                yield source if _is_text(source.name) else replace(source, name=ascii(source.name))
    except (OSError, ValueError) as error:
        yield Source(name, error=f"{name} cannot be read: {error}")


def _source(row: Mapping[str, Any]) -> Source:
    """Return the picture of a row: its bytes, those at an address, or the file of that name."""
    name = str(row["path"])
    size, modified = (int(row.get(key, -1)) for key in ("size", "modified"))
    content = row.get("bytes")
    if isinstance(content, bytes):
        return Source(name, content, len(content), modified)
    if "://" not in name:
        return Source(name, name, size, modified)
    try:
        with _open(name) as file:
            return Source(name, file.read(), size, modified)
    except (OSError, ValueError) as error:
        return Source(name, error=f"{name} cannot be read: {error}")


def _open(name: str) -> Any:
    """Open a file or an address for reading."""
    if "://" not in name:
        return open(name, "rb")
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(name)
    return system.open_input_file(path)


@dataclass
class _Found:
    """The inputs: files, shards, and what cannot be opened."""

    files: dict[str, list[Any]] = field(default_factory=lambda: {"path": [], "size": [], "modified": []})
    shards: list[str] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)


def _list(pictures: Iterable[Input], held: Held | None, skipped: Callable[[], object]) -> _Found:
    """List the pictures that are to be scored; one that is not a file is a ValueError."""
    found = _Found()
    for source in _listed(pictures):
        if source.error or not _is_text(source.name):
            reason = f"{source.name!a} is not UTF-8, which Ray needs; rename it"
            found.failed.append(Record(source.name, error=source.error or reason))
        elif not isinstance(source.picture, (str, os.PathLike)):
            raise ValueError(f"{source.name} is not a file that actors can open; give paths, or a ray.data.Dataset")
        elif source.name.lower().endswith(SHARDS):
            found.shards.append(source.name)
        elif held is not None and held.holds(source):
            skipped()
        else:
            found.files["path"].append(source.name)
            found.files["size"].append(source.size)
            found.files["modified"].append(source.modified)
    return found


def _blocks(found: _Found) -> list[Any]:
    """Return the tables that actors are given: of some files, or of one shard."""
    import pyarrow

    table, count = pyarrow.table(found.files), len(found.files["path"])
    rows = max(ROWS, -(-count // BLOCKS))
    blocks = [table.slice(first, rows) for first in range(0, count, rows)]
    return blocks + [pyarrow.table({"path": [path], "size": [-1], "modified": [-1]}) for path in found.shards]


def _is_text(name: str) -> bool:
    """Tell whether a file's name is UTF-8, as Arrow's strings are."""
    return name.isascii() or name == name.encode(errors="replace").decode()


def _listed(pictures: Iterable[Input]) -> Iterator[Source]:
    """Yield sources as ``find_sources`` does, shards unopened; also list folders at an address such as s3://."""
    for picture in pictures:
        if not isinstance(picture, (str, os.PathLike)):
            yield from find_sources([picture], shards=False)
            continue
        address = os.fspath(picture)
        if "://" not in address:
            yield from find_sources([address], shards=False)
            continue

        from pyarrow.fs import FileSelector, FileSystem, FileType

        from ..images import SUFFIXES

        try:
            system, path = FileSystem.from_uri(address)
            info = system.get_file_info(path)
            found = [info] if info.type == FileType.File else system.get_file_info(FileSelector(path, recursive=True))
        except (OSError, ValueError) as error:
            yield Source(address, error=f"{address} cannot be listed: {error}")
            continue
        scheme = address.split("://", 1)[0]
        for info in sorted(found, key=lambda info: info.path):
            if info.type == FileType.File and info.path.lower().endswith((*SUFFIXES, *SHARDS)):
                name = f"{scheme}://{info.path}"
                yield Source(name, name, info.size, info.mtime_ns or -1)


def _record(row: dict[str, Any]) -> Record:
    """Return the record of an actor's row."""
    found = json.loads(row["facts"])
    results = {
        name: Assessment(value["score"], *(value.get(key, {}) for key in ("attributes", "uncalibrated")))
        for name, value in found.items()
        if isinstance(value, dict)
    }
    error = found.get("error", "")
    return Record(row["path"], results, error, int(row["size"]), int(row["modified"]), row["sha256"])
