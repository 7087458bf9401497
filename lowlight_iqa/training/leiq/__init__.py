"""The recipe of ``leiq``."""

from .recipe import Recipe
from .train import train_leiq

__all__ = ["Recipe", "train_leiq"]
