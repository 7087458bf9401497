"""No-reference image-quality metrics for low-light photographs and their enhancement.

>>> import lowlight_iqa
>>> metric = lowlight_iqa.create_metric("leiq")
>>> metric("night.jpg")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from .card import Card
from .images import read_image
from .metric import Assessment, Metric
from .registry import create_metric, list_metrics, register
from .weights.files import WeightsNotFound

if TYPE_CHECKING:
    from .comparison.compare import compare
    from .evaluation.evaluate import evaluate
    from .scoring.pipeline import score

__all__ = [
    "Assessment",
    "Card",
    "Metric",
    "WeightsNotFound",
    "compare",
    "create_metric",
    "evaluate",
    "list_metrics",
    "read_image",
    "register",
    "score",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "compare":  # imported when it is used
        from .comparison.compare import compare

        return compare
    if name == "evaluate":
        from .evaluation.evaluate import evaluate

        return evaluate
    if name == "score":
        from .scoring.pipeline import score

        return score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
