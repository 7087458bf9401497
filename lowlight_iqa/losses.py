"""Losses over a batch of scores, for training metrics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation of two vectors (N,), differentiable; 0 where one of them is constant.

    Raises:
        ValueError: fewer than two values, or unlike shapes.
    """
    if prediction.shape != target.shape or prediction.ndim != 1 or len(prediction) < 2:
        raise ValueError(
            f"a correlation needs two vectors of one length, at least 2: not {tuple(prediction.shape)} "
            f"and {tuple(target.shape)}"
        )
    p = prediction - prediction.mean()
    t = (target - target.mean()).to(p.dtype)
    tiny = float(torch.finfo(p.dtype).tiny) ** 0.5
    norms: Tensor = (p.square().sum() + tiny).sqrt() * (t.square().sum() + tiny).sqrt()
    return (p * t).sum() / norms


def plcc_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """LEIQ's PLCC loss of two vectors (N,): 0 at correlation 1, 1/2 at -1.

    With z-scores p, t and their correlation rho it is half of mean((p - t)^2) / 4 + mean((rho p - t)^2) / 4, in closed
    form (1 - rho) / 4 + (1 - rho^2) / 8. It is blind to scale and offset: a head trained by it needs a mapping.

    Source: LEIQ-Assessor (arXiv 2606.29752), composite PLCC loss, as in the authors' MinimalisticVQA.
    """
    rho = correlation(prediction, target)
    return (1 - rho) / 4 + (1 - rho * rho) / 8


def order_loss(scores: Tensor, margin: float) -> Tensor:
    """Hinge on the order of neighbors: each of (..., K) must exceed the next by ``margin``; mean over the pairs."""
    return F.relu(margin - (scores[..., :-1] - scores[..., 1:])).mean()
