"""Export a metric as a graph for pictures of any size: ``torch.export`` and, with the extra ``onnx``, ONNX."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx.experimental import _config

from . import __version__
from .card import Card
from .images import SLACK
from .metric import Metric
from .registry import create_metric
from .wholefile import replacing

EXPORTED = ("bmqa", "iaca", "leiq", "leiq-robust", "niqe")
REMEDY = f"update torch and onnxscript, or export one of {', '.join(EXPORTED)}"
TOLERANCE = 1e-4, 5e-4  # as shares of the metric's range and of its typical range, the smaller of the two
SIDES = (299, 497)  # of what is traced: several patches of niqe


class _Graph(nn.Module):
    """The metric with the checks that a graph can make."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        # A Frozen hides its tensors from a parent, so they are shared with it instead.
        self._metric = (metric,)
        self._modules, self._parameters, self._buffers = metric._modules, metric._parameters, metric._buffers

    def forward(self, picture: Tensor) -> Tensor:
        """Score (N, 3, H, W): NaN for samples outside [0, 1]; an index out of bounds for a side below ``min_size``."""
        (metric,) = self._metric
        last = metric.card.min_size - 1
        excess = _excess(picture).sum((1, 2, 3)) + _excess(picture[:, :, last, last]).sum(1)
        score = metric(picture)
        return torch.where(excess == 0, score, torch.full_like(score, torch.nan))


def _excess(x: Tensor) -> Tensor:
    """Return how far samples are outside; NaN for NaN."""
    return (x - x.clamp(-SLACK, 1 + SLACK)).abs()


def export_program(metric: str | Metric) -> torch.export.ExportedProgram:
    """Trace a metric into one graph, from ``picture`` (N, 3, H, W) of any N, H and W to scores (N,).

    It computes on the CPU, without gradients; a picture with a sample outside [0, 1] scores NaN.

    Args:
        metric: its name, or the metric, which is not changed.

    Raises:
        ValueError: the metric cannot be exported; the message names it and those that can.
    """
    if isinstance(metric, str):
        metric = create_metric(metric)
    name = metric.card.name
    if metric.card.needs_reference:
        raise ValueError(f"{name} compares with the dark input and cannot be exported; {REMEDY}")

    graph = _Graph(copy.deepcopy(metric).to("cpu").float())
    least = metric.card.min_size
    sizes = {0: Dim.DYNAMIC(min=1), 2: Dim.DYNAMIC(min=least), 3: Dim.DYNAMIC(min=least)}
    picture = torch.zeros(2, 3, *(max(side, least) for side in SIDES))
    try:
        patch = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]  # else a size of 1 is refused
        with torch.no_grad(), patch:
            return torch.export.export(graph, (picture,), dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # of any type
        raise _refused(name, "exported", error) from error


def export_onnx(metric: str | Metric, path: str | Path) -> Path:
    """Write a metric as an ONNX file, compare its scores on test pictures with the metric's, and return the path.

    Input ``picture``: float32 (N, 3, H, W), RGB in [0, 1]. Output ``score``: float32 (N,). docs/export.md has the rest.

    Args:
        metric: its name, or the metric, which is not changed.
        path: the file, which is written whole or not at all.

    Raises:
        ValueError: the extra ``onnx`` is missing; the metric cannot be exported; the file's scores are not its own.
        OSError: the file cannot be written.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f'ONNX needs {error.name}: pip install "lowlight_iqa[onnx]"') from error

    path = Path(path)
    metric = create_metric(metric) if isinstance(metric, str) else metric
    program = export_program(metric)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's own code
            model: Any = torch.onnx.export(
                program, dynamo=True, input_names=["picture"], output_names=["score"], verbose=False
            )
    except Exception as error:  # as above
        raise _refused(metric.card.name, "written as ONNX", error) from error
    model.model.metadata_props.update(_facts(metric.card))

    with replacing(path) as new:
        model.save(new)
        _check(metric, new)
    return path


def _facts(card: Card) -> dict[str, str]:
    """Return the metadata of a file."""
    low, high = card.score_range
    return {
        "name": card.name,
        "version": __version__,
        "score_range": f"{low:g} {high:g}",
        "better": "lower" if card.lower_better else "higher",
        "input": "picture: float32 (N, 3, H, W), RGB in [0, 1]; NaN for a picture with other samples",
        "min_size": f"{card.min_size}",
        "license": card.license,
        "weights": f"{card.weights} sha256 {card.sha256}" if card.weights else card.hub or card.origin or "none",
        "card": str(card),
    }


def _tolerance(card: Card) -> float:
    low, high = card.score_range
    good, bad = card.loss_range
    return min(TOLERANCE[0] * (high - low), TOLERANCE[1] * abs(bad - good))


def _check(metric: Metric, path: Path) -> None:
    """Refuse a file whose scores are not the metric's within ``TOLERANCE``."""
    import onnxruntime

    least, tolerance = metric.card.min_size, _tolerance(metric.card)
    for count, height, width in ((1, least, 2 * least + 5), (2, 530, 771)):
        noise = torch.arange(count * 3 * height * width).sin().square().view(count, 3, height, width)
        picture = noise * torch.linspace(0, 1, width)
        with torch.inference_mode():
            expected = metric(picture.to(metric.device)).cpu()
        try:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            (scores,) = session.run(None, {"picture": picture.numpy()})
        except Exception as error:  # onnxruntime's own types
            raise _refused(metric.card.name, "run by onnxruntime", error) from error
        worst = (torch.from_numpy(scores) - expected).abs().max().item()
        if not worst <= tolerance:
            raise ValueError(f"the exported {metric.card.name} is off by {worst:.3g}, no file is left; {REMEDY}")


def _refused(name: str, how: str, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{name} cannot be {how} ({reason}); {REMEDY}")
