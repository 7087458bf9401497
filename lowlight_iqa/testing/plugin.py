"""The pytest plug-in of ``pytest --pyargs lowlight_iqa.testing``: its options."""

import importlib.util
import sys
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare --metric and --metric-from."""
    group = parser.getgroup("lowlight_iqa")
    group.addoption("--metric", action="append", default=[], metavar="NAME", help="metric to test; may be repeated")
    group.addoption("--metric-from", metavar="FILE", help="Python file that registers the metric")


def pytest_configure(config: pytest.Config) -> None:
    """Run the file that registers the metric."""
    path = config.getoption("--metric-from", default=None)
    if path:
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        if spec is None or spec.loader is None:
            raise pytest.UsageError(f"{path} is not a Python file; give a script that registers the metric")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # pickle looks the class up there
        spec.loader.exec_module(module)
