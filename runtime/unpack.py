"""msgpack in, Python values out, without a copy: what is binary comes back as a view of the message.

A camera's frame is a megabyte, and every copy of one costs as much as all the rest of reading a message. Only
what the native protocol sends is read: maps with distinct texts as keys, arrays, texts, binaries, numbers,
booleans, nil (https://github.com/msgpack/msgpack/blob/master/spec.md). There are no extensions here.
"""

from __future__ import annotations

import struct
from typing import Any

_DEPTH = 8  # maps and arrays within each other

_NUMBERS = {  # first byte -> how the number after it is laid out
    0xCA: struct.Struct(">f"),
    0xCB: struct.Struct(">d"),
    0xCC: struct.Struct(">B"),
    0xCD: struct.Struct(">H"),
    0xCE: struct.Struct(">I"),
    0xCF: struct.Struct(">Q"),
    0xD0: struct.Struct(">b"),
    0xD1: struct.Struct(">h"),
    0xD2: struct.Struct(">i"),
    0xD3: struct.Struct(">q"),
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
# First byte -> bytes of the length after it.
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}


def unpack(data: bytes | bytearray | memoryview, entries: int) -> Any:
    """The one value in `data`.

    Args:
        entries: a map or an array has at most so many.

    Raises:
        ValueError: it is anything else.
    """
    reader = _Reader(memoryview(data).toreadonly(), entries)
    try:
        value = reader.value(_DEPTH)
    except IndexError:
        raise ValueError("the message ends early") from None
    if reader.at != len(data):
        raise ValueError("bytes after the message")
    return value


class _Reader:
    """A place in the message."""

    __slots__ = ("at", "data", "entries")

    def __init__(self, data: memoryview, entries: int) -> None:
        self.data, self.entries = data, entries
        self.at = 0

    def value(self, depth: int) -> Any:
        at = self.at
        first = self.data[at]
        self.at = at + 1
        if 0xA0 <= first < 0xC0:
            return self.text(first & 0x1F)
        if first < 0x80:
            return first
        if first in _NUMBERS:
            layout = _NUMBERS[first]
            return layout.unpack(self.take(layout.size))[0]
        if first < 0x90:
            return self.map(first & 0x0F, depth)
        if first < 0xA0:
            return self.array(first & 0x0F, depth)
        if first in _TEXTS:
            return self.text(self.length(_TEXTS[first]))
        if first in _BINARIES:
            return self.take(self.length(_BINARIES[first]))
        if first >= 0xE0:
            return first - 0x100
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _ARRAYS:
            return self.array(self.length(_ARRAYS[first]), depth)
        if first in _MAPS:
            return self.map(self.length(_MAPS[first]), depth)
        raise ValueError(f"a value of unknown kind 0x{first:02x}")

    def take(self, count: int) -> memoryview:
        """The next bytes, which have to be there."""
        start, self.at = self.at, self.at + count
        part = self.data[start : self.at]
        if len(part) != count:
            raise ValueError("the message ends early")
        return part

    def length(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self, size: int) -> str:
        return str(self.take(size), "utf-8")  # a UnicodeDecodeError is a ValueError

    def array(self, count: int, depth: int) -> list[Any]:
        self.check(count, depth)
        return [self.value(depth - 1) for _ in range(count)]

    def map(self, count: int, depth: int) -> dict[str, Any]:
        self.check(count, depth)
        made = {}
        for _ in range(count):
            key = self.value(0)
            if type(key) is not str or key in made:
                raise ValueError("a map's keys are distinct texts")
            made[key] = self.value(depth - 1)
        return made

    def check(self, count: int, depth: int) -> None:
        if count > self.entries or depth <= 0:
            raise ValueError("a map or an array that is too large or too deep")
