"""Fetch weights to a directory, push a directory to the Hub; both check what they move."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from ..card import Card
from . import hub
from .files import BUNDLED, CONFIG, FILES, WeightsNotFound, WholeFiles, save
from .resolve import find_file, find_source, load, splits


def fetch(card: Card, source: str | Path | None = None, to: str | Path | None = None) -> Path:
    """Download weights, if they are not at hand, check them and return where they are.

    Args:
        card: the registered card of their metric.
        source: ``hf://owner/repo@<40-hex commit>``, or None for what the metric's name stands for.
        to: a directory to copy them to, for ``create_metric(..., weights=to)`` elsewhere.

    Raises:
        WeightsNotFound: not cached, and the download failed.
        ValueError: damaged, even after a second download.
        OSError: the directory cannot be written to; the message names the file.
    """
    if source is None and card.weights:
        loaded = load(card)
        return BUNDLED / card.weights if to is None else save(card, loaded.tensors, loaded.config, Path(to))

    source = find_source(card) if source is None else source
    each = splits(card, source)
    for split in each:
        load(card, split)
    if to is None:
        return find_file(source, CONFIG).parent

    for place in dict.fromkeys([source, *each]):
        folder = Path(to) if place == source else Path(to) / Path(place).name
        _copy(place, folder, inside=place != source)
    return Path(to)


def _copy(source: str | Path, folder: Path, inside: bool) -> None:
    """Copy the files of a source; README and LICENSE may be missing, and weights beside a list of splits."""
    if inside and folder.is_symlink():
        raise OSError(f"{folder} is a link to somewhere else; remove it")
    with WholeFiles(folder) as files:
        for name in FILES:
            with suppress(WeightsNotFound):
                found = find_file(source, name)
                files.write(name, lambda path, found=found: shutil.copyfile(found, path))  # type: ignore[misc]


def push(card: Card, directory: str | Path, repo: str, *, private: bool = False) -> str:
    """Check weights as at every load and upload them to the Hub.

    Args:
        card: the registered card of their metric.
        directory: what ``save_pretrained`` wrote.
        repo: owner/repo; made if it does not exist.
        private: make it private; by default as the owner's settings have it.

    Returns:
        ``hf://owner/repo@<40-hex commit>``, which ``create_metric(..., weights=)`` takes.

    Raises:
        WeightsNotFound, ValueError: the directory does not hold good weights.
        OSError: the Hub cannot be reached or refuses.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"{repo!r} is not the name of a repository; write owner/repo")
    directory = Path(directory)
    each = splits(card, directory)
    for split in each:
        load(card, split)
    folders = [Path(split).relative_to(directory) for split in dict.fromkeys([directory, *each])]
    files = [(folder / name).as_posix() for folder in folders for name in FILES]
    return hub.upload(directory, files, repo, private=private, message=f"Upload weights of {card.name}")
