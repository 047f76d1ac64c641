"""The newest frame of a camera in memory that two processes share: one writes, one reads, nobody waits.

    head    newest: the number of the last whole frame | counts | words: what is wrong, "" for nothing
    slots   begun | captured | checksum | ended | pixels          frame n lies in slot n % SLOTS

A frame is whole when `begun` and `ended` are its number and its checksum is right. The writer changes only
the oldest slot, so a reader meets one half-written only when it was asleep for several frames; it then takes
the next, and after a few tries none. The checksum holds where processors reorder writes, too.

The memory has no name: it is a file descriptor that a child inherits. When both processes are gone, however
they went, so is the memory.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import zlib
from dataclasses import dataclass

import numpy as np

SLOTS = 4
TRIES = 3  # to read one frame
_HEAD = 512  # bytes
_WORDS_AT, _WORDS = 128, 256  # where the words begin, and how many bytes they may be
_SLOT = 64  # bytes before the pixels
# Places of 8 bytes in the head: numbers, the last a real.
_NEWEST, _ARRIVED, _SPOILT, _OPENED, _LENGTH, _CHECK, _RATE = range(7)
# The same in a slot; the second is a real.
_BEGUN, _CAPTURED, _CHECKSUM, _ENDED = range(4)


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        number: rises by one with each that was handed out.
        captured: when it was taken, s on the machine's monotonic clock.
        image: shape (height, width, 3), uint8 RGB; the reader's own.
    """

    number: int
    captured: float
    image: np.ndarray


@dataclass(frozen=True)
class Counts:
    """What a camera has done since its process began.

    Attributes:
        arrived: frames that came, good or not. spoilt: those that could not be used.
        opened: how often the device was opened.
        rate: frames a second that arrive, as measured; 0 before there were two.
    """

    arrived: int
    spoilt: int
    opened: int
    rate: float


def create(height: int, width: int) -> int:
    """New memory for frames of that size: its file descriptor, which a child has to be given."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("takt-frames")
    else:  # other systems than Linux: a file that has no name any more
        with tempfile.TemporaryFile(prefix="takt-frames-") as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _size(height, width))
    return fd


def _size(height: int, width: int) -> int:
    return _HEAD + SLOTS * (_SLOT + _padded(height, width))


def _padded(height: int, width: int) -> int:
    return -(-height * width * 3 // 64) * 64


class Memory:
    """The layout, as both ends see it."""

    def __init__(self, fd: int, height: int, width: int) -> None:
        self._map = mmap.mmap(fd, _size(height, width))
        self._head = np.ndarray((8,), np.uint64, self._map)
        self._reals = np.ndarray((8,), np.float64, self._map)
        stride = _SLOT + _padded(height, width)
        self._slots = np.ndarray((SLOTS, 4), np.uint64, self._map, _HEAD, (stride, 8))
        self._times = np.ndarray((SLOTS, 4), np.float64, self._map, _HEAD, (stride, 8))
        shape, strides = (SLOTS, height, width, 3), (stride, width * 3, 3, 1)
        self._pixels = np.ndarray(shape, np.uint8, self._map, _HEAD + _SLOT, strides)


class Writer(Memory):
    """The camera's end. One at a time; the next one goes on counting where the last one ended.

    Attributes:
        number: of the last frame.
    """

    def __init__(self, fd: int, height: int, width: int) -> None:
        super().__init__(fd, height, width)
        self.number = int(self._head[_NEWEST])
        self._head[[_ARRIVED, _SPOILT, _OPENED]] = 0
        self._reals[_RATE] = 0.0

    def put(self, image: np.ndarray, captured: float) -> None:
        """Hand out a frame, shape (height, width, 3), uint8 RGB, taken at `captured`, s."""
        self.number += 1
        slot = self.number % SLOTS
        self._slots[slot, _BEGUN] = self.number
        self._times[slot, _CAPTURED] = captured
        self._pixels[slot] = image
        self._slots[slot, _CHECKSUM] = _checksum(self._pixels[slot], captured)
        self._slots[slot, _ENDED] = self.number
        self._head[_NEWEST] = self.number

    def say(self, words: str) -> None:
        """What is wrong now, in a few words; "" for nothing."""
        text = words.encode()[:_WORDS]
        self._head[_LENGTH] = len(text)
        self._map[_WORDS_AT : _WORDS_AT + len(text)] = text
        self._head[_CHECK] = zlib.crc32(text)

    def count(self, arrived: int, spoilt: int, opened: int, rate: float) -> None:
        """See `Counts`."""
        self._head[_ARRIVED], self._head[_SPOILT], self._head[_OPENED] = arrived, spoilt, opened
        self._reals[_RATE] = rate


class Reader(Memory):
    """The other end.

    Attributes:
        torn: how often no whole frame was found.
    """

    def __init__(self, fd: int, height: int, width: int) -> None:
        super().__init__(fd, height, width)
        self.torn = 0
        self._said = ""

    def newest(self, after: int = 0) -> Frame | None:
        """The newest frame; None when it is the one of number `after`, or none is whole."""
        for _ in range(TRIES):
            number = int(self._head[_NEWEST])
            if number == after:
                return None
            slot = number % SLOTS
            ended = int(self._slots[slot, _ENDED])
            image, captured = self._pixels[slot].copy(), float(self._times[slot, _CAPTURED])
            checksum, begun = int(self._slots[slot, _CHECKSUM]), int(self._slots[slot, _BEGUN])
            if begun == ended == number and checksum == _checksum(image, captured):
                return Frame(number, captured, image)
        self.torn += 1
        return None

    def said(self) -> str:
        """What is wrong by the writer's words; what it said before while it is writing others."""
        text = self._map[_WORDS_AT : _WORDS_AT + min(int(self._head[_LENGTH]), _WORDS)]
        if zlib.crc32(text) == int(self._head[_CHECK]):
            self._said = text.decode(errors="replace")
        return self._said

    def counts(self) -> Counts:
        head, reals = self._head, self._reals
        arrived, spoilt, opened = (int(head[i]) for i in (_ARRIVED, _SPOILT, _OPENED))
        return Counts(arrived, spoilt, opened, float(reals[_RATE]))


def _checksum(image: np.ndarray, captured: float) -> int:
    """Of pixels that lie in one piece, and of their time."""
    return zlib.crc32(np.float64(captured).tobytes(), zlib.crc32(image.data))
