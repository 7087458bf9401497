"""Functions that can be differentiated once alone, and raise where a second derivative is asked for.

torch's ``once_differentiable`` raises where a second backward pass meets it, which it seldom does: nothing connects a
gradient that was computed without a graph to what it was computed from, and the second derivative is silently zero.
In compiled graphs torch itself refuses to differentiate twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def once(x: Tensor, name: str) -> Tensor:
    """Return x; to differentiate a gradient that has passed through it is refused in the name of ``name``.

    Example:
        >>> once(torch.ones(2), "niqe")
        tensor([1., 1.])
    """
    return x if torch.compiler.is_compiling() else _Once.apply(x, name)  # type: ignore[no-untyped-call]


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward pass of an autograd function that is computed without a graph."""

    def wrapped(ctx: Any, *slopes: Tensor) -> Any:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return backward(ctx, *slopes)
        with torch.no_grad():
            found = backward(ctx, *slopes)
        if isinstance(found, Tensor):
            return _refused(found, "this function", *slopes)
        return tuple(each if each is None else _refused(each, "this function", *slopes) for each in found)

    return wrapped


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        ctx.name = name
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _refused(slope, ctx.name, *ctx.saved_tensors), None


def _refused(slope: Tensor, name: str, *sources: Tensor) -> Tensor:
    """Return a gradient that depends on ``sources``, by which it cannot be differentiated."""
    return _Refused.apply(slope, name, *sources)  # type: ignore[no-any-return,no-untyped-call]


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slope: Tensor, name: str, *sources: Tensor) -> Tensor:
        ctx.name = name
        return slope.view_as(slope)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        raise TypeError(f"{ctx.name} has no second derivatives; leave create_graph out, or take another metric")
