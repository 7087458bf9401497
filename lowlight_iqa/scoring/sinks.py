"""Files of scores, written record by record: CSV, JSON lines and Parquet; a killed run can be resumed.

Every record is written at once, so a killed process loses only what was in flight. When the file is opened again, a
record that was cut short is dropped. Parquet cannot be written that way: its records are kept in JSON lines beside it
until the run is complete.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..metric import Assessment
from ..wholefile import refused, replacing
from .pipeline import Record
from .sources import Source, content_hash, import_parquet

FACTS = ("path", "size", "modified", "sha256", "error")  # columns before those of the metrics
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # first characters of a formula in a spreadsheet
ROWS = 10_000  # of a Parquet row group
REMEDY = "make room, then --resume"


def open_sink(path: str | Path, metrics: Sequence[str], *, resume: bool = False) -> Sink:
    """Open a file for the scores of some metrics: .csv, .jsonl or .parquet.

    With ``resume`` a file of the same metrics is continued; otherwise the file must not exist.

    Raises:
        ValueError: another suffix, an existing file, or a file of other metrics.
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    kinds: dict[str, type[Sink]] = {".csv": CsvSink, ".jsonl": JsonlSink, ".parquet": ParquetSink}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path} does not end in one of {', '.join(kinds)}; rename it")
    return kinds[path.suffix.lower()](path, metrics, resume)


def exists(path: Path) -> ValueError:
    """Return the error of a file that must not be overwritten."""
    return ValueError(f"{path} exists already; continue it with --resume, or remove it")


def cells(record: Record) -> dict[str, float]:
    """Return the numbers of a record by column: ``leiq``, ``leiq.light``, ..."""
    found = {}
    for name, result in record.results.items():
        found[name] = result.score
        found |= {f"{name}.{key}": value for key, value in result.attributes.items()}
        found |= {f"{name}.{key}.uncalibrated": value for key, value in result.uncalibrated.items()}
    return found


def facts(record: Record) -> dict[str, Any]:
    """Return a record as JSON values."""
    if record.error:
        return {"path": record.path, "error": record.error}
    found: dict[str, Any] = {"path": record.path}
    for name, result in record.results.items():
        found[name] = {"score": result.score}
        if result.attributes:
            found[name]["attributes"] = dict(result.attributes)
        if result.uncalibrated:
            found[name]["uncalibrated"] = dict(result.uncalibrated)
        if result.description:
            found[name]["description"] = result.description
    return found


def inert(text: str) -> str:
    """Escape text that a spreadsheet would take for a formula; ``original`` undoes it."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return f"'{text}" if text.startswith(FORMULA) else text


def original(text: str) -> str:
    """Undo ``inert``."""
    return text[1:] if text.startswith("'") else text


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an error such as a full disk's."""
    try:
        yield
    except OSError as error:
        raise refused(path, error, REMEDY) from error


class Held:
    """The pictures in a file of records: 24 bytes of hashes for each path."""

    def __init__(self) -> None:
        self.versions: dict[bytes, bytes] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row's picture; one that failed is removed, so that it is scored again."""
        if row["error"]:
            self.versions.pop(_hash(row["path"]), None)
        else:
            self.versions[_hash(row["path"])] = b"".join(_hash(row[key]) for key in ("size", "modified", "sha256"))

    def __contains__(self, path: str) -> bool:
        return _hash(path) in self.versions

    def holds(self, source: Source) -> bool:
        """Tell whether the picture is in the file and unchanged: of the same size, and the same time or content.

        Its content is read only if the time differs, as after copying, or is unknown, as of bytes in Parquet.
        """
        version = self.versions.get(_hash(source.name))
        if version is None or version[:8] != _hash(source.size):
            return False
        if source.modified != -1 and version[8:16] == _hash(source.modified):
            return True
        content = content_hash(source)
        return content != "" and version[16:] == _hash(content)


class Sink(AbstractContextManager["Sink"]):
    """A file of records, and what it held when it was opened; a context manager."""

    def __init__(self, path: Path, metrics: Sequence[str], resume: bool) -> None:
        self.path, self.metrics = path, list(metrics)
        self.held = Held()
        self.stale = False  # whether a path has a newer row, so that the older one must be dropped
        self.whole = 0  # bytes up to the end of the last complete record

        if path.exists() and not resume:
            raise exists(path)
        try:
            self.file: BinaryIO = path.open("a+b")
        except OSError as error:
            raise OSError(f"{path} cannot be written ({error.strerror}); give another --out") from error
        try:
            self._recover()
        except BaseException:
            self.file.close()
            raise

    def holds(self, source: Source) -> bool:
        """Tell whether the picture was scored already and is unchanged."""
        return self.held.holds(source)

    def write(self, record: Record) -> None:
        """Append a record."""
        self.stale |= record.path in self.held
        self._write(self.encode(record))

    def close(self) -> None:
        """Write what is left, and drop rows that newer ones replace."""
        if self.stale:
            self._compact()
        with naming(self.path):  # closing flushes the buffer
            self.file.close()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OSError):  # of flushing the buffer; the first error is reported
            self.file.close()

    @abstractmethod
    def encode(self, record: Record) -> bytes:
        """Return the bytes of one record."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
        """Yield the bytes of each complete record and its ``FACTS``; set ``whole``. Other content is a ValueError."""

    def _recover(self) -> None:
        """Read what the file holds, and cut off a record that a killed run left unfinished."""
        for _, row in self.rows():
            self.held.add(row)
            self.stale |= bool(row["error"])  # scored again
        self.file.truncate(self.whole)

    def _compact(self) -> None:
        """Keep the newest row of each path."""
        newest = {_hash(row["path"]): number for number, (_, row) in enumerate(self.rows())}
        with replacing(self.path, remedy=REMEDY) as new, new.open("wb") as file:
            file.write(self.head())
            for number, (content, row) in enumerate(self.rows()):
                if newest[_hash(row["path"])] == number:
                    file.write(content)

    def head(self) -> bytes:
        """Return what precedes the records."""
        return b""

    def _write(self, content: bytes) -> None:
        with naming(self.path):
            self.file.write(content)
            self.file.flush()


class JsonlSink(Sink):
    """JSON lines."""

    def encode(self, record: Record) -> bytes:
        """Return the record as a line."""
        known = {"path": record.path, "size": record.size, "modified": record.modified, "sha256": record.digest}
        return json.dumps(known | facts(record)).encode() + b"\n"

    def rows(self) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
        """Yield the lines."""
        self.file.seek(0)
        self.whole = 0
        for line in self.file:
            if not line.endswith(b"\n"):
                return  # cut short
            self.whole += len(line)
            try:
                row = json.loads(line)
                known = {"error": "", **{key: row[key] for key in FACTS if key in row}}
                if not known["error"] and not all(name in row for name in self.metrics):
                    raise ValueError
                yield line, {key: known[key] for key in FACTS}
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(
                    f"{self.path}, byte {self.whole - len(line)}, is not a record of {', '.join(self.metrics)}; "
                    "give another --out"
                ) from None


class CsvSink(Sink):
    """Comma-separated values; the first result determines the header."""

    columns: list[str] | None = None
    early: list[Record]  # errors before the first result

    def __init__(self, path: Path, metrics: Sequence[str], resume: bool) -> None:
        self.early = []
        super().__init__(path, metrics, resume)

    def write(self, record: Record) -> None:
        """Append a row, and the header before the first."""
        if self.columns is None:
            if record.error:
                self.early.append(record)
                return
            self._begin(list(cells(record)))
        super().write(record)

    def close(self) -> None:
        """Write errors that were not followed by a result."""
        if self.columns is None:
            self._begin(self.metrics)
        super().close()

    def _begin(self, columns: list[str]) -> None:
        self.columns = [*FACTS, *columns]
        self._write(self.head() + b"".join(map(self.encode, self.early)))
        self.early.clear()

    def head(self) -> bytes:
        """Return the row of column names."""
        return _encoded(csv_line(self.columns or ()))

    def encode(self, record: Record) -> bytes:
        """Return the record as a row."""
        numbers = cells(record)
        values = [f"{numbers[name]:.9g}" if name in numbers else "" for name in (self.columns or ())[len(FACTS) :]]
        known = [inert(record.path), record.size, record.modified, record.digest, inert(record.error)]
        return _encoded(csv_line([*known, *values]))

    def rows(self) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
        """Yield the rows after the header."""
        self.file.seek(0)
        self.whole, columns = 0, None
        for content in _csv_records(self.file):
            self.whole += len(content)
            values = next(csv.reader(io.StringIO(content.decode(errors="surrogateescape"), newline="")))
            if columns is None:
                columns = self._check_columns(values)
                continue
            row = dict(zip(columns, values, strict=False))
            try:
                known = {"path": original(row["path"]), "sha256": row["sha256"], "error": original(row["error"])}
                yield content, {**known, **{key: int(row[key]) for key in ("size", "modified")}}
            except (KeyError, ValueError):
                raise ValueError(
                    f"{self.path}, byte {self.whole - len(content)}, is not a row of scores; give another --out"
                ) from None

    def _check_columns(self, columns: list[str]) -> list[str]:
        own = [name for name in columns[len(FACTS) :] if name in self.metrics]
        if columns[: len(FACTS)] != list(FACTS) or own != self.metrics:
            raise ValueError(
                f"{self.path} has the columns {', '.join(columns)[:200]}, which are not those of "
                f"{', '.join(self.metrics)}; give another --out"
            )
        self.columns = columns
        return columns


class ParquetSink(JsonlSink):
    """Parquet; until the run is complete, JSON lines beside it."""

    def __init__(self, path: Path, metrics: Sequence[str], resume: bool) -> None:
        import_parquet()  # raises before the scoring, if pyarrow is missing
        self.target = path
        if path.exists() and not resume:
            raise exists(path)
        journal = path.with_name(f"{path.name}.jsonl")
        if path.exists() and not journal.exists():
            _journal_of(path, journal)
        super().__init__(journal, metrics, resume)

    def close(self) -> None:
        """Write the Parquet file in one step and remove the lines beside it."""
        super().close()
        with replacing(self.target, remedy=REMEDY) as new:
            write_parquet(self.path, new)
        self.path.unlink()


def write_parquet(journal: Path, path: Path) -> None:
    """Convert JSON lines to Parquet, row group by row group, with the number columns of CSV."""
    import pyarrow

    parquet = import_parquet()
    names: dict[str, None] = {}
    with journal.open("rb") as file:
        for line in file:
            names |= dict.fromkeys(_numbers(json.loads(line)))

    kinds = {name: pyarrow.int64() if name in ("size", "modified") else pyarrow.string() for name in FACTS}
    schema = pyarrow.schema([*kinds.items(), *((name, pyarrow.float64()) for name in names)])
    with journal.open("rb") as file, parquet.ParquetWriter(path, schema) as writer:
        rows = []
        for line in file:
            row = json.loads(line)
            known = {"error": "", **{key: row[key] for key in FACTS if key in row}}
            known |= {key: known[key].encode(errors="backslashreplace").decode() for key in ("path", "error")}
            rows.append(known | _numbers(row))
            if len(rows) == ROWS:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows.clear()
        writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the cells of a record read from JSON."""
    found: dict[str, float] = {}
    for name, result in row.items():
        if isinstance(result, dict):
            parts = {key: result.get(key, {}) for key in ("attributes", "uncalibrated")}
            found |= cells(Record("", {name: Assessment(result["score"], **parts)}))
    return found


def _journal_of(path: Path, journal: Path) -> None:
    """Convert a complete Parquet file back to JSON lines, to continue it."""
    with (
        replacing(journal, remedy=REMEDY) as new,
        import_parquet().ParquetFile(path) as file,
        new.open("w", encoding="utf-8") as lines,
    ):
        for batch in file.iter_batches(batch_size=ROWS):
            for row in batch.to_pylist():
                known = {key: row.pop(key) for key in FACTS}
                lines.write(json.dumps({**known, **_nested(row)}) + "\n")


def _nested(columns: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the cells of a row in the form of ``facts``."""
    found: dict[str, Any] = {}
    for column, value in columns.items():
        name, _, key = column.partition(".")
        if value is None:
            continue
        if not key:
            found[name] = {"score": value}
        elif key.endswith(".uncalibrated"):
            found[name].setdefault("uncalibrated", {})[key.removesuffix(".uncalibrated")] = value
        else:
            found[name].setdefault("attributes", {})[key] = value
    return found


def csv_line(values: Sequence[object]) -> str:
    """Return the values as a row, without its line end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)  # so that a name with either is quoted
    return line.getvalue().removesuffix("\r\n")


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode(errors="surrogateescape")


def _csv_records(file: BinaryIO) -> Iterator[bytes]:
    """Yield the complete records of a CSV file; lines are joined while a quoted cell is open."""
    record = b""
    for line in file:
        record += line
        if record.count(b'"') % 2 == 0 and record.endswith(b"\n"):
            yield record
            record = b""


def _hash(value: object) -> bytes:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).digest()
