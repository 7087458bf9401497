"""Files of weights: read and write safetensors, hashes, strict loading, the directory of ``save_pretrained``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from ..card import Card
from .facts import REMEDY, DamagedError, Facts, parse_config
from .model_card import license_metadata, model_card

WEIGHTS, CONFIG, README, LICENSE = FILES = "model.safetensors", "config.json", "README.md", "LICENSE"
BUNDLED = Path(__file__).parent / "bundled"


class WeightsNotFound(OSError):  # noqa: N818  (named as users look for it)
    """The weights are not on this machine; the message names the file, its origin and how to install it."""


@dataclass(frozen=True)
class Loaded:
    """One set of weights, read from disk."""

    card: Card  # the registered card, or the card saved with the weights
    tensors: dict[str, Tensor]  # float32
    config: Facts  # ``weight_config`` of the metric that saved them


# Reading


def read_weights(path: Path, sha256: str, card: Card) -> Loaded:
    """Read a safetensors file and the config in its header.

    Raises:
        WeightsNotFound: missing.
        DamagedError: another hash, or a value that is not finite.
        ValueError: not safetensors, or not written by this library.
    """
    if not path.is_file():
        raise WeightsNotFound(f"{path} is missing; install the package again or give create_metric(..., weights=DIR)")
    actual = digest(path)
    if actual != sha256:
        raise DamagedError(
            f"{path} is damaged or was replaced: its sha256 is {actual}, the card says {sha256}; {REMEDY}"
        )

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
            header = (file.metadata() or {}).get("config")
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"{path} is not a safetensors file ({error}); pickled checkpoints are not loaded") from error
    if header is None:
        raise ValueError(f"{path} has no config in its header, so this library did not write it; {REMEDY}")

    copies = {}  # in memory: the tensors above are mapped from the file
    for key, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DamagedError(f"{key} in {path} holds NaN or infinity; {REMEDY}")
        copies[key] = value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
    return Loaded(card, copies, parse_config(header, path))


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    sha256 = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], assign: bool = False) -> None:
    """Load a state dict whose keys, shapes and kinds of dtype must all match.

    With ``assign`` the tensors themselves are used instead of copies, as a module on the meta device needs.

    Raises:
        ValueError: the message lists the keys that are missing, unexpected, of another shape or not floats.
    """
    own = module.state_dict()
    wrong = [f"missing {key}" for key in own.keys() - tensors.keys()]
    wrong += [f"unexpected {key}" for key in tensors.keys() - own.keys()]
    for key in own.keys() & tensors.keys():
        if own[key].shape != tensors[key].shape:
            wrong.append(f"{key} is {tuple(tensors[key].shape)}, not {tuple(own[key].shape)}")
        elif own[key].is_floating_point() != tensors[key].is_floating_point():
            wrong.append(f"{key} is of {tensors[key].dtype}, not {own[key].dtype}")
    if wrong:
        more = f"; and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise ValueError(f"these weights are of another architecture: {'; '.join(sorted(wrong)[:20])}{more}")
    nn.Module.load_state_dict(module, dict(tensors), assign=assign)  # a metric refuses the call on itself


# Writing


def serialize(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> bytes:
    """Make the bytes of a safetensors file with the config in its header."""
    return to_bytes(*_contents(tensors, config))


def _contents(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    own = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return own, {"config": json.dumps(config, sort_keys=True)}


def save(card: Card, tensors: Mapping[str, Tensor], config: Mapping[str, Any], directory: Path) -> Path:
    """Write ``model.safetensors``, ``config.json``, ``README.md`` (a model card) and, for some licenses, ``LICENSE``.

    Raises:
        ValueError: there are no tensors.
        OSError: the disk is full or read-only; the message names the file, and the old files are unchanged.
    """
    if not tensors:
        raise ValueError(f"{card.name} has no weights to save; create_metric({card.name!r}) builds it")
    own, metadata = _contents(tensors, config)

    with WholeFiles(directory) as files:
        files.write(WEIGHTS, lambda path: save_file(own, path, metadata))
        sha256 = digest(files.pending[WEIGHTS])
        _write_facts(files, replace(card, sha256=sha256, weights=WEIGHTS, hub="", origin=""))
    return directory


def save_splits(card: Card, directory: Path, names: Sequence[str]) -> Path:
    """Write the config.json and model card of a directory whose folders hold the saved splits."""
    with WholeFiles(directory) as files:
        _write_facts(files, replace(card, weights="", sha256="", hub="", origin=""), splits=list(names))
    return directory


def _write_facts(files: WholeFiles, card: Card, **more: Any) -> None:
    facts = {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(card).items()}
    texts = {CONFIG: json.dumps({"card": facts, **more}, indent=2) + "\n", README: model_card(card)}
    if license_metadata(card)["license"] == "other":
        texts[LICENSE] = _license(card)
    for name, text in texts.items():
        files.write(name, lambda path, text=text: path.write_text(text, encoding="utf-8", newline="\n"))  # type: ignore[misc]


def _license(card: Card) -> str:
    """Return the text of a card's license, followed by the notice if the license names one."""
    notice = BUNDLED / f"NOTICE.{card.name}"
    named = notice.name in card.license and notice.is_file()
    return f"{card.name}: {card.license}\n" + (f"\n{notice.read_text(encoding='utf-8')}" if named else "")


class WholeFiles:
    """Write several files of a directory: all of them or none.

    Each is written under a temporary name beside it and renamed at the end, with the permissions of new files. A link
    of the same name is replaced and not followed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pending: dict[str, Path] = {}

    def __enter__(self) -> WholeFiles:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._failed(self.directory, error) from error
        return self

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Write one file; ``write`` is given the path to write to."""
        path = self.directory / f".{name}.{os.getpid()}.new"
        self.pending[name] = path
        try:
            path.unlink(missing_ok=True)
            with path.open("xb") as empty:
                mode = os.fstat(empty.fileno()).st_mode
            write(path)
            path.chmod(mode & 0o777)  # safetensors writes files that only their owner can read
        except (OSError, SafetensorError) as error:
            raise self._failed(self.directory / name, error) from error

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                for name, path in self.pending.items():
                    os.replace(path, self.directory / name)
        except OSError as error:
            raise self._failed(self.directory / name, error) from error
        finally:
            for path in self.pending.values():
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    @staticmethod
    def _failed(path: Path, error: Exception) -> OSError:
        reason = getattr(error, "strerror", None) or str(error)
        return OSError(
            f"{path} could not be written ({reason}); nothing was changed, give another folder or free space"
        )
