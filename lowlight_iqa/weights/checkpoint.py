"""The authors' checkpoints to safetensors: the one place where a pickle is opened, and no code in it is run."""

from __future__ import annotations

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

MAX_PICKLE = 50_000_000  # bytes that are looked through for what a refused pickle would run


class Savable(Protocol):
    """What ``convert`` saves: a metric."""

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
    """Write the weights of a metric, as ``create_metric(name, weights=out)`` reads them.

    Args:
        card: the registered card of the metric.
        build: makes the metric of the card and the tensors of a checkpoint, as ``from_tensors`` of its class does.
        source: a checkpoint, or a folder with one for each split: the metric is then the mean over them.
        out: the directory of the result; that of several splits has one folder for each.
        mat: for a ``build`` that takes ``mat``: a MATLAB file of predictions and labels, or the folder of these files.
            None stands for the .mat of the same name beside each checkpoint.
        numbers: what else ``build`` takes by name, such as ``slope`` and ``intercept``.

    Returns:
        ``out``.

    Raises:
        ValueError: a pickle that is more than tensors, a damaged file, keys or shapes that do not fit, an option that
            the metric does not take.
        OSError: a missing file, or a full disk.
    """
    takes = inspect.signature(build).parameters
    takes_mat = "mat" in takes
    if mat is not None and not takes_mat:
        raise ValueError(f"{card.name} needs no predictions and labels; leave --mat out")
    for option in numbers:
        if option not in takes:
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
    """A checkpoint as {"": file}; of a folder the files of one model by the split in their names, {"v0": file, ...}.

    Raises:
        ValueError: no such files, a name without a split, two files of one split.
    """
    if not source.is_dir():
        return {"": source}
    files = sorted(source.glob(pattern))
    if not files:
        raise ValueError(f"{source} holds no {pattern}; give the checkpoint itself if it is called otherwise")
    if len(files) == 1:
        return {"": files[0]}
    splits: dict[int, Path] = {}
    for file in files:
        match = re.search(r"_v(\d+)_", file.name)
        if match is None:
            raise ValueError(f"the name of {file} does not tell its split as _v0_ does; give one checkpoint")
        other = splits.setdefault(int(match[1]), file)
        if other != file:
            raise ValueError(f"{other.name} and {file.name} are of one split; leave the one to be used in {source}")
    return {f"v{split}": splits[split] for split in sorted(splits)}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a state dict, bare or under "state_dict" or "model".

    The first ``module.`` in each key, a trace of data-parallel training, is removed.

    Raises:
        ValueError: a pickle that would run code, a damaged file, something else than tensors.
        OSError: missing or unreadable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file; give the checkpoint")
    path.open("rb").close()  # its own error, if it cannot be read at all
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of a pickle's protocol
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch answers damage with UnpicklingError, RuntimeError, EOFError, OSError, ...
        raise ValueError(_refusal(path, str(error))) from error

    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict; give the file with the tensors")
    others = [f"{key} ({type(value).__name__})" for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} is no state dict: {', '.join(others[:10])} are no tensors")
    return {key.replace("module.", "", 1): value for key, value in content.items()}


def _refusal(path: Path, reason: str) -> str:
    """Say in one line why torch did not load a file, out of its paragraphs."""
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    wanted = named[1] if named else _first_call(path)
    if wanted:
        return f"{path} is refused: loading it would run {wanted}, which tensors do not need; nothing was run"
    return f"{path} is cut short, damaged or no checkpoint; get it anew"


def _first_call(path: Path) -> str:
    """Name what a pickle of a newer protocol would import that is not torch's, by reading its opcodes; "" for none."""
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
        for _ in range(5):  # a legacy checkpoint has some pickles of numbers ahead of that of the tensors
            for code, value, _ in pickletools.genops(stream):
                if isinstance(value, str):
                    texts.append(value)
                if (
                    code.name == "STACK_GLOBAL"
                    and len(texts) > 1
                    and not texts[-2].startswith(("torch", "collections"))
                ):
                    return ".".join(texts[-2:])
    except Exception:  # damage, in whatever form pickletools meets it
        return ""
    return ""


def read_mat(checkpoint: Path, mat: Path | None) -> dict[str, Any] | None:
    """Read the MATLAB file that belongs to a checkpoint; None where none was given and none is beside it.

    Raises:
        ValueError: no MATLAB file.
        OSError: missing.
    """
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
