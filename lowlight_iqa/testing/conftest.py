"""Select the metrics to test."""

import functools
from typing import Any

import pytest

from .. import list_metrics
from .subject import Subject

subject_of = functools.cache(Subject)


def pytest_generate_tests(metafunc: Any) -> None:
    """Run each test for each metric named."""
    if "name" not in metafunc.fixturenames:
        return
    names = metafunc.config.getoption("--metric")
    known = list_metrics()
    if not names or set(names) - set(known):
        wanted = ", ".join(map(repr, sorted(set(names) - set(known)))) or "none given"
        raise pytest.UsageError(f"--metric: {wanted}; there are: {', '.join(known)}")
    metafunc.parametrize("name", names)


@pytest.fixture
def subject(name: str) -> Subject:
    """Return the metric under test."""
    return subject_of(name)
