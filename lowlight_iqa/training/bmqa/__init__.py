"""The recipe of ``bmqa``, in four stages."""

from .recipe import STAGES, Recipe
from .train import train_bmqa

__all__ = ["STAGES", "Recipe", "train_bmqa"]
