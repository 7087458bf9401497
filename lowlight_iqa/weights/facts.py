"""Check the card and config that come with weights: type and range of every value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from ..card import Card
from ..jsonfile import parse_json, read_json

MAX_BYTES = 1_000_000  # of a config; those of this library have a few thousand
MAX_LETTERS = 10_000  # of a string in a card
MAX_SIZE = 10_000  # of ``min_size``
SHA256 = re.compile(r"[0-9a-f]{64}|")
REMEDY = "download the weights again, or save the metric again"


class DamagedError(ValueError):
    """A file is not what was written; a file of the Hub is then downloaded once more."""


class Facts(dict[str, Any]):
    """The values of a config, each read with a check of type and range; ``where`` names the file in errors."""

    def __init__(self, facts: Mapping[str, Any], where: object) -> None:
        super().__init__(facts)
        self.where = where

    def __missing__(self, key: str) -> NoReturn:
        raise DamagedError(f"the config of {self.where} lacks {key!r}; {REMEDY}")

    def _refuse(self, key: str, wanted: str) -> NoReturn:
        raise DamagedError(f"{key!r} in the config of {self.where} is {shown(self[key])}, not {wanted}; {REMEDY}")

    def choice(self, key: str, allowed: Collection[str]) -> str:
        """Return one of some strings."""
        value = self[key]
        if not isinstance(value, str) or value not in allowed:
            self._refuse(key, f"one of {', '.join(allowed)}")
        return value

    def flag(self, key: str) -> bool:
        """Return true or false."""
        if not isinstance(self[key], bool):
            self._refuse(key, "true or false")
        return bool(self[key])

    def integer(self, key: str, low: int, high: int) -> int:
        """Return an integer from ``low`` to ``high``."""
        value = self[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._refuse(key, f"a whole number of {low} to {high}")
        return int(value)

    def number(self, key: str) -> float:
        """Return a finite number."""
        if not is_number(self[key]):
            self._refuse(key, "a finite number")
        return float(self[key])

    def numbers(self, key: str, count: int | None = None) -> list[float]:
        """Return a list of finite numbers, ``count`` of them if it is given."""
        value = self[key]
        if not isinstance(value, list) or not all(map(is_number, value)) or count not in (None, len(value)):
            self._refuse(key, f"a list of {count} finite numbers" if count else "a list of finite numbers")
        return [float(item) for item in value]

    def curve(self, key: str) -> list[float]:
        """Return the four parameters of ``logistic``; the last one, a width, must not be 0."""
        values = self.numbers(key, 4)
        if values[3] == 0:
            self._refuse(key, "the parameters of a logistic, whose last one must not be 0")
        return values

    def strings(self, key: str) -> list[str]:
        """Return a list of strings."""
        value = self[key]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._refuse(key, "a list of strings")
        return list(value)

    def part(self, key: str) -> Facts:
        """Return the object under a key."""
        if not isinstance(self[key], dict):
            self._refuse(key, "an object")
        return Facts(self[key], f"{self.where} ({key})")


def is_number(value: object) -> bool:
    """Tell whether a JSON value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def shown(value: object) -> str:
    """Format a value for an error message: short, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_config(path: Path) -> Any:
    """Read a config file, which must be UTF-8 JSON of at most ``MAX_BYTES``."""
    try:
        return read_json(path, MAX_BYTES)
    except ValueError as error:
        raise DamagedError(f"{path} is not a config of this library ({error}); {REMEDY}") from error


def parse_config(text: str, path: Path) -> Facts:
    """Parse the config in the header of a weights file, a JSON object."""
    try:
        config = parse_json(text)
    except ValueError as error:
        raise DamagedError(f"the config in the header of {path} is invalid ({error}); {REMEDY}") from error
    if not isinstance(config, dict):
        raise DamagedError(f"the config in the header of {path} is not an object; {REMEDY}")
    return Facts(config, path)


def check_card(facts: object, registered: Card, where: object) -> Card:
    """Build the card saved with weights from its checked JSON; fields that code relies on must be as ``registered``.

    Raises:
        ValueError: unknown fields, or those of another metric.
        DamagedError: missing fields, or values of another type or out of range.
    """
    if not isinstance(facts, dict):
        raise DamagedError(f"the card in {where} is {shown(facts)}, not an object; {REMEDY}")
    known = {field.name: str(field.type) for field in fields(Card)}
    unknown = sorted(set(facts) - known.keys())
    if unknown:
        raise ValueError(f"{where} has fields that this version does not know: {', '.join(unknown)[:60]}")

    values: dict[str, Any] = {}
    for name, value in facts.items():
        wanted, fits = _KINDS[known[name]]
        if not fits(value):
            raise DamagedError(f"{name!r} of the card in {where} is {shown(value)}, not {wanted}; {REMEDY}")
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        card = Card(**{field: getattr(registered, field) for field in _LATER} | values)
    except TypeError as error:
        raise DamagedError(f"{where} lacks fields of the card ({error}); {REMEDY}") from error
    _check_values(card, registered, where)
    return card


def _check_values(card: Card, registered: Card, where: object) -> None:
    for name, wanted in {"name": registered.name, "needs_reference": registered.needs_reference}.items():
        if getattr(card, name) != wanted:
            raise ValueError(f"{name!r} of the card in {where} is {shown(getattr(card, name))}, not {wanted!r}")
    if not registered.min_size <= card.min_size <= MAX_SIZE:
        raise DamagedError(
            f"'min_size' of the card in {where} is {card.min_size}, not {registered.min_size} to {MAX_SIZE}; {REMEDY}"
        )
    low, high = card.score_range
    if not low < high:
        raise DamagedError(f"'score_range' of the card in {where} is {card.score_range}, not low and high; {REMEDY}")
    if card.typical_range and card.typical_range[0] == card.typical_range[1]:
        raise DamagedError(f"'typical_range' of the card in {where} has two equal ends, {card.typical_range}; {REMEDY}")
    if not SHA256.fullmatch(card.sha256):
        raise DamagedError(f"'sha256' of the card in {where} is {shown(card.sha256)}, not 64 hex digits; {REMEDY}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_LETTERS and value.isprintable()


def _is_range(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


# Fields that cards saved by earlier versions lack: they say what the code does, so the registered card has them.
_LATER = ("piecewise", "zero_gradient")

# The values that a field of a card may have in JSON, by its type: in words, and as a check.
_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "str": ("a line of text", _is_text),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "float": ("a finite number", is_number),
    "tuple[float, float]": ("two finite numbers", _is_range),
    "tuple[float, float] | None": ("two finite numbers", lambda value: value is None or _is_range(value)),
    "tuple[str, ...]": (
        "a list of lines",
        lambda value: isinstance(value, list) and len(value) <= 1000 and all(map(_is_text, value)),
    ),
    "Mapping[str, str]": (
        "lines by name",
        lambda value: isinstance(value, dict) and len(value) <= 1000 and all(map(_is_text, [*value, *value.values()])),
    ),
}
