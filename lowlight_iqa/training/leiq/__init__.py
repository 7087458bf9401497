"""The recipe of ``leiq``."""

from .train import Recipe, train_leiq

__all__ = ["Recipe", "train_leiq"]
