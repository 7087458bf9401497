"""Linear heads of one or several layers: read them as one linear map, and change that map."""

from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn


def layers_of(head: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a head, in order; the last has one output."""
    return [layer for layer in head.modules() if isinstance(layer, nn.Linear)]


def weight_of(head: nn.Module) -> np.ndarray:
    """Return a head as one linear map (F,), the product of its layers, float64."""
    last, *others = reversed([layer.weight for layer in layers_of(head)])
    values: np.ndarray = reduce(torch.matmul, others, last)[0].double().detach().cpu().numpy()
    return values


@torch.no_grad()
def offset_of(head: nn.Module) -> float:
    """Return the output of a head for features of 0."""
    x = torch.zeros_like(layers_of(head)[0].weight[0])
    for layer in layers_of(head):
        x = layer(x)
    return x.item()


@torch.no_grad()
def adjust(head: nn.Module, change: np.ndarray, offset: float = 0.0) -> None:
    """Add a linear map ``change`` (F,) to a head, by the smallest change of its first layer, and add an offset."""
    first, *others = layers_of(head)
    one = torch.ones_like(first.weight[:1, :1])
    rest: Tensor = reduce(torch.matmul, [layer.weight for layer in reversed(others)], one)[0]  # (hidden,)
    first.weight.add_(torch.outer(rest / rest.square().sum(), torch.from_numpy(change).to(rest)))
    layers_of(head)[-1].bias.add_(offset)
