"""Untrusted JSON: of bounded size, without NaN, and with one kind of error."""

import json
from pathlib import Path
from typing import Any, NoReturn


def parse_json(content: str | bytes) -> Any:
    """Parse JSON without NaN and infinity; what is not that is a ValueError."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(content, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, max_bytes: int) -> Any:
    """Read a JSON file of at most ``max_bytes``; a larger one is a ValueError."""
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes} bytes")
    return parse_json(content)
