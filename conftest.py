"""The Python blocks of README.md and docs/ run as tests, each page from top to bottom, in this folder."""

import os
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parent


def at_the_root(namespace: dict[str, object]) -> None:
    """Run a page's blocks where their relative paths lead to the samples."""
    namespace["_before"] = os.getcwd()
    os.chdir(ROOT)


def back_again(namespace: dict[str, object]) -> None:
    """Go back to where pytest was."""
    os.chdir(str(namespace["_before"]))


pages = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=at_the_root,
    teardown=back_again,
).pytest()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> object:
    """Collect the pages."""
    return pages(file_path, parent)
