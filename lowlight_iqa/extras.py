"""Optional packages: import one, or say which extra installs it."""

import importlib
from typing import Any


def require(module: str, need: str, extra: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ValueError: it is not installed; the message says ``need``, such as "plots need matplotlib", and the remedy.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f'{need}: pip install "lowlight_iqa[{extra}]"') from error
