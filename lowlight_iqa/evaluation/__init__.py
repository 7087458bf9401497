"""Agreement of a metric with people on a data set: every picture counted, every figure with its interval."""

from .evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
