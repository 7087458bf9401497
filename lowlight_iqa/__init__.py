"""No-reference image-quality metrics for low-light photographs and their enhancement.

>>> import lowlight_iqa
>>> metric = lowlight_iqa.create_metric("leiq")
>>> metric("night.jpg")  # doctest: +SKIP
"""

from .card import Card
from .images import read_image
from .metric import Assessment, Metric
from .registry import create_metric, list_metrics
from .weights import WeightsNotFound

__all__ = ["Assessment", "Card", "Metric", "WeightsNotFound", "create_metric", "list_metrics", "read_image"]
__version__ = "0.1.0"
