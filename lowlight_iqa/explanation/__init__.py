"""One picture explained on one page: the picture, maps over it, score, attributes and sentence (extra ``report``)."""

from .explain import Explanation, Layer, explain
from .figure import write_png
from .page import write_html

__all__ = ["Explanation", "Layer", "explain", "write_html", "write_png"]
