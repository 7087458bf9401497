"""The rows of published.toml, each a dictionary with its table's fields."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # the test and bench extras bring it
    import tomli as tomllib

PATH = Path(__file__).with_name("published.toml")
HOWS = ("evaluate", "retrain", "labels", "weights", "card", "out of reach", "quoted")
FIGURES = ("srcc", "plcc", "mapped", "rmse", "scene_srcc")


def rows() -> list[dict[str, Any]]:
    """Every row, in the file's order."""
    with PATH.open("rb") as file:
        tables = tomllib.load(file)["table"]
    return [
        {**{key: value for key, value in table.items() if key != "rows"}, **row}
        for table in tables
        for row in table["rows"]
    ]


def label(row: dict[str, Any]) -> str:
    """A short name: metric, data set and what tells the row from others."""
    what = [row.get(key) for key in ("metric", "dataset", "variant", "attribute", "part", "card")]
    return " ".join(str(part) for part in what if part)
