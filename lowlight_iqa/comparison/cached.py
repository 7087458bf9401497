"""Scores and full-reference figures from the cache of scores, computed if they are not in it."""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__, images
from ..metric import Assessment
from ..scoring.cache import Cache, Store
from ..scoring.pipeline import Work, make_metrics, run
from ..scoring.sources import Source, digest
from . import full_reference


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
    """Yield results by metric, or an error, of each picture in order; cached ones are not computed again.

    ``folder`` is that of the cache, ``references`` the dark input of each picture, ``progress`` shows a bar on stderr;
    ``options`` are ``workers`` and ``batch`` of ``lowlight_iqa.score``.
    """
    made = make_metrics(metrics, None, device)
    with Cache(folder, made, attributes=True) as cache:
        work = Work(made, references, attributes=True, luma=True, known=cache.get)
        records = run((Source(str(picture), picture) for picture in pictures), work, **options)
        for record in _bar(records, len(pictures), "scores", progress):
            cache.put(record)
            yield record.results, record.error


def full_reference_cached(
    pictures: Sequence[Path], references: Sequence[Path], folder: Path, *, progress: bool = False
) -> Iterator[tuple[Mapping[str, float], str]]:
    """Yield full-reference figures, or an error, of each picture in order."""
    key = _fingerprint()
    with Store(folder) as store:
        known = store.read(key)
        for pair in _bar(zip(pictures, references, strict=True), len(pictures), "full reference", progress):
            try:
                found = digest(*(file.read_bytes() for file in pair))
                if found not in known:
                    known[found] = full_reference.measure(*pair)
                    store.write(key, found, known[found])
            except (OSError, ValueError) as error:
                yield {}, str(error)
            else:
                yield known[found], ""


def _fingerprint() -> str:
    """Return the SHA-256 of everything but the pictures that the figures depend on."""
    versions = f"full reference {__version__} {full_reference.import_skimage().__version__}"
    code = [Path(str(module.__file__)).read_bytes() for module in (full_reference, images)]
    return hashlib.sha256(b" ".join([versions.encode(), *code])).hexdigest()


def _bar(items: Iterable[Any], total: int, what: str, progress: bool) -> Iterator[Any]:
    from tqdm import tqdm

    yield from tqdm(items, total=total, desc=what, unit="picture", file=sys.stderr, disable=not progress)
