"""Export a metric as a graph for pictures of any size: ``torch.export`` and, with the extra ``onnx``, ONNX.

>>> from lowlight_iqa.exporting import export_onnx
>>> export_onnx("leiq", "leiq.onnx")  # doctest: +SKIP
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.fx.experimental._config
from torch import Tensor, nn
from torch.export import Dim

from . import __version__
from .card import Card
from .images import SLACK
from .metric import Metric
from .registry import create_metric
from .wholefile import replacing

EXPORTED = ("bmqa", "iaca", "leiq", "leiq-robust", "niqe")  # tested; others are tried, and checked as these are
TOLERANCE = 1e-4  # of a written file's scores on the test pictures, as a share of the metric's typical range
SIDES = (299, 497)  # of the pictures that are traced: several patches of niqe on each side, a multiple of nothing


class _Graph(nn.Module):
    """The metric with the checks that a graph can make."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        # A Frozen hides its tensors from a parent, so they are shared with it instead.
        self._metric = (metric,)
        self._modules, self._parameters, self._buffers = metric._modules, metric._parameters, metric._buffers

    def forward(self, picture: Tensor) -> Tensor:
        """Score (N, 3, H, W): NaN for a picture with a sample outside [0, 1]; a smaller one than ``min_size`` fails."""
        (metric,) = self._metric
        last = metric.card.min_size - 1
        excess = _excess(picture).sum((1, 2, 3)) + _excess(picture[:, :, last, last]).sum(1)
        score = metric(picture)
        return torch.where(excess == 0, score, torch.full_like(score, torch.nan))


def _excess(x: Tensor) -> Tensor:
    """Return how far samples are outside what a metric accepts; NaN for NaN."""
    return (x - x.clamp(-SLACK, 1 + SLACK)).abs()


def export_program(metric: str | Metric) -> torch.export.ExportedProgram:
    """Trace a metric into one graph, from ``picture`` (N, 3, H, W) of any N, H and W to scores (N,).

    The graph computes on the CPU. Its scores are those of ``metric(picture)``, NaN for a picture with a sample outside
    [0, 1]; it is not meant for gradients.

    Args:
        metric: its name, or the metric, which is not changed.

    Raises:
        ValueError: the metric cannot be exported; the message names it and those that can.
    """
    if isinstance(metric, str):
        metric = create_metric(metric)
    name = metric.card.name
    if metric.card.needs_reference:
        raise ValueError(f"{name} compares with the dark input and cannot be exported; {_remedy()}")

    graph = _Graph(copy.deepcopy(metric).to("cpu").float())
    least = metric.card.min_size
    sizes = {0: Dim.DYNAMIC(min=1), 2: Dim.DYNAMIC(min=least), 3: Dim.DYNAMIC(min=least)}
    picture = torch.rand(2, 3, *(max(side, least) for side in SIDES))
    try:
        # Without the patch a size of 1, of the batch or of a grid of patches, would be another graph.
        with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
            return torch.export.export(graph, (picture,), dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # torch.export raises whatever the operation at fault raises
        raise ValueError(f"{name} cannot be exported ({_line(error)}); {_remedy()}") from error


def export_onnx(metric: str | Metric, path: str | Path) -> Path:
    """Write a metric as an ONNX file, whose scores on test pictures are compared with the metric's before.

    Input ``picture``: float32 (N, 3, H, W), RGB in [0, 1], of any N, H and W. Output ``score``: float32 (N,). The
    metadata name the metric, its version, range and direction, the input, the license and the weights' origin.

    Args:
        metric: its name, or the metric, which is not changed.
        path: the file, which is written whole or not at all.

    Returns:
        The path.

    Raises:
        ValueError: a package of the extra ``onnx`` is missing; the metric cannot be exported; the file's scores are
            not the metric's.
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
            model = torch.onnx.export(
                program, dynamo=True, input_names=["picture"], output_names=["score"], verbose=False
            )
    except Exception as error:  # of any type, as above
        raise ValueError(f"{metric.card.name} cannot be written as ONNX ({_line(error)}); {_remedy()}") from error
    if model is None:
        raise ValueError(f"{metric.card.name} cannot be written as ONNX by this version of torch; update torch")
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


def _check(metric: Metric, path: Path) -> None:
    """Compare a file's scores with the metric's.

    Raises:
        ValueError: they are not equal within ``TOLERANCE``.
    """
    import onnxruntime

    good, bad = metric.card.loss_range
    for picture in _pictures(metric.card.min_size):
        with torch.inference_mode():
            expected = metric(picture.to(metric.device)).cpu()
        try:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            (scores,) = session.run(None, {"picture": picture.numpy()})
        except Exception as error:  # onnxruntime's own types
            raise ValueError(f"onnxruntime cannot run {metric.card.name} ({_line(error)}); {_remedy()}") from error
        worst = (torch.from_numpy(scores) - expected).abs().max().item()
        if not worst <= TOLERANCE * abs(bad - good):
            raise ValueError(
                f"the exported {metric.card.name} is off by {worst:.3g} on a picture of "
                f"{picture.shape[2]} x {picture.shape[3]}, so no file was left; {_remedy()}"
            )


def _pictures(least: int) -> Iterator[Tensor]:
    """Yield batches of gradients with noise: small, and larger than what the learned metrics reduce to."""
    generator = torch.Generator().manual_seed(0)
    for count, height, width in ((1, least, 2 * least + 5), (2, 530, 771)):
        noise = torch.rand(count, 3, height, width, generator=generator)
        yield torch.linspace(0, 0.7, width) * torch.linspace(0.2, 1, height)[:, None] + 0.3 * noise


def _remedy() -> str:
    return f"update torch and onnxscript, or export one of {', '.join(EXPORTED)}"


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
