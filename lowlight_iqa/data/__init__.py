"""One reader per data set, each for the layout that its authors distribute; its docstring names the source.

A reader is a function ``read(root, split, *, pictures=True)`` in a file of its own, decorated by ``@register``.
"""

from .rated import Dataset, Rated
from .registry import get_reader, list_datasets, load, register

__all__ = ["Dataset", "Rated", "get_reader", "list_datasets", "load", "register"]
