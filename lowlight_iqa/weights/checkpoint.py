"""Convert the authors' checkpoints to safetensors; only this module reads pickles, and it runs no code in them."""

import inspect
import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from .. import matfile
from ..card import Card
from .files import save_splits

MAX_PICKLE = 50_000_000  # bytes of a refused pickle that are searched for what it would run


class Savable(Protocol):
    """A metric, as ``convert`` needs it."""

    def save_pretrained(self, directory: Path) -> Path:
        """Write a directory of weights."""


def convert(
    card: Card,
    build: Callable[..., Savable],
    source: Path,
    out: Path,
    mat: Path | None = None,
    numbers: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """Convert a checkpoint to a directory that ``create_metric(name, weights=out)`` reads, and return it.

    Args:
        card: the registered card of the metric.
        build: builds the metric from a card and the tensors of a checkpoint, such as ``from_tensors`` of its class.
        source: a checkpoint, or a folder with one for each split: the metric is then the mean over them.
        out: the directory to write; several splits get one folder each.
        mat: MATLAB file of predictions and labels, or a folder of them; None: the .mat file next to each checkpoint.
        numbers: further arguments of ``build`` by name, such as ``slope`` and ``intercept``.

    Raises:
        ValueError: a pickle that holds more than tensors, a damaged file, keys or shapes that do not fit, an option
            that the metric does not take.
        OSError: a missing file, or a full disk.
    """
    parameters = inspect.signature(build).parameters
    takes_mat = "mat" in parameters
    if mat is not None and not takes_mat:
        raise ValueError(f"{card.name} needs no predictions and labels; leave --mat out")
    for option in numbers:
        if option not in parameters:
            raise ValueError(f"{card.name} has no {option}; leave --{option} out")
    files = find_checkpoints(source, card.checkpoint or "*.pth")
    if mat is not None and mat.is_file() and len(files) > 1:
        raise ValueError(
            f"{mat} is one file and there are {len(files)} checkpoints; give the folder of their .mat files"
        )

    for split, file in files.items():
        more: dict[str, Any] = dict(numbers)
        if takes_mat:
            more["mat"] = read_mat(file, mat)
        try:
            metric = build(replace(card, checkpoint=file.name), read_checkpoint(file), **more)
        except ValueError as error:
            raise ValueError(str(error) if str(file) in str(error) else f"{file}: {error}") from error
        metric.save_pretrained(out / split)
    if "" not in files:
        save_splits(card, out, list(files))
    return out


def find_checkpoints(source: Path, pattern: str) -> dict[str, Path]:
    """Return {"": file} of a single checkpoint, or {"v0": file, ...} of a folder, by the split in each file's name."""
    if not source.is_dir():
        return {"": source}
    files = sorted(source.glob(pattern))
    if not files:
        raise ValueError(f"{source} holds no {pattern}; give the checkpoint itself if it has another name")
    if len(files) == 1:
        return {"": files[0]}

    splits: dict[int, Path] = {}
    for file in files:
        match = re.search(r"_v(\d+)_", file.name)
        if match is None:
            raise ValueError(f"the name of {file} holds no split such as _v0_; give one checkpoint")
        other = splits.setdefault(int(match[1]), file)
        if other != file:
            raise ValueError(f"{other.name} and {file.name} are of one split; leave the one to be used in {source}")
    return {f"v{split}": splits[split] for split in sorted(splits)}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint: a state dict, bare or under "state_dict" or "model".

    The first ``module.`` in each key, which data-parallel training adds, is removed.

    Raises:
        ValueError: a pickle that would run code, a damaged file, anything but tensors.
        OSError: missing or unreadable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file; give the checkpoint")
    path.open("rb").close()  # raises its own error if the file cannot be read
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the pickle's protocol
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage as UnpicklingError, RuntimeError, EOFError, OSError, ...
        raise ValueError(_refusal(path, str(error))) from error

    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict; give the file with the tensors")
    others = [f"{key} ({type(value).__name__})" for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} is not a state dict: {', '.join(others[:10])} are not tensors")
    return {key.replace("module.", "", 1): value for key, value in content.items()}


def _refusal(path: Path, reason: str) -> str:
    """Summarize in one line why torch did not load a file."""
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    function = named[1] if named else _first_foreign_import(path)
    if function:
        return f"{path} is refused: loading it would run {function}, which tensors do not need; nothing was run"
    return f"{path} is cut short, damaged or not a checkpoint; download it again"


def _first_foreign_import(path: Path) -> str:
    """Return the first name that a pickle's opcodes would import from outside torch; "" for none.

    torch's own message does not name it for newer pickle protocols.
    """
    with path.open("rb") as file:
        stream: IO[bytes] = file
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
            inner = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if inner and archive.getinfo(inner[0]).file_size <= MAX_PICKLE:
                stream = io.BytesIO(archive.read(inner[0]))
        if stream is file:
            file.seek(0)
            stream = io.BytesIO(file.read(MAX_PICKLE))

    texts: list[str] = []
    try:
        for _ in range(5):  # a legacy checkpoint has some pickles of numbers before the one of tensors
            for code, value, _ in pickletools.genops(stream):
                if code.name in ("GLOBAL", "INST"):
                    texts += str(value).split(" ", 1)
                elif isinstance(value, str):
                    texts.append(value)
                if code.name not in ("GLOBAL", "INST", "STACK_GLOBAL") or len(texts) < 2:
                    continue
                module, name = texts[-2:]
                if not module.startswith(("torch", "collections")):
                    return f"{module}.{name}"
    except Exception:  # pickletools raises errors of many types on damaged files
        return ""
    return ""


def read_mat(checkpoint: Path, mat: Path | None) -> dict[str, Any] | None:
    """Read the MATLAB file of a checkpoint; None if ``mat`` is None and no such file is next to it."""
    beside = checkpoint.with_suffix(".mat")
    if mat is None and not beside.is_file():
        return None

    if mat is None:
        path = beside
    elif mat.is_dir():
        path = mat / beside.name
    else:
        path = mat
    return dict(matfile.read_mat(path))
