"""Find pictures in folders, globs, lists, CSV, tar shards and Parquet, always in the same order."""

import csv
import glob
import hashlib
import io
import os
import stat
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, Union

from ..extras import require
from ..images import SUFFIXES, Picture

Input: TypeAlias = Union[Picture, "Source"]

SHARDS = (".tar", ".tar.gz", ".tgz", ".parquet")  # files that contain pictures
LISTS = (".txt", ".csv", *SHARDS)  # or list them
COLUMNS = ("path", "image", "file", "filename", "picture", "url")  # possible columns of paths
BYTES_COLUMNS = ("bytes", "image", "jpg", "png")  # possible columns of contents


@dataclass(frozen=True)
class Source:
    """A picture to be scored, or the reason why it cannot be."""

    name: str  # the path of its record
    picture: Any = None  # a path, bytes or anything that read_image takes
    size: int = -1  # bytes of the file; -1 if unknown
    modified: int = -1  # nanoseconds since 1970; -1 if unknown
    error: str = ""


def digest(*contents: bytes) -> str:
    """Return the SHA-256 of a file's content, or of the hashes of several."""
    first, *others = (hashlib.sha256(content).hexdigest() for content in contents)
    return hashlib.sha256(" ".join([first, *others]).encode()).hexdigest() if others else first


def content_hash(source: Source) -> str:
    """Return the SHA-256 of a picture's file; "" if it cannot be read or the picture is not a file."""
    try:
        return digest(source.picture if isinstance(source.picture, bytes) else Path(source.picture).read_bytes())
    except (OSError, TypeError, ValueError):
        return ""


def find_sources(pictures: Iterable[Input], *, shards: bool = True) -> Iterator[Source]:
    """Yield the pictures of all inputs, in their order.

    Args:
        pictures: pictures as ``read_image`` takes them; folders, which are searched recursively, in the order of
            their names; globs; ``-`` for a list on standard input; lists (.txt, a path a line; .csv with a column
            ``path`` or the like); tar shards as WebDataset has them; Parquet with a column of paths or of bytes.
            Globs and lists may name lists and shards.
        shards: open tar and Parquet files; otherwise they are yielded themselves.

    Yields:
        One ``Source`` for each picture. One that cannot be opened has an error, and the others follow.
    """
    for place, picture in enumerate(pictures):
        if isinstance(picture, Source):
            yield picture
        elif isinstance(picture, (str, os.PathLike)):
            yield from _of_path(os.fspath(picture), shards)
        else:
            yield Source(str(getattr(picture, "filename", "") or f"#{place}"), picture)


def find_pictures(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield the picture files of folders and globs; one that cannot be opened is a ValueError."""
    for source in find_sources(paths):
        if source.error:
            raise ValueError(source.error)
        yield Path(source.name)


def count_files(paths: Iterable[str]) -> int | None:
    """Count the pictures in files, folders and globs; None if that would take reading lists or shards."""
    paths = list(paths)
    if any(path == "-" or (path.lower().endswith(LISTS) and not os.path.isdir(path)) for path in paths):
        return None
    return sum(1 for _ in find_sources(paths))


def _of_path(path: str, shards: bool) -> Iterator[Source]:
    try:
        if path == "":
            yield Source("", error="the path is empty; give a picture or a folder")
        elif path == "-":
            if isinstance(sys.stdin, io.TextIOWrapper):
                sys.stdin.reconfigure(errors="surrogateescape")  # a file's name may be any bytes
            yield from _of_lines(sys.stdin, "", shards)
        elif os.path.isdir(path):
            yield from _of_folder(path)
        elif glob.has_magic(path) and not os.path.lexists(path):
            yield from _of_glob(path, shards)
        else:
            yield from _of_name(path, shards)
    except (OSError, ValueError) as error:
        yield Source(path, error=_about(path, error))


def _of_file(path: str) -> Source:
    """Return a file with its size and time; anything else that has a name, such as a pipe, is not opened."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return Source(path, error=f"{path} does not exist; check the path")
    except (OSError, ValueError) as error:
        return Source(path, error=_about(path, error))
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or device"
        return Source(path, error=f"{path} is {what}, not a file; give a file")
    return Source(path, path, found.st_size, found.st_mtime_ns)


def _of_folder(path: str) -> Iterator[Source]:
    empty = True
    for source in _walk(path):
        empty = False
        yield source
    if empty:
        kinds = " ".join(sorted(SUFFIXES))
        shards = os.path.join(path, "*.tar")
        yield Source(path, error=f"{path} holds no pictures ({kinds}); name shards and lists themselves, as {shards}")


def _walk(folder: str) -> Iterator[Source]:
    """Walk a folder in the order of names, one folder's names in memory at a time; links to folders are skipped."""
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        yield Source(folder, error=_about(folder, error))
        return

    for name, is_folder in names:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _walk(path)
        elif os.path.splitext(name)[1].lower() in SUFFIXES:
            yield _of_file(path)


def _of_glob(pattern: str, shards: bool) -> Iterator[Source]:
    found = sorted(glob.iglob(pattern, recursive=True))
    if not found:
        yield Source(pattern, error=f"nothing matches {pattern}; check the pattern")
    for path in found:
        if os.path.isdir(path):
            if "**" not in pattern:  # otherwise the glob has found the files of folders
                yield from _of_folder(path)
        elif "**" not in pattern or path.lower().endswith((*SUFFIXES, *SHARDS)):
            yield from _of_name(path, shards)


def _of_name(path: str, shards: bool) -> Iterator[Source]:
    """Yield a picture, or the contents of a list or shard of that name."""
    found, name = _of_file(path), path.lower()
    if found.error or not name.endswith(LISTS) or (name.endswith(SHARDS) and not shards):
        yield found
    elif name.endswith(SHARDS):
        with open(path, "rb") as shard:
            yield from sources_of_shard(path, shard)
    else:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from (_of_csv if name.endswith(".csv") else _of_lines)(file, os.path.dirname(path), shards)


def _of_lines(lines: Iterable[str], folder: str, shards: bool) -> Iterator[Source]:
    """Yield paths relative to ``folder``, one a line; empty lines are skipped."""
    for line in lines:
        path = line.rstrip("\r\n")
        if path:
            yield from _of_member(os.path.join(folder, path), shards)


def _of_csv(lines: Iterable[str], folder: str, shards: bool) -> Iterator[Source]:
    header = next(iter(lines), "")
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(chain([header], lines), delimiter=separator)
    column = _column(reader.fieldnames or (), COLUMNS)
    for row in reader:
        yield from _of_member(os.path.join(folder, row[column] or ""), shards)


def _of_member(path: str, shards: bool) -> Iterator[Source]:
    """Yield a picture or shard that a list names; a list inside a list might be circular."""
    if path.lower().endswith(SHARDS):
        yield from _of_name(path, shards)
    else:
        yield _of_file(path)


def _column(names: Iterable[str], wanted: Iterable[str]) -> str:
    """Return the first of the wanted columns that exists."""
    known = {str(name).strip().lower(): name for name in names}
    for name in wanted:
        if name in known:
            return known[name]
    raise ValueError(f"no column is named {', '.join(wanted)}, only {', '.join(known)}; rename the column of paths")


def sources_of_shard(path: str, file: BinaryIO) -> Iterator[Source]:
    """Yield the pictures of an open tar shard or Parquet file; if it is damaged, the last one has an error."""
    try:
        yield from (_of_parquet if path.lower().endswith(".parquet") else _of_tar)(path, file)
    except (OSError, ValueError, tarfile.TarError) as error:
        yield Source(path, error=_about(path, error))


def _of_tar(path: str, archive: BinaryIO) -> Iterator[Source]:
    """Yield the pictures of a tar shard, read in one pass; nothing is unpacked to disk."""
    with tarfile.open(fileobj=archive, mode="r|*") as shard:
        for member in shard:
            if not member.isfile() or os.path.splitext(member.name)[1].lower() not in SUFFIXES:
                continue
            file = shard.extractfile(member)
            if file is not None:
                yield Source(f"{path}/{member.name}", file.read(), member.size, int(member.mtime * 10**9))


def _of_parquet(path: str, table: BinaryIO) -> Iterator[Source]:
    """Yield the pictures of a Parquet file from a column of bytes or of paths, one row group at a time."""
    parquet = import_parquet()
    with parquet.ParquetFile(table) as file:
        schema = file.schema_arrow
        binary = [name for name in schema.names if _is_binary(schema.field(name).type)]
        paths = [name for name in schema.names if str(schema.field(name).type) in ("string", "large_string")]
        content = next((name for name in BYTES_COLUMNS if name in binary), None)
        names = next((name for name in COLUMNS if name in paths), None)
        if content is None and names is None:
            _column(schema.names, COLUMNS)  # raises

        columns = [name for name in (content, names) if name is not None]
        rows = (row for batch in file.iter_batches(batch_size=64, columns=columns) for row in batch.to_pylist())
        for place, row in enumerate(rows):
            yield _of_row(path, place, row, content, names)


def _of_row(path: str, place: int, row: dict[str, Any], content: str | None, names: str | None) -> Source:
    if content is None:
        return _of_file(os.path.join(os.path.dirname(path), row[str(names)] or ""))
    picture = row[content]
    if isinstance(picture, dict):  # as Hugging Face's datasets keep pictures: {"bytes": ..., "path": ...}
        inner = picture.get("path")
        picture = picture.get("bytes")
        name = inner or place
    else:
        name = row[names] if names else place
    if not isinstance(picture, bytes):
        return Source(f"{path}/{name}", error=f"row {name} of {path} holds no bytes; remove it")
    return Source(f"{path}/{name}", picture, len(picture))


def _is_binary(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary") or str(kind).startswith("struct<bytes: binary")


def import_parquet() -> Any:
    """Import pyarrow.parquet."""
    return require("pyarrow.parquet", "Parquet needs pyarrow", "parquet")


def _about(path: str, error: Exception) -> str:
    """Return the error in one line that names the path."""
    if isinstance(error, OSError) and error.strerror:
        return f"{path} cannot be opened: {error.strerror.lower()}"
    return str(error) if path in str(error) else f"{path}: {error}"
