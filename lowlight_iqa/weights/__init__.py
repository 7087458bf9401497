"""Weights: a bundled file, a directory or a pinned Hub repository; safetensors alone, all checked.

resolve: what ``weights=`` means. files: read, check, save. facts: check what a card or a config says. hub: download and
upload. transfer: fetch and push. model_card: the Hub page. checkpoint: the authors' pickles.
"""

from .files import WeightsNotFound

__all__ = ["WeightsNotFound"]
