"""Anything to (3, H, W) in [0, 1]: the one place where pictures come in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias, Union

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Picture: TypeAlias = Union[str, "os.PathLike[str]", "Image", "np.ndarray", Tensor]


def read_image(source: Picture) -> Tensor:
    raise NotImplementedError


def check_batch(x: Tensor, min_size: int, device: torch.device) -> Tensor:
    raise NotImplementedError
