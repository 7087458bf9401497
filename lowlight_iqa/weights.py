"""Weights: a bundled file, a directory or a pinned Hub repository; safetensors alone, all checked."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from .card import Card

if TYPE_CHECKING:
    from .metric import Metric

CONNECT = 2.0  # seconds to wait for the Hub
WEIGHTS, CONFIG = "model.safetensors", "config.json"
BUNDLED = Path(__file__).parent / "weights"
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


class WeightsNotFound(OSError):  # noqa: N818  (a state of affairs to remedy, named as users look for it)
    """The weights are not at hand; the message names the file, where it comes from and how to install it."""


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
        source: None for the bundled file; a directory written by ``save_pretrained``; or
            ``hf://owner/repo@<40-hex commit>``.

    Raises:
        WeightsNotFound: nothing there.
        ValueError: a wrong hash, a pickle, weights of another metric, an unpinned Hub name.
    """
    if source is None:
        if not card.weights:
            raise WeightsNotFound(f"no weights are published for {card.name!r}; give create_metric(..., weights=DIR)")
        return _read(BUNDLED / card.weights, card.sha256, card)
    if str(source).startswith("hf:"):
        return _load_hub(card, str(source))
    path = Path(source)
    if path.suffix and path.suffix != ".safetensors" and not path.is_dir():
        raise ValueError(f"{path} is not safetensors; pickled checkpoints can run code and are not loaded")
    path = path / WEIGHTS if path.suffix != ".safetensors" else path
    return _load_files(card, path.parent / CONFIG, path)


def _load_hub(card: Card, source: str) -> Loaded:
    try:
        return _load_files(card, *_hub_files(source))
    except _DamagedError as damage:
        try:
            anew = _hub_files(source, anew=True)
        except WeightsNotFound:
            raise damage from None
        return _load_files(card, *anew)


def _load_files(card: Card, config_path: Path, path: Path) -> Loaded:
    facts = _read_config(config_path, card)
    named = {f.name for f in fields(Card)}
    unknown = sorted(set(facts) - named)
    if unknown:
        raise ValueError(f"{config_path} states facts that this version does not know: {', '.join(unknown)}")
    try:
        own = Card(**{**facts, "score_range": tuple(facts["score_range"]), "sees": tuple(facts["sees"])})
    except (KeyError, TypeError) as error:
        raise _DamagedError(f"{config_path} lacks facts of the card ({error}); save the metric again") from error
    return _read(path, own.sha256, own)


def _read_config(path: Path, card: Card) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsNotFound(
            f"{path} does not exist; weights for {card.name!r} are a directory with {WEIGHTS} and {CONFIG}, "
            "as metric.save_pretrained(DIR) and `lowlight-iqa train` write it"
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))["card"]
        name = facts["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"{path} is not a config of this library ({error}); save the metric again") from error
    if name != card.name:
        raise ValueError(f"{path.parent} holds weights of {name!r}, not of {card.name!r}; create_metric({name!r}, ...)")
    return dict(facts)


def _read(path: Path, sha256: str, card: Card) -> Loaded:
    if not path.is_file():
        raise WeightsNotFound(f"{path} is missing; install the package again or give create_metric(..., weights=DIR)")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
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


def _hub_files(source: str, anew: bool = False) -> tuple[Path, Path]:
    """Config and weights of ``hf://owner/repo@commit``: out of the cache offline, or downloaded."""
    match = _HUB.fullmatch(source)
    if match is None:
        raise ValueError(
            f"{source!r} does not name one set of weights for ever; write hf://owner/repo@<40-hex commit>, "
            "the full commit hash from the repository's history (a branch or tag can move)"
        )
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repo, revision = match["repo"], match["revision"]
    paths = []
    for file in (CONFIG, WEIGHTS):
        cached = None if anew else try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(cached, str):
            paths.append(Path(cached))
            continue
        try:
            _check_connection()
            paths.append(Path(hf_hub_download(repo, file, revision=revision, force_download=anew)))
        except Exception as error:  # the hub's client raises those of whatever it talks HTTP with
            raise WeightsNotFound(
                f"{file} of {repo} at revision {revision} is neither cached nor to be had "
                f"({type(error).__name__}: {error}); on a machine with a network: "
                f"`hf download {repo} {CONFIG} {WEIGHTS} --revision {revision} --local-dir DIR`, "
                "then create_metric(..., weights=DIR)"
            ) from error
    return paths[0], paths[1]


def _check_connection() -> None:
    """Fail at once where there is no network: the hub's own client tries for 24 s.

    Raises:
        OSError: the Hub cannot be reached.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():  # the client refuses at once, or knows the way
        return
    place = urlsplit(constants.ENDPOINT)
    port = place.port or (80 if place.scheme == "http" else 443)
    socket.create_connection((place.hostname or "", port), timeout=CONNECT).close()


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a state dict whose keys and shapes must all match.

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
        raise ValueError(f"these weights are of another architecture: {'; '.join(sorted(wrong)[:20])}")
    module.load_state_dict(dict(tensors))


def serialize(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> bytes:
    """A safetensors file with the config in its header."""
    return to_bytes(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        metadata={"config": json.dumps(config, sort_keys=True)},
    )


def save(metric: Metric, directory: Path) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``README.md`` (a Hub model card) for a metric."""
    tensors = metric.state_dict()
    if not tensors:
        raise ValueError(f"{metric.card.name} has no weights to save; it is made by its name alone")
    content = serialize(tensors, metric.weight_config())
    card = replace(metric.card, sha256=hashlib.sha256(content).hexdigest(), weights=WEIGHTS)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS).write_bytes(content)
    facts = {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(card).items()}
    (directory / CONFIG).write_text(json.dumps({"card": facts}, indent=2) + "\n", encoding="utf-8")
    (directory / "README.md").write_text(model_card(card), encoding="utf-8")
    return directory


def model_card(card: Card) -> str:
    """The README of a saved metric."""
    reached = "\n".join(f"- {what}: {figure}" for what, figure in card.reached.items()) or "- not measured"
    return f"""---
library_name: lowlight-iqa
pipeline_tag: image-to-text
tags: [image-quality-assessment, low-light, no-reference]
license: other
license_name: {json.dumps(card.license)}
---
# {card.name}

{card.summary}

```python
import lowlight_iqa
metric = lowlight_iqa.create_metric("{card.name}", weights="PATH OR hf://owner/repo@<40-hex commit>")
metric("night.jpg")
```

Source: {card.source}

Trained on: {card.trained_on or "nothing"}

Measured:
{reached}
"""
