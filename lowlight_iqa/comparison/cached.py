"""Scores and full-reference figures that are computed once: kept under the hashes of what they were computed from.

Each is written the moment it is known, a line of JSON. A run that was killed goes on where it was; a second one reads.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..metric import Assessment
from ..registry import create_metric
from ..scoring import cache as scoring_cache
from ..scoring.pipeline import score
from ..scoring.sources import Source
from . import full_reference

Entry = Mapping[str, Any]


class Cache:
    """Entries by key in a file of JSON lines."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: dict[str, Entry] = {}
        self.cut = False  # the last line has no end: a run was killed while it wrote
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            self.cut = not text.endswith("\n")
            for line in text.splitlines():
                try:
                    key, entry = json.loads(line)
                except (ValueError, TypeError):
                    continue
                self.entries[key] = entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, on disk before this returns."""
        self.entries[key] = entry
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as out:
            out.write("\n" * self.cut + json.dumps([key, entry]) + "\n")
        self.cut = False


def cache_folder(cache: str | Path | None) -> Path:
    """Return where entries are kept: in the folder of all caches."""
    return scoring_cache.cache_folder(cache) / "compare"


def score_cached(
    pictures: Sequence[Path],
    metrics: Sequence[str],
    folder: Path,
    *,
    references: Sequence[Path] | None = None,
    progress: bool = False,
    device: Any = None,
    **options: Any,
) -> Iterator[tuple[Mapping[str, Assessment], str]]:
    """Yield results by metric, or an error, of each picture in order; equal files are scored once.

    Args:
        pictures: files.
        metrics: names.
        folder: of the cache.
        references: the dark input of each picture, for metrics that need one.
        progress: show a bar on stderr.
        device: where the metrics compute.
        options: of ``lowlight_iqa.score``.
    """
    made = [create_metric(name, device=device) for name in metrics]
    caches = {m.card.name: Cache(folder / f"{m.card.name}-{scoring_cache.fingerprint(m)[:16]}.jsonl") for m in made}
    keys = [_key([file]) for file in pictures]
    if references is not None:
        keys = [_key(pair) for pair in zip(pictures, references, strict=True)]

    # What is not known yet, each file once, and the metrics that lack any of it.
    todo = {key: place for place, key in reversed(list(enumerate(keys)))}
    todo = {key: place for key, place in todo.items() if any(key not in cache.entries for cache in caches.values())}
    wanted = [metric for metric in made if any(key not in caches[metric.card.name].entries for key in todo)]
    places = sorted(todo.values())
    errors: dict[str, str] = {}
    if wanted:
        dark = None if references is None else [references[place] for place in places]
        records = score(
            [Source(str(pictures[place]), pictures[place]) for place in places],
            wanted,
            references=dark,
            attributes=True,
            **options,
        )
        for place, record in zip(places, _bar(records, len(places), "scores", progress), strict=True):
            errors[keys[place]] = record.error
            for name, result in record.results.items():
                caches[name].put(keys[place], _entry(result))

    for key in keys:
        if errors.get(key):
            yield {}, errors[key]
        else:
            yield {name: _assessment(cache.entries[key]) for name, cache in caches.items()}, ""


def full_reference_cached(
    pictures: Sequence[Path], references: Sequence[Path], folder: Path, *, progress: bool = False
) -> Iterator[tuple[Mapping[str, float], str]]:
    """Yield full-reference figures, or an error, of each picture in order."""
    version = full_reference.import_skimage().__version__
    cache = Cache(folder / f"full-reference-{version}.jsonl")
    for pair in _bar(zip(pictures, references, strict=True), len(pictures), "full reference", progress):
        key = _key(pair)
        if key not in cache.entries:
            try:
                cache.put(key, full_reference.measure(*pair))
            except (OSError, ValueError) as error:
                yield {}, str(error)
                continue
        yield cache.entries[key], ""


def _key(files: Iterable[Path]) -> str:
    """A hash of the files' content; of the name of one that cannot be read, which scoring will report."""
    parts = []
    for file in files:
        try:
            parts.append(hashlib.sha256(file.read_bytes()).hexdigest())
        except OSError:
            parts.append(f"unreadable {file}")
    return hashlib.sha256(" ".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _entry(result: Assessment) -> Entry:
    return {
        "score": result.score,
        "attributes": dict(result.attributes),
        "description": result.description if result.attributes else "",
    }


def _assessment(entry: Entry) -> Assessment:
    return Assessment(entry["score"], attributes=entry["attributes"], description=entry["description"])


def _bar(items: Iterable[Any], total: int, what: str, progress: bool) -> Iterator[Any]:
    from tqdm import tqdm

    yield from tqdm(items, total=total, desc=what, unit="picture", file=sys.stderr, disable=not progress)
