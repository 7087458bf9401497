"""Files of scores, written as the scores come: CSV, JSON lines and Parquet; a killed run goes on where it was.

Every record is handed to the system as soon as it is known, so that a killed process loses what was in flight and no
more. A record that was cut in its middle is dropped when the file is opened again. Parquet cannot be written that way:
its records are kept in JSON lines beside it until the run is complete.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from ..metric import Assessment
from ..wholefile import refused, replacing
from .pipeline import Record
from .sources import Source, content_hash, import_parquet

if TYPE_CHECKING:
    from typing_extensions import Self

FACTS = ("path", "size", "modified", "sha256", "error")  # columns before those of the metrics
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # a spreadsheet takes text that starts so for a formula
ROWS = 10_000  # of a row group of Parquet
REMEDY = "make room, then --resume"


def open_sink(path: str | Path, metrics: Sequence[str], *, resume: bool = False) -> Sink:
    """Open the file that scores go to, of the kind that its name says.

    Args:
        path: ends in .csv, .jsonl or .parquet.
        metrics: names of the metrics.
        resume: go on with a file of the same metrics; without, there may be none yet.

    Raises:
        ValueError: another kind of file, one that is there already, one of other metrics.
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    kinds: dict[str, type[Sink]] = {".csv": CsvSink, ".jsonl": JsonlSink, ".parquet": ParquetSink}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path} is none of {', '.join(kinds)}; name the file so")
    return kinds[path.suffix.lower()](path, metrics, resume)


def cells(record: Record) -> dict[str, float]:
    """The numbers of a record by column: ``leiq``, ``leiq.light``, ..."""
    found = {}
    for name, result in record.results.items():
        found[name] = result.score
        found |= {f"{name}.{key}": value for key, value in result.attributes.items()}
        found |= {f"{name}.{key}.uncalibrated": value for key, value in result.uncalibrated.items()}
    return found


def facts(record: Record) -> dict[str, Any]:
    """A record as JSON has it."""
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
    """The text so that no spreadsheet takes it for a formula; ``original`` takes it back."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return f"'{text}" if text.startswith(FORMULA) else text


def original(text: str) -> str:
    """What ``inert`` was given."""
    return text[1:] if text.startswith("'") else text


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an error such as a full disk's."""
    try:
        yield
    except OSError as error:
        raise refused(path, error, REMEDY) from error


class Held:
    """The pictures that a file of records holds: 24 bytes of hashes for each path."""

    def __init__(self) -> None:
        self.versions: dict[bytes, bytes] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep the version of a row's picture; one that failed may be scored now, and is not kept."""
        if row["error"]:
            self.versions.pop(_hash(row["path"]), None)
        else:
            self.versions[_hash(row["path"])] = b"".join(_hash(row[key]) for key in ("size", "modified", "sha256"))

    def __contains__(self, path: str) -> bool:
        return _hash(path) in self.versions

    def holds(self, source: Source) -> bool:
        """Whether the picture is there as it is now: of the same size, and of the same time or the same content.

        A file is read only where its time differs, as after copying, or is not known, as of bytes in Parquet.
        """
        version = self.versions.get(_hash(source.name))
        if version is None or version[:8] != _hash(source.size):
            return False
        if source.modified != -1 and version[8:16] == _hash(source.modified):
            return True
        content = content_hash(source)
        return content != "" and version[16:] == _hash(content)


class Sink(ABC):
    """A file of records, and what it held when it was opened; a context manager."""

    def __init__(self, path: Path, metrics: Sequence[str], resume: bool) -> None:
        self.path, self.metrics = path, list(metrics)
        self.held = Held()
        self.stale = False  # a path has come again: its older row is to go

        self.whole = 0  # bytes up to the end of the last record that is not cut short

        if path.exists() and not resume:
            raise ValueError(f"{path} is there already; go on with it by --resume, or remove it")
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
        """Whether the picture was scored already, as it is now."""
        return self.held.holds(source)

    def write(self, record: Record) -> None:
        """Append a record."""
        self.stale |= record.path in self.held
        self._write(self.encode(record))

    def close(self) -> None:
        """Write what is left, and drop rows that newer ones replace."""
        if self.stale:
            self._compact()
        with naming(self.path):  # closing writes what a full disk has left in the buffer
            self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OSError):  # of what a full disk has left in the buffer; the first error has said so
            self.file.close()

    @abstractmethod
    def encode(self, record: Record) -> bytes:
        """The bytes of one record."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
        """Yield the bytes of each whole record, and its ``FACTS``; set ``whole``.

        Raises:
            ValueError: records of something else.
        """

    def _recover(self) -> None:
        """Learn what the file holds, and cut off a record that a killed run left unfinished."""
        for _, row in self.rows():
            self.held.add(row)
            self.stale |= bool(row["error"])  # may be scored now
        self.file.truncate(self.whole)

    def _compact(self) -> None:
        """Keep the newest row of each path; the old file stays whole until the new one is."""
        newest = {_hash(row["path"]): number for number, (_, row) in enumerate(self.rows())}
        with replacing(self.path, remedy=REMEDY) as new, new.open("wb") as file:
            file.write(self.head())
            for number, (content, row) in enumerate(self.rows()):
                if newest[_hash(row["path"])] == number:
                    file.write(content)

    def head(self) -> bytes:
        """What stands before the records."""
        return b""

    def _write(self, content: bytes) -> None:
        with naming(self.path):
            self.file.write(content)
            self.file.flush()


class JsonlSink(Sink):
    """One JSON object a line."""

    def encode(self, record: Record) -> bytes:
        """The record as a line."""
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
                    f"{self.path}, byte {self.whole - len(line)}, is no record of {', '.join(self.metrics)}; "
                    "give another --out"
                ) from None


class CsvSink(Sink):
    """Comma-separated values, with a header that the first result determines."""

    columns: list[str] | None = None
    early: list[Record]  # errors from before the columns are known

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
        """Write errors that no result came after."""
        if self.columns is None:
            self._begin(self.metrics)
        super().close()

    def _begin(self, columns: list[str]) -> None:
        self.columns = [*FACTS, *columns]
        self._write(self.head() + b"".join(map(self.encode, self.early)))
        self.early.clear()

    def head(self) -> bytes:
        """The row of the columns' names."""
        return _encoded(csv_line(self.columns or ()))

    def encode(self, record: Record) -> bytes:
        """The record as a row."""
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
                    f"{self.path}, byte {self.whole - len(content)}, is no row of scores; give another --out"
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
        import_parquet()  # better missed now than when all is scored
        self.target = path
        if path.exists() and not resume:
            raise ValueError(f"{path} is there already; go on with it by --resume, or remove it")
        journal = path.with_name(f"{path.name}.jsonl")
        if path.exists() and not journal.exists():
            _journal_of(path, journal)
        super().__init__(journal, metrics, resume)

    def close(self) -> None:
        """Write the Parquet file, in one step, and remove the lines beside it."""
        super().close()
        with replacing(self.target, remedy=REMEDY) as new:
            write_parquet(self.path, new)
        self.path.unlink()


def write_parquet(journal: Path, path: Path) -> None:
    """Write the records of JSON lines as Parquet: a column of numbers for each that CSV has, row group by row group."""
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
    """The cells of a record that was read from JSON."""
    found: dict[str, float] = {}
    for name, result in row.items():
        if isinstance(result, dict):
            parts = {key: result.get(key, {}) for key in ("attributes", "uncalibrated")}
            found |= cells(Record("", {name: Assessment(result["score"], **parts)}))
    return found


def _journal_of(path: Path, journal: Path) -> None:
    """Turn a complete Parquet file back into JSON lines, to go on with it."""
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
    """The cells of a row as ``facts`` has them."""
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
    """The values as a row, without its line end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)  # so that a name with either is quoted
    return line.getvalue().removesuffix("\r\n")


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode(errors="surrogateescape")


def _csv_records(file: BinaryIO) -> Iterator[bytes]:
    """The whole records of a CSV file: lines joined while a quoted cell is open; what is cut short is left out."""
    record = b""
    for line in file:
        record += line
        if record.count(b'"') % 2 == 0 and record.endswith(b"\n"):
            yield record
            record = b""


def _hash(value: object) -> bytes:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).digest()
