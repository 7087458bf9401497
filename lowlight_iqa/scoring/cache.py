"""The cache of scores: a picture that a metric has scored is not scored again.

The key of an entry is the hash of the picture's file (and of its dark input) and the ``fingerprint`` of the metric. The
cache is one SQLite file, which processes can share and which keeps the scores of an interrupted run; a checksum finds
damaged entries, which are scored again.
"""

import ast
import hashlib
import importlib.metadata
import inspect
import json
import logging
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .. import __version__
from ..metric import Assessment, Metric
from .pipeline import Record

FILE = "scores-2.sqlite"  # with the version of the layout
SHARED = ("images", "metric", "backbones", "attributes", "functional")  # modules that all scores use
LIBRARIES = ("torch", "timm", "Pillow", "numpy", "scipy")
TIMEOUT = 60.0  # seconds to wait while another process writes

logger = logging.getLogger(__name__)


def cache_folder(cache: str | Path | None = None) -> Path:
    """Return the folder of the cache: as given, $LOWLIGHT_IQA_CACHE, or ~/.cache/lowlight_iqa."""
    return Path(cache or os.environ.get("LOWLIGHT_IQA_CACHE") or Path.home() / ".cache" / "lowlight_iqa")


class Store(AbstractContextManager["Store"]):
    """Entries by key and picture, in one SQLite file that processes share; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.database = self._open()
        if self.database is not None:
            self.database.text_factory = lambda text: text.decode(errors="replace")  # fails the checksum

    def read(self, key: str) -> dict[str, Any]:
        """Return the entries of a key by picture, without damaged ones."""
        entries: dict[str, Any] = {}
        if self.database is None:
            return entries
        damaged = 0
        try:
            found = self.database.execute("SELECT picture, payload, checksum FROM scores WHERE key = ?", (key,))
            for picture, payload, checksum in found:
                if checksum == self._check(key, picture, payload):
                    entries[picture] = json.loads(payload)
                else:
                    damaged += 1
        except sqlite3.Error as error:
            logger.warning("%s cannot be read further (%s); the rest is computed again", self.path, error)
        if damaged:
            logger.warning("%d entries of %s are damaged and computed again", damaged, self.path)
        return entries

    def write(self, key: str, picture: str, entry: Mapping[str, Any]) -> None:
        """Write an entry to the file."""
        if self.database is None:
            return
        payload = json.dumps(entry)
        row = (key, picture, payload, self._check(key, picture, payload))
        try:
            self.database.execute("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            logger.warning("%s cannot be written (%s); the scores of this run are not kept", self.path, error)
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self.database is not None:
            self.database.close()
            self.database = None

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _check(*parts: object) -> str:
        return hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=16).hexdigest()

    def _open(self) -> sqlite3.Connection | None:
        """Open the file to write, or else to read; None if neither works. Only a regular file is opened."""
        if os.path.lexists(self.path) and not stat.S_ISREG(os.lstat(self.path).st_mode):
            raise ValueError(f"{self.path} is a link or not a regular file, and is not opened; remove it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                return self._read_only(error)
            damaged = self.path.with_name(f"{self.path.name}.damaged")
            logger.warning("%s is damaged (%s); it is renamed to %s and created again", self.path, error, damaged.name)
            self.path.replace(damaged)
            return self._connect()
        except OSError as error:
            return self._read_only(error)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=TIMEOUT, isolation_level=None)  # commit each entry
        try:
            # Data handed to the system survives the process; checksums find what a power cut has lost.
            database.execute("PRAGMA synchronous = OFF")
            database.execute(
                "CREATE TABLE IF NOT EXISTS scores (key TEXT, picture TEXT, payload TEXT, checksum TEXT, "
                "PRIMARY KEY (key, picture)) WITHOUT ROWID"
            )
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _read_only(self, error: Exception) -> sqlite3.Connection | None:
        try:
            address = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
            return sqlite3.connect(address, uri=True, isolation_level=None)
        except (sqlite3.Error, OSError):
            logger.warning("%s cannot be used (%s); the scores of this run are not kept", self.path, error)
            return None


class Cache(AbstractContextManager["Cache"]):
    """The scores of some metrics by the ``digest`` of their input; a context manager."""

    def __init__(self, folder: Path, metrics: Sequence[Metric], attributes: bool) -> None:
        self.attributes = attributes
        self.keys = {metric.card.name: fingerprint(metric) for metric in metrics}
        self.store = Store(folder)
        self.entries = {name: self._usable(self.store.read(key)) for name, key in self.keys.items()}

    def _usable(self, entries: dict[str, Any]) -> dict[str, Any]:
        """Return the entries with attributes, if attributes are requested."""
        if not self.attributes:
            return entries
        return {digest: entry for digest, entry in entries.items() if entry["attributes"] is not None}

    def get(self, digest: str) -> Record | None:
        """Return what is known of a picture, perhaps for some of the metrics only; safe in any thread."""
        found = {name: entries[digest] for name, entries in self.entries.items() if digest in entries}
        if not found:
            return None
        results = {name: self._assessment(entry) for name, entry in found.items()}
        return Record("", results, digest=digest, luma=next(iter(found.values()))["luma"])

    def put(self, record: Record) -> None:
        """Store the results of a record."""
        for name, result in record.results.items():
            if record.digest in self.entries[name]:
                continue
            entry = {
                "score": result.score,
                "luma": record.luma,
                "attributes": dict(result.attributes) if self.attributes else None,
                "uncalibrated": dict(result.uncalibrated),
                "description": result.description,
            }
            self.entries[name][record.digest] = entry
            self.store.write(self.keys[name], record.digest, entry)

    def _assessment(self, entry: Mapping[str, Any]) -> Assessment:
        if not self.attributes:
            return Assessment(entry["score"])
        return Assessment(entry["score"], entry["attributes"], entry["uncalibrated"], entry["description"])

    def __exit__(self, *_: object) -> None:
        self.store.close()


# The fingerprint


def fingerprint(metric: Metric) -> str:
    """Return the SHA-256 of everything but the picture that a score depends on.

    These are weights and config, options, the kind of device, the versions of this package and its libraries, and the
    source code of the metric and of every module of ours that it imports.
    """
    digest = hashlib.sha256()

    def add(*facts: object) -> None:
        digest.update("\0".join(map(str, facts)).encode() + b"\0")

    add(metric.card.name, __version__, metric.device.type)
    add(*(f"{name} {_version(name)}" for name in LIBRARIES))
    for part in components(metric):
        add(part.card.name)
        for path in source_files(type(part)):
            add(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        add(json.dumps(part.weight_config(), sort_keys=True, default=str), *options(part))
        for key, value in part.state_dict().items():
            add(key, value.dtype, tuple(value.shape))
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def components(metric: Metric) -> Iterator[Metric]:
    """Yield the metric, and those that it is the mean of, one at a time."""
    yield metric
    for part in metric.components():
        yield from components(part)


def options(metric: Metric) -> list[str]:
    """Return the plain attributes of a metric, such as the captioner it was created with."""
    plain = (str, int, float, bool, type(None), torch.dtype)
    return sorted(f"{name}={value!r}" for name, value in vars(metric).items() if isinstance(value, plain))


def source_files(metric: type[Metric]) -> list[Path]:
    """Return the files of the metric's classes, of our modules that they import, and of those that all scores use."""
    package = __name__.split(".")[0]
    modules: dict[str, ModuleType] = {}

    def add(name: str) -> None:
        module = sys.modules.get(name)
        if module is None or name in modules:
            return
        modules[name] = module
        if name.split(".")[0] == package:
            for imported in _imports(module):
                if imported.startswith(f"{package}.") and imported.split(".")[1] in ("metrics", *SHARED):
                    add(imported)

    for cls in metric.__mro__:
        if issubclass(cls, Metric):
            add(cls.__module__)
    files = {Path(path) for module in modules.values() if (path := inspect.getsourcefile(module))}
    for name in SHARED:
        place = Path(__file__).parents[1] / name
        files |= set(place.glob("*.py")) if place.is_dir() else {place.with_suffix(".py")}
    return sorted(file for file in files if file.is_file())


def _imports(module: ModuleType) -> Iterator[str]:
    """Yield absolute names of what a module imports with ``from``, inside functions too."""
    path = inspect.getsourcefile(module)
    if path is None:
        return
    for node in ast.walk(ast.parse(Path(path).read_bytes())):
        if isinstance(node, ast.ImportFrom):
            parents = (module.__package__ or "").split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield origin
            yield from (f"{origin}.{name.name}" for name in node.names)


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "?"
