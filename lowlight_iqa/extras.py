"""Optional packages: import one, or name the extra that installs it; fill a Jinja template."""

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


def fill_template(template: str, **content: Any) -> str:
    """Render a Jinja template in which every string is escaped and every name must be defined."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(content)
