"""The ``lowlight-iqa`` command line, with one file for each command."""

from .main import main

__all__ = ["main"]
