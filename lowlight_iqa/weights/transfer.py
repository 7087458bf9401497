"""Fetch weights to a directory and push a directory to the Hub; both check the weights."""

import re
import shutil
from contextlib import suppress
from pathlib import Path

from ..card import Card
from . import hub
from .files import BUNDLED, CONFIG, FILES, WeightsNotFound, WholeFiles, save
from .resolve import find_file, find_source, load, splits


def fetch(card: Card, source: str | Path | None = None, to: str | Path | None = None) -> Path:
    """Download weights if they are not cached, check them and return their path.

    ``source`` is ``hf://owner/repo@<40-hex commit>``, or None for the metric's default weights; they are copied to the
    directory ``to``, for ``create_metric(..., weights=to)`` elsewhere.

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

    _copy(source, Path(to))
    for split in each:
        if split != source:
            folder = Path(to) / Path(split).name
            if folder.is_symlink():
                raise OSError(f"{folder} is a link to somewhere else; remove it")
            _copy(split, folder)
    return Path(to)


def _copy(source: str | Path, folder: Path) -> None:
    """Copy the files of a source that exist: README and LICENSE are optional, and a list of splits has no weights."""
    with WholeFiles(folder) as files:
        for name in FILES:
            with suppress(WeightsNotFound):
                original = find_file(source, name)
                files.write(name, lambda path, original=original: shutil.copyfile(original, path))  # type: ignore[misc]


def push(card: Card, directory: str | Path, repo: str, *, private: bool = False) -> str:
    """Check the weights of a directory and upload them; return ``hf://owner/repo@<40-hex commit>``.

    ``repo``, owner/repo, is created if it does not exist; by default its owner's settings decide whether it is private.

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
