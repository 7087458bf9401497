"""Export a metric to ONNX: one graph from pictures (N, 3, H, W) to scores (N,), for any batch, height and width."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from .metric import Metric

EXPORTED = ("leiq", "iaca", "niqe")  # what the exporter can express and the tests compare
OPSET = 18  # the first with an antialiased Resize


class ScoreGraph(nn.Module):
    """A metric's score as a module that ``torch.export`` takes: no checks, no files, no lists."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, pictures: Tensor) -> Tensor:
        """Score pictures (N, 3, H, W), float32 RGB in [0, 1]."""
        return self.metric.score_batch(pictures.clamp(0, 1)).to(pictures.dtype)


def to_program(metric: Metric) -> torch.export.ExportedProgram:
    """Trace a metric with ``torch.export``; batch, height and width stay free.

    Raises:
        ValueError: the metric is none of those that can be exported.
    """
    if metric.card.name not in EXPORTED:
        raise ValueError(f"{metric.card.name} cannot be exported; there are: {', '.join(EXPORTED)}")
    graph = ScoreGraph(metric.to("cpu"))
    dim, least = torch.export.Dim, metric.card.min_size
    free = {
        0: dim("batch", min=1, max=1024),
        2: dim("height", min=least, max=16384),
        3: dim("width", min=least, max=16384),
    }
    example = torch.rand(2, 3, 608, 736, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes={"pictures": free}, strict=False)


def to_onnx(metric: Metric, path: str | Path) -> Path:
    """Write a metric's score as an ONNX file.

    Args:
        metric: one of ``EXPORTED``.
        path: of the file; its weights are inside.

    Returns:
        The path. The graph's input is "pictures", float32 (N, 3, H, W) RGB in [0, 1]; its output is "scores" (N,).

    Raises:
        ValueError: the metric is none of those that can be exported.
        ModuleNotFoundError: the extra ``onnx`` is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError("exporting needs onnx and onnxscript: pip install 'lowlight-iqa[onnx]'") from error

    program = to_program(metric)
    written = torch.onnx.export(
        program, input_names=["pictures"], output_names=["scores"], opset_version=OPSET, dynamo=True, verbose=False
    )
    if written is None:
        raise ValueError(f"{metric.card.name} could not be exported")
    written.save(str(path), external_data=False)
    return Path(path)
