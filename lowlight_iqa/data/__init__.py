"""One reader per data set, each from the layout its authors distribute; its docstring says what that was taken from.

A reader is a function ``read(root, split, *, pictures=True)`` in a file of its own, entered by ``@register``.
"""

from .rated import Dataset, Rated
from .registry import get_reader, list_datasets, load, register

__all__ = ["Dataset", "Rated", "get_reader", "list_datasets", "load", "register"]
