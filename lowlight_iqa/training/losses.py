"""Losses over a batch of scores, for training metrics."""

import torch
import torch.nn.functional as F
from torch import Tensor


def correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """Return Pearson's correlation of two vectors (N,), N >= 2, differentiable; 0 if one of them is constant."""
    _check(prediction, target, 2)
    p = prediction - prediction.mean()
    t = (target - target.mean()).to(p.dtype)
    tiny = float(torch.finfo(p.dtype).tiny) ** 0.5
    norms: Tensor = (p.square().sum() + tiny).sqrt() * (t.square().sum() + tiny).sqrt()
    return (p * t).sum() / norms


def plcc_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Return LEIQ's PLCC loss of two vectors (N,): 0 at correlation 1, 1/2 at -1.

    With z-scores p, t and their correlation rho it is half of mean((p - t)^2) / 4 + mean((rho p - t)^2) / 4, in closed
    form (1 - rho) / 4 + (1 - rho^2) / 8. It ignores scale and offset.

    Source: LEIQ-Assessor (arXiv 2606.29752); the loss "linearity" of LinearityIQA (Li et al., ACM MM 2020) and IACA
    with equal weights of its two terms.
    """
    rho = correlation(prediction, target)
    return (1 - rho) / 4 + (1 - rho * rho) / 8


def norm_in_norm(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the norm-in-norm loss of two vectors (N,): 0 if they agree up to scale and offset, at most 1.

    Both are centered and normalized; the loss is the 1-norm of their difference over its bound 2 sqrt(N).

    Source: Li et al., ACM MM 2020 (LinearityIQA), section 3, with p = 1, q = 2 as in IACA (arXiv 2302.11464).
    """
    _check(prediction, target, 1)
    centered = (x - x.mean() for x in (prediction, target.to(prediction.dtype)))
    p, t = (x / (torch.linalg.vector_norm(x) + 1e-8) for x in centered)
    loss: Tensor = (p - t).abs().sum() / (2 * len(target) ** 0.5)
    return loss


def _check(prediction: Tensor, target: Tensor, least: int) -> None:
    if prediction.shape != target.shape or prediction.ndim != 1 or len(prediction) < least:
        raise ValueError(
            f"the loss needs two vectors of one length, at least {least}: not {tuple(prediction.shape)} "
            f"and {tuple(target.shape)}"
        )


def order_loss(scores: Tensor, margin: float) -> Tensor:
    """Return the mean hinge loss of neighbors in (..., K): each should exceed the next by ``margin``."""
    return F.relu(margin - (scores[..., :-1] - scores[..., 1:])).mean()


def info_nce(first: Tensor, second: Tensor, temperature: Tensor, same: Tensor | None = None) -> Tensor:
    """Return the symmetric InfoNCE of N pairs of vectors (N, C): ln N untrained, 0 if every partner is identified.

    It is the mean cross-entropy of the cosines over ``temperature``, in both directions. ``same`` (N, N) is true where
    another pair's partner fits too: it is not used as a negative.

    Source: CLIP (Radford et al., ICML 2021). BMQA (IJCV 2024), eq. 11 to 13, prints the logarithm of a sum instead of
    a mean of logarithms; see docs/bmqa.md.
    """
    if first.shape != second.shape or first.ndim != 2 or not len(first):
        raise ValueError(f"the loss needs pairs of vectors: not {tuple(first.shape)} and {tuple(second.shape)}")
    cosines = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    own = torch.arange(len(first), device=first.device)
    if same is not None:
        others = same & ~torch.eye(len(first), dtype=torch.bool, device=first.device)
        cosines = cosines.masked_fill(others | others.T, -torch.inf)
    return (F.cross_entropy(cosines, own) + F.cross_entropy(cosines.T, own)) / 2
