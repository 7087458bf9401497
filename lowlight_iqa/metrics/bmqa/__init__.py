"""BMQA: an image tower, a text tower and a captioner; the metric is in ``metric``."""

from .metric import Bmqa

__all__ = ["Bmqa"]
