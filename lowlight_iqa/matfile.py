"""MATLAB files of version 5: numbers, texts and cells of them.

scipy's reader crashes the process on some damaged files; here every length is checked against the bytes present.
Source: "MAT-File Format", The MathWorks, R2024a, chapter 1.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Variable: TypeAlias = "NDArray[np.float64] | str | list[Any]"

MAX_BYTES = 32_000_000  # of a file, and of its contents decompressed; lists of scores have some ten thousand
MAX_DEPTH = 8  # of cells in cells
HEADER = 128
CELL, CHAR, NUMBERS = 1, 4, range(6, 16)  # classes of arrays
MATRIX, COMPRESSED = 14, 15  # types of elements
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
COMPLEX = 0x0800


class _Elements:
    """Iterate over the elements of a byte string."""

    def __init__(self, content: bytes, order: str, start: int = 0) -> None:
        self.content, self.order, self.offset = content, order, start

    def __bool__(self) -> bool:
        return self.offset < len(self.content)

    def take(self, expected: int | None = None) -> tuple[int, bytes]:
        """Return type and bytes of the next element, which must be of the ``expected`` type."""
        if self.offset + 8 > len(self.content):
            raise ValueError("it ends inside an element")
        kind, size = struct.unpack_from(f"{self.order}II", self.content, self.offset)

        if kind >> 16:  # a small element: up to four bytes inside the tag itself
            kind, size = kind & 0xFFFF, kind >> 16
            start, step = self.offset + 4, 8
            if size > 4:
                raise ValueError(f"a small element has {size} bytes instead of up to 4")
        else:
            padding = 0 if kind == COMPRESSED else -size % 8
            start, step = self.offset + 8, 8 + size + padding

        if start + size > len(self.content):
            raise ValueError(f"an element of {size} bytes exceeds the file")
        if expected not in (None, kind):
            raise ValueError(f"an element has type {kind} instead of {expected}")
        self.offset += step
        return kind, self.content[start : start + size]


def read_mat(path: Path) -> dict[str, Variable]:
    """Read the variables of a MATLAB file of version 5 to 7 by name; structures and other objects are skipped.

    Arrays of numbers are float64, texts strings, cells flat lists.

    Raises:
        ValueError: damaged, larger than ``MAX_BYTES``, or of another version; the message names the file.
        OSError: missing or unreadable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file; check the path")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return _variables(content)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged or not a MATLAB file of version 5 ({error}); download it again, or save it with -v7"
        ) from error


def _variables(content: bytes) -> dict[str, Variable]:
    order = {b"IM": "<", b"MI": ">"}.get(content[126:HEADER])
    if order is None or len(content) < HEADER:
        raise ValueError("its header is invalid")
    elements = _Elements(content, order, HEADER)
    variables, budget = {}, MAX_BYTES

    while elements:
        kind, body = elements.take()
        if kind == COMPRESSED:
            body = _decompress(body, budget)
            budget -= len(body)
            kind, body = _Elements(body, order).take()
        if kind == MATRIX:
            name, value = _matrix(body, order, 0)
            if value is not None:
                variables[name] = value
    return variables


def _decompress(compressed: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(compressed, max_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
    if len(content) > max_bytes:
        raise ValueError(f"it decompresses to more than {MAX_BYTES} bytes")
    return content


def _matrix(body: bytes, order: str, depth: int) -> tuple[str, Variable | None]:
    """Return name and value of an array; the value is None for a class that is not supported."""
    if not body:  # an empty array inside a cell
        return "", np.zeros((0, 0))
    parts = _Elements(body, order)
    flags = parts.take(6)[1]
    if len(flags) != 8:
        raise ValueError("an array has no flags")
    (word,) = struct.unpack_from(f"{order}I", flags)
    kind = word & 0xFF
    shape = [int(length) for length in np.frombuffer(_check_multiple(parts.take(5)[1], 4), f"{order}i4")]
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"an array has the shape {shape}")
    count = math.prod(shape)
    name = parts.take(1)[1].decode("ascii", "replace")

    if kind == CELL:
        return name, _cells(parts, count, order, depth)
    if kind == CHAR:
        return name, _text(*parts.take(), order)
    if kind not in NUMBERS or word & COMPLEX:
        return name, None
    return name, _numbers(*parts.take(), order, count).reshape(shape, order="F")


def _cells(parts: _Elements, count: int, order: str, depth: int) -> list[Any]:
    if depth == MAX_DEPTH:
        raise ValueError("its cells are nested too deeply")
    values = []
    for _ in range(count):
        value = _matrix(parts.take(MATRIX)[1], order, depth + 1)[1]
        if value is None:
            raise ValueError("a cell holds neither a number nor a text")
        values.append(value)
    return values


def _text(kind: int, content: bytes, order: str) -> str:
    if kind not in TEXTS:
        raise ValueError(f"a text is stored as type {kind}")
    encoding = TEXTS[kind]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return content.decode(encoding)


def _numbers(kind: int, content: bytes, order: str, count: int) -> NDArray[np.float64]:
    if kind not in TYPES:
        raise ValueError(f"numbers are stored as type {kind}")
    dtype = np.dtype(order + TYPES[kind])
    values = np.frombuffer(_check_multiple(content, dtype.itemsize), dtype)
    if len(values) != count:
        raise ValueError(f"an array of {count} numbers holds {len(values)}")
    return values.astype(np.float64)


def _check_multiple(content: bytes, size: int) -> bytes:
    if len(content) % size:
        raise ValueError(f"{len(content)} bytes are not a multiple of {size}")
    return content
