"""Resolve ``weights=``: a bundled file, the installed weights of a name, a directory, a pinned Hub repository."""

import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..card import Card
from . import hub
from .facts import REMEDY, DamagedError, check_card, read_config, shown
from .files import BUNDLED, CONFIG, WEIGHTS, Loaded, WeightsNotFound, read_weights

T = TypeVar("T")


def load(card: Card, source: str | Path | None = None) -> Loaded:
    """Read weights for the metric of ``card``.

    Args:
        card: the registered card.
        source: None for the metric's default weights: the bundled file, else the installed directory, else the card's
            pinned Hub repository. Or a directory written by ``save_pretrained``, which never touches the network. Or
            ``hf://owner/repo@<40-hex commit>``, followed by ``/v0`` for one of several splits.

    Raises:
        WeightsNotFound: there are no such weights.
        ValueError: a wrong hash, a pickle, weights of another metric, config values out of range, an unpinned Hub name.
    """
    if source is None and card.weights:
        return read_weights(BUNDLED / card.weights, card.sha256, card)
    source = find_source(card) if source is None else source
    return with_retry(source, partial(_load, card, source))


def splits(card: Card, source: str | Path | None = None) -> list[str | Path]:
    """Return a source for ``load`` for each split that a model was trained on.

    A directory or repository of several splits has a complete directory for each; its own config.json lists them:
    ``{"card": {...}, "splits": ["v0", "v1", ...]}``. Any other source is its own single split.
    """
    source = find_source(card) if source is None else source
    config = with_retry(source, partial(_read_config, source))
    _check_name(config, card, source)

    names = config.get("splits", [])
    if not isinstance(names, list) or not all(map(_is_folder_name, names)):
        raise ValueError(f"{source} lists splits that are not plain folder names: {shown(names)}")
    if not names:
        return [source]
    if on_hub(source):
        return [f"{source}/{name}" for name in names]

    missing = [name for name in names if not (Path(source) / name / CONFIG).is_file()]
    if missing:
        raise WeightsNotFound(f"{source} lacks {', '.join(missing)} of its {len(names)} splits; copy it again")
    return [Path(source) / name for name in names]


def _is_folder_name(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[\w-]+", name) is not None


def home() -> Path:
    """Return the folder of installed weights: ``$LOWLIGHT_IQA_HOME``, by default the system's data folder."""
    given = os.environ.get("LOWLIGHT_IQA_HOME")
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "lowlight_iqa"


def installed(name: str) -> Path:
    """Return the folder in which the weights of a metric are installed: ``weights/NAME`` in ``home()``."""
    return home() / "weights" / name


def find_source(card: Card) -> str | Path:
    """Resolve the name of a metric without bundled weights: the installed directory, then the pinned repository."""
    directory = installed(card.name)
    if (directory / CONFIG).is_file():
        return directory
    if card.hub:
        return f"hf://{card.hub}"
    origin = f"they come from {card.origin}" if card.origin else f"no weights are published for {card.name!r}"
    raise WeightsNotFound(f"{directory / WEIGHTS} does not exist; {origin}; or give create_metric(..., weights=DIR)")


def name_of(source: str | Path) -> str:
    """Return the name of the metric whose weights a source holds."""
    name: str = with_retry(source, partial(_read_config, source))["card"]["name"]
    return name


def on_hub(source: str | Path) -> bool:
    """Tell whether a source is a Hub repository."""
    return str(source).startswith("hf:")


def with_retry(source: str | Path, read: Callable[[bool], T]) -> T:
    """Call ``read(False)``; if a file of the Hub is damaged, call ``read(True)``, which downloads it again."""
    try:
        return read(False)
    except DamagedError as damage:
        if not on_hub(source):
            raise
        try:
            return read(True)
        except WeightsNotFound:
            raise damage from None


def find_file(source: str | Path, name: str, force: bool = False) -> Path:
    """Return the path of one of ``FILES`` of a source, downloaded if it is not cached, or if ``force``."""
    if on_hub(source):
        return hub.download(str(source), name, force)
    path = Path(source)
    if path.suffix and path.suffix != ".safetensors" and not path.is_dir():
        raise ValueError(
            f"{path} is not safetensors; pickled checkpoints can run code and are not loaded; "
            "`lowlight-iqa convert` converts those of the authors"
        )
    if path.suffix != ".safetensors":
        path = path / name
    elif name != WEIGHTS:
        path = path.with_name(name)
    if not path.is_file():
        raise WeightsNotFound(
            f"{path} does not exist; weights are a directory with {WEIGHTS} and {CONFIG}, "
            "as written by metric.save_pretrained(DIR) and `lowlight-iqa train`"
        )
    return path


def _load(card: Card, source: str | Path, force: bool) -> Loaded:
    config = _read_config(source, force)
    _check_name(config, card, source)
    if config.get("splits"):
        raise ValueError(f"{source} holds several splits; load one, such as {splits(card, source)[0]}")
    own = check_card(config["card"], card, f"{CONFIG} of {source}")
    return read_weights(find_file(source, WEIGHTS, force), own.sha256, own)


def _read_config(source: str | Path, force: bool) -> dict[str, Any]:
    path = find_file(source, CONFIG, force)
    config = read_config(path)
    card = config.get("card") if isinstance(config, dict) else None
    if not isinstance(card, dict) or not isinstance(card.get("name"), str):
        raise DamagedError(f"{path} is not a config of this library, its card has no name; {REMEDY}")
    return dict(config)


def _check_name(config: dict[str, Any], card: Card, source: str | Path) -> None:
    name = config["card"]["name"]
    if name != card.name:
        raise ValueError(
            f"{source} holds weights of {shown(name)}, not of {card.name!r}; create_metric({shown(name)}, ...)"
        )
