"""Explain one picture on one page: maps over it, score, attributes and a sentence (extra ``report``)."""

from .explain import Explanation, Layer, explain
from .figure import write_png
from .page import write_html

__all__ = ["Explanation", "Layer", "explain", "write_html", "write_png"]
