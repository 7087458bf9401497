"""MATLAB files, the plain part of version 5: numbers, texts and cells of them.

scipy's reader ends the process on some damaged files, so strangers' files are read here: every length is checked
against the bytes that are there. Source: "MAT-File Format", The MathWorks, R2024a, chapter 1.
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

MAX_BYTES = 32_000_000  # of a file, and of all that is packed in it; lists of scores have some ten thousand
MAX_DEPTH = 8  # of cells in cells
HEADER = 128
CELL, CHAR, NUMBERS = 1, 4, range(6, 16)  # classes of arrays
MATRIX, PACKED = 14, 15  # types of elements
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
COMPLEX = 0x0800


class _Elements:
    """The elements of some bytes, one after the other."""

    def __init__(self, content: bytes, order: str, start: int = 0) -> None:
        self.content, self.order, self.place = content, order, start

    def __bool__(self) -> bool:
        return self.place < len(self.content)

    def take(self, kind: int | None = None) -> tuple[int, bytes]:
        """Return type and bytes of the next element, which is of type ``kind`` where it is given."""
        found, size = self._unpack("II")
        if found >> 16:  # up to four bytes stand in the tag itself
            found, size, start, step = found & 0xFFFF, found >> 16, self.place + 4, 8
            if size > 4:
                raise ValueError(f"an element of {size} bytes stands where 4 fit")
        else:
            start, step = self.place + 8, 8 + size + (-size % 8 if found != PACKED else 0)
        if start + size > len(self.content):
            raise ValueError(f"an element of {size} bytes ends behind the end")
        if kind not in (None, found):
            raise ValueError(f"an element of type {found} stands where one of type {kind} should")
        self.place += step
        return found, self.content[start : start + size]

    def _unpack(self, form: str) -> tuple[Any, ...]:
        if self.place + 8 > len(self.content):
            raise ValueError("it ends inside an element")
        return struct.unpack_from(self.order + form, self.content, self.place)


def read_mat(path: Path) -> dict[str, Variable]:
    """Read the variables of a MATLAB file of version 5 to 7; structures and other objects are left out.

    Returns:
        Arrays of numbers in float64, texts as strings, cells as flat lists, by name.

    Raises:
        ValueError: damaged, larger than ``MAX_BYTES``, or of another version; the message names the file.
        OSError: missing or unreadable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file; check the path")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return _variables(content)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged or no MATLAB file of version 5 ({error}); get it anew, or save it with -v7"
        ) from error


def _variables(content: bytes) -> dict[str, Variable]:
    order = {b"IM": "<", b"MI": ">"}.get(content[126:HEADER])
    if order is None or len(content) < HEADER:
        raise ValueError("its header is none")
    elements = _Elements(content, order, HEADER)
    variables, room = {}, MAX_BYTES

    while elements:
        kind, body = elements.take()
        if kind == PACKED:
            body = _inflate(body, room)
            room -= len(body)
            kind, body = _Elements(body, order).take()
        if kind == MATRIX:
            name, value = _matrix(body, order, 0)
            if value is not None:
                variables[name] = value
    return variables


def _inflate(packed: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
    if len(content) > most:
        raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
    return content


def _matrix(body: bytes, order: str, depth: int) -> tuple[str, Variable | None]:
    """Return name and value of an array; None for a kind that is not read."""
    if not body:  # an empty array inside a cell
        return "", np.zeros((0, 0))
    parts = _Elements(body, order)
    flags = parts.take(6)[1]
    if len(flags) != 8:
        raise ValueError("an array has no flags")
    (word,) = struct.unpack_from(f"{order}I", flags)
    kind = word & 0xFF
    shape = [int(length) for length in np.frombuffer(_whole(parts.take(5)[1], 4), f"{order}i4")]
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
            raise ValueError("a cell holds what is neither a number nor a text")
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
    values = np.frombuffer(_whole(content, dtype.itemsize), dtype)
    if len(values) != count:
        raise ValueError(f"an array of {count} numbers holds {len(values)}")
    return values.astype(np.float64)


def _whole(content: bytes, size: int) -> bytes:
    if len(content) % size:
        raise ValueError(f"{len(content)} bytes are no multiple of {size}")
    return content
