"""The authors' checkpoints to safetensors: the one place where a pickle is opened, and no code in it is run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..registry import get_card, get_class, list_metrics
from .files import save_splits

if TYPE_CHECKING:
    from ..metric import Metric


def convert(name: str, source: Path, out: Path, mat: Path | None = None) -> Path:
    """Write the weights of a metric, as ``create_metric(name, weights=out)`` reads them.

    Args:
        name: a metric whose class has ``from_tensors(card, tensors)``.
        source: a checkpoint, or a folder with one for each split: the metric is then the mean over them.
        out: the directory of the result; that of several splits has one folder for each.
        mat: for metrics whose ``from_tensors`` takes ``mat``: a MATLAB file of predictions and labels, or the folder
            of these files. None stands for the .mat of the same name beside each checkpoint.

    Returns:
        ``out``.

    Raises:
        ValueError: another metric, a pickle that is more than tensors, a damaged file, keys or shapes that do not fit.
        OSError: a missing file.
    """
    cls, card = get_class(name), get_card(name)
    build: Callable[..., Metric] | None = getattr(cls, "from_tensors", None)
    if build is None:
        able = [known for known in list_metrics() if hasattr(get_class(known), "from_tensors")]
        raise ValueError(f"{name} has no checkpoint of its own to convert; convert is for {', '.join(able)}")
    takes_mat = "mat" in inspect.signature(build).parameters
    if mat is not None and not takes_mat:
        raise ValueError(f"{name} needs no predictions and labels; leave --mat out")
    files = find_checkpoints(source, card.checkpoint or "*.pth")
    if mat is not None and mat.is_file() and len(files) > 1:
        raise ValueError(
            f"{mat} is one file and there are {len(files)} checkpoints; give the folder of their .mat files"
        )
    for split, file in files.items():
        more = {"mat": read_mat(file, mat)} if takes_mat else {}
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
    path.open("rb").close()  # its own error, if it cannot be read at all
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch answers damage with UnpicklingError, RuntimeError, EOFError, OSError, ...
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted:
            message = f"{path} is refused: loading it would run {wanted[1]}, which tensors do not need; nothing was run"
        else:
            message = f"{path} is cut short, damaged or no checkpoint ({str(error)[:80] or 'empty'}); get it anew"
        raise ValueError(message) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict; give the file with the tensors")
    others = [f"{key} ({type(value).__name__})" for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} is no state dict: {', '.join(others[:10])} are no tensors")
    return {key.replace("module.", "", 1): value for key, value in content.items()}


def read_mat(checkpoint: Path, mat: Path | None) -> dict[str, Any] | None:
    """The variables of the MATLAB file that belongs to a checkpoint; None where none was given and none is beside it.

    Raises:
        ValueError: no MATLAB file.
        OSError: missing.
    """
    from scipy.io import loadmat

    beside = checkpoint.with_suffix(".mat")
    if mat is None and not beside.is_file():
        return None
    path = beside if mat is None else mat / beside.name if mat.is_dir() else mat
    with path.open("rb") as file:
        try:
            variables: dict[str, Any] = loadmat(file)
        except Exception as error:  # scipy answers damage with ValueError, TypeError, NotImplementedError, ...
            raise ValueError(f"{path} is damaged or no MATLAB file ({error}); get it anew") from error
    return variables
