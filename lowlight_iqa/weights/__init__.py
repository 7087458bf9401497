"""Weights: a bundled file, a directory or a pinned Hub repository; safetensors alone, all checked."""

from .files import WeightsNotFound

__all__ = ["WeightsNotFound"]
