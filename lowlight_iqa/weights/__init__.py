"""Weights: a bundled file, a directory or a pinned Hub repository; safetensors only, all checked.

resolve: the meaning of ``weights=``. files: read, check, save. facts: check the values of a card or config. hub:
download and upload. transfer: fetch and push. model_card: the Hub page. checkpoint: the authors' pickles.
"""

from .files import WeightsNotFound

__all__ = ["WeightsNotFound"]
