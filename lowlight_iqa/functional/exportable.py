"""Mathematics in operations that ONNX has, for sizes that are symbols; used only while a metric is exported."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def exporting() -> bool:
    """Whether torch.export traces, and not torch.compile."""
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


def _cells(length: int, cells: int) -> tuple[Tensor, Tensor]:
    """Return the first pixel of each adaptive pooling cell (cells,) of a side, and the one after its last."""
    index = torch.arange(cells)
    return index * length // cells, ((index + 1) * length + cells - 1) // cells


def cell_means(x: Tensor, cells: int) -> Tensor:
    """Return ``adaptive_avg_pool2d`` of (N, C, H, W) to a square, as two matrix products."""
    for _ in range(2):
        first, last = _cells(x.shape[-1], cells)
        pixel = torch.arange(x.shape[-1])[:, None]  # (W, 1)
        inside = ((pixel >= first) & (pixel < last)).to(x)  # (W, cells)
        x = (x @ (inside / (last - first).to(x))).mT
    return x


def cell_maxima(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return ``adaptive_max_pool2d`` of (N, C, H, W) to a size (h, w)."""
    for cells in reversed(size):
        length = x.shape[-1]
        first, last = _cells(length, cells)
        widest = (length + cells - 1) // cells + 1
        pixel = torch.minimum(first[:, None] + torch.arange(widest), last[:, None] - 1)  # (w, widest)
        x = x[..., pixel].amax(-1).mT
    return x


def quadratic_form(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return v^T A^-1 v (N,) of positive definite matrices (N, K, K) and vectors (N, K), by elimination.

    Example:
        >>> quadratic_form(2 * torch.eye(3)[None], torch.ones(1, 3))
        tensor([1.5000])
    """
    zero = torch.zeros_like(vector[:, :1, None])
    rows = torch.cat([torch.cat([matrix, vector[..., None]], 2), torch.cat([vector[:, None], zero], 2)], 1)
    for _ in range(vector.shape[1]):
        rows = rows[:, 1:, 1:] - rows[:, 1:, :1] * rows[:, :1, 1:] / rows[:, :1, :1]
    return -rows[:, 0, 0]


def lgamma(x: Tensor) -> Tensor:
    """Return log Gamma(x) of x > 0; ONNX has none, so Stirling's series at x + 8 is exported."""
    if not exporting():
        return torch.lgamma(x)
    product = x
    for k in range(1, 8):
        product = product * (x + k)
    y = x + 8
    inverse = 1 / (y * y)
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse * (1 / 1680 - inverse / 1188)))) / y
    return (y - 0.5) * y.log() - y + 0.5 * math.log(2 * math.pi) + series - product.log()
