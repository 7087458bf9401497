"""Weights: a bundled file, a directory or a pinned Hub repository; safetensors alone, all checked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from ..card import Card
from . import hub
from .hub import WeightsNotFound as WeightsNotFound

if TYPE_CHECKING:
    from ..metric import Metric

WEIGHTS, CONFIG, README, LICENSE = FILES = "model.safetensors", "config.json", "README.md", "LICENSE"
BUNDLED = Path(__file__).parent / "bundled"

T = TypeVar("T")


class _DamagedError(ValueError):
    """A file is not what was written: the one case in which a Hub's file is downloaded once more."""


@dataclass(frozen=True)
class Loaded:
    """One set of weights as read from disk."""

    card: Card  # the registered card, with what the weights say of themselves
    tensors: dict[str, Tensor]  # float32
    config: dict[str, Any]  # Metric.weight_config of the metric that saved them


def load(card: Card, source: str | Path | None = None) -> Loaded:
    """Read weights for the metric of ``card``.

    Args:
        card: the registered card.
        source: None for what the name stands for: the bundled file, else the directory in the local store, else the
            card's pinned Hub repository. Or a directory written by ``save_pretrained``, which never touches the
            network. Or ``hf://owner/repo@<40-hex commit>``, with ``/v0`` behind it for one of several splits.

    Raises:
        WeightsNotFound: nothing there.
        ValueError: a wrong hash, a pickle, weights of another metric, an unpinned Hub name.
    """
    if source is None and card.weights:
        return _read(BUNDLED / card.weights, card.sha256, card)
    source = find_source(card) if source is None else source
    return _healed(source, partial(_load, card, source))


def splits(card: Card, source: str | Path | None = None) -> list[str | Path]:
    """The sources that ``load`` takes, one for each split of a model that was trained on several.

    Such a directory or repository holds a complete directory for each split; its own config.json lists them:
    ``{"card": {...}, "splits": ["v0", "v1", ...]}``. Any other source is its own single split.

    Args:
        card: the registered card, of weights that are not bundled.
        source: as for ``load``.
    """
    source = find_source(card) if source is None else source
    config = _healed(source, partial(_read_config, source))
    _check_name(config, card, source)
    names = config.get("splits", [])
    if not isinstance(names, list) or not all(re.fullmatch(r"[\w-]+", str(name)) for name in names):
        raise ValueError(f"{source} lists splits that are no plain names of folders: {names}")
    if missing := [name for name in names if not _on_hub(source) and not (Path(source) / name / CONFIG).is_file()]:
        raise WeightsNotFound(f"{source} lacks {', '.join(missing)} of its {len(names)} splits; copy it anew")
    return [f"{source}/{name}" if _on_hub(source) else Path(source) / name for name in names] or [source]


def store_dir(name: str) -> Path:
    """Where the weights of a metric are installed: ``$LOWLIGHT_IQA_HOME/name``, by default in ~/.cache/lowlight_iqa."""
    home = os.environ.get("LOWLIGHT_IQA_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "lowlight_iqa") / name


def find_source(card: Card) -> str | Path:
    """What the bare name of a metric without bundled weights stands for: the local store, else the pinned repository.

    Raises:
        WeightsNotFound: neither is there.
    """
    stored = store_dir(card.name)
    if (stored / CONFIG).is_file():
        return stored
    if card.hub:
        return f"hf://{card.hub}"
    origin = f"they come from {card.origin}" if card.origin else f"no weights are published for {card.name!r}"
    raise WeightsNotFound(f"{stored / WEIGHTS} does not exist; {origin}; or give create_metric(..., weights=DIR)")


def fetch(what: str, to: str | Path | None = None) -> Path:
    """Download weights, if they are not at hand, check them and say where they are.

    Args:
        what: a metric's name, or ``hf://owner/repo@<40-hex commit>``.
        to: a directory to copy them to, for ``create_metric(..., weights=to)`` elsewhere.

    Raises:
        WeightsNotFound: not to be had.
        ValueError: damaged, even after a second download.
    """
    from ..registry import create_metric, get_card

    if what.startswith("hf:"):
        source: str | Path = what
        card = _card_of(what)
    else:
        card = get_card(what)
        if card.weights:
            metric = create_metric(what)
            return BUNDLED / card.weights if to is None else metric.save_pretrained(to)
        source = find_source(card)
    each = splits(card, source)
    for split in each:
        load(card, split)
    if to is None:
        return _file(source, CONFIG).parent
    for place in dict.fromkeys([source, *each]):
        folder = Path(to) if place == source else Path(to) / Path(place).name
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            with suppress(WeightsNotFound):  # README and LICENSE may be missing, and weights beside a list of splits
                shutil.copyfile(_file(place, name), folder / name)
    return Path(to)


def push(directory: str | Path, repo: str, *, private: bool = False) -> str:
    """Check weights as at every load and upload them to the Hub.

    Args:
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
    card = _card_of(directory)
    each = splits(card, directory)
    for split in each:
        load(card, split)
    folders = [Path(split).relative_to(directory) for split in dict.fromkeys([directory, *each])]
    files = [(folder / name).as_posix() for folder in folders for name in FILES]
    return hub.upload(directory, files, repo, private=private, message=f"Upload weights of {card.name}")


def _on_hub(source: str | Path) -> bool:
    return str(source).startswith("hf:")


def _healed(source: str | Path, read: Callable[[bool], T]) -> T:
    """``read(False)``; if that meets damage, ``read(True)``, which downloads a Hub's files once more."""
    try:
        return read(False)
    except _DamagedError as damage:
        if not _on_hub(source):
            raise
        try:
            return read(True)
        except WeightsNotFound:
            raise damage from None


def _card_of(source: str | Path) -> Card:
    """The registered card of the metric whose weights a source holds."""
    from ..registry import get_card

    return get_card(_healed(source, partial(_read_config, source))["card"]["name"])


def _file(source: str | Path, name: str, anew: bool = False) -> Path:
    """One of ``FILES`` of a source."""
    if _on_hub(source):
        return hub.download(str(source), name, anew)
    path = Path(source)
    if path.suffix and path.suffix != ".safetensors" and not path.is_dir():
        raise ValueError(
            f"{path} is not safetensors; pickled checkpoints can run code and are not loaded, "
            "`lowlight-iqa convert` makes safetensors of the authors'"
        )
    if path.suffix != ".safetensors":
        path = path / name
    elif name != WEIGHTS:
        path = path.with_name(name)
    if not path.is_file():
        raise WeightsNotFound(
            f"{path} does not exist; weights are a directory with {WEIGHTS} and {CONFIG}, "
            "as metric.save_pretrained(DIR) and `lowlight-iqa train` write it"
        )
    return path


def _load(card: Card, source: str | Path, anew: bool) -> Loaded:
    config = _read_config(source, anew)
    _check_name(config, card, source)
    if config.get("splits"):
        raise ValueError(f"{source} holds several splits; load one, such as {source}/{config['splits'][0]}")
    facts: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in config["card"].items()}
    unknown = sorted(set(facts) - {f.name for f in fields(Card)})
    if unknown:
        raise ValueError(f"{CONFIG} of {source} states facts that this version does not know: {', '.join(unknown)}")
    try:
        own = Card(**facts)
    except TypeError as error:
        raise _DamagedError(f"{CONFIG} of {source} lacks facts of the card ({error}); save the metric again") from error
    return _read(_file(source, WEIGHTS, anew), own.sha256, own)


def _read_config(source: str | Path, anew: bool) -> dict[str, Any]:
    path = _file(source, CONFIG, anew)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config["card"]["name"], str):
            raise TypeError("its name is no string")
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"{path} is not a config of this library ({error}); save the metric again") from error
    return dict(config)


def _check_name(config: dict[str, Any], card: Card, source: str | Path) -> None:
    name = config["card"]["name"]
    if name != card.name:
        raise ValueError(f"{source} holds weights of {name!r}, not of {card.name!r}; create_metric({name!r}, ...)")


def _read(path: Path, sha256: str, card: Card) -> Loaded:
    if not path.is_file():
        raise WeightsNotFound(f"{path} is missing; install the package again or give create_metric(..., weights=DIR)")
    found = _digest(path)
    if found != sha256:
        raise _DamagedError(
            f"{path} is damaged or was exchanged: its sha256 is {found}, the card says {sha256}; get it anew"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
            config = json.loads((file.metadata() or {}).get("config", "{}"))
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}); pickled checkpoints are not loaded") from error
    return Loaded(
        card,
        {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()},
        config,
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], assign: bool = False) -> None:
    """Load a state dict whose keys and shapes must all match.

    Args:
        module: what is loaded.
        tensors: its state dict.
        assign: take the tensors themselves instead of copying them, as a module on the meta device needs it.

    Raises:
        ValueError: the message lists what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    wrong = [f"missing {key}" for key in own.keys() - tensors.keys()]
    wrong += [f"unexpected {key}" for key in tensors.keys() - own.keys()]
    wrong += [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & tensors.keys()
        if own[key].shape != tensors[key].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise ValueError(f"these weights are of another architecture: {'; '.join(sorted(wrong)[:20])}{more}")
    nn.Module.load_state_dict(module, dict(tensors), assign=assign)  # a metric refuses the call on itself


def serialize(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> bytes:
    """A safetensors file with the config in its header."""
    return to_bytes(*_contents(tensors, config))


def _contents(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    own = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return own, {"config": json.dumps(config, sort_keys=True)}


def save(metric: Metric, directory: Path) -> Path:
    """Write ``model.safetensors``, ``config.json``, ``README.md`` (a Hub model card) and, if need be, ``LICENSE``."""
    tensors = metric.state_dict()
    if not tensors:
        raise ValueError(f"{metric.card.name} has no weights to save; it is made by its name alone")
    directory.mkdir(parents=True, exist_ok=True)
    own, metadata = _contents(tensors, metric.weight_config())
    save_file(own, directory / WEIGHTS, metadata)
    card = replace(metric.card, sha256=_digest(directory / WEIGHTS), weights=WEIGHTS, hub="", origin="")
    return _write_facts(card, directory)


def save_splits(card: Card, directory: Path, names: Sequence[str]) -> Path:
    """Write config.json and model card above the folders of splits that are saved already."""
    return _write_facts(replace(card, weights="", sha256="", hub="", origin=""), directory, splits=list(names))


def _write_facts(card: Card, directory: Path, **more: Any) -> Path:
    facts = {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(card).items()}
    (directory / CONFIG).write_text(json.dumps({"card": facts, **more}, indent=2) + "\n", encoding="utf-8")
    (directory / README).write_text(hub.model_card(card), encoding="utf-8")
    if hub.license_metadata(card)["license"] == "other":
        (directory / LICENSE).write_text(_license(card), encoding="utf-8")
    return directory


def _license(card: Card) -> str:
    """The license of a card, with the notice if it names one."""
    notice = BUNDLED / f"NOTICE.{card.name}"
    named = f"weights/{notice.name}" in card.license and notice.is_file()
    return f"{card.name}: {card.license}\n" + (f"\n{notice.read_text(encoding='utf-8')}" if named else "")
