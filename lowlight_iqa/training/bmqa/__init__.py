"""The recipe of ``bmqa``, in four stages."""

from .train import STAGES, Recipe, train_bmqa

__all__ = ["STAGES", "Recipe", "train_bmqa"]
