"""JSON from strangers: of bounded size, without NaN, and with one kind of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn


def parse_json(content: str | bytes) -> Any:
    """Parse JSON without NaN and infinity.

    Raises:
        ValueError: it is none, is not UTF-8, or is nested too deeply.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(content, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, most: int) -> Any:
    """Read a file of at most ``most`` bytes.

    Raises:
        ValueError: as ``parse_json``, or it is larger.
        OSError: missing or unreadable.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return parse_json(content)
