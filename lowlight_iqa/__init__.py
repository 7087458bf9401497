"""No-reference image-quality metrics for low-light photographs and their enhancement.

What is used is imported when it is first named: importing the package alone does not even import torch.

>>> import lowlight_iqa
>>> metric = lowlight_iqa.create_metric("leiq")
>>> metric("night.jpg")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .card import Card
    from .comparison.compare import compare
    from .evaluation.evaluate import evaluate
    from .images import read_image
    from .metric import Assessment, Metric
    from .registry import create_metric, list_metrics, register
    from .scoring.pipeline import score
    from .weights.files import WeightsNotFound

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

_HOMES = {
    "Assessment": "metric",
    "Card": "card",
    "Metric": "metric",
    "WeightsNotFound": "weights.files",
    "compare": "comparison.compare",
    "create_metric": "registry",
    "evaluate": "evaluation.evaluate",
    "list_metrics": "registry",
    "read_image": "images",
    "register": "registry",
    "score": "scoring.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import what is named: a function or class of the list above, or a module of the package."""
    import importlib
    import importlib.util

    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
