"""What all servo protocols have in common: packets out of noisy bytes, answers in turn, echoes taken off."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

BYTE_SECONDS = 10e-6  # at 1 Mbit/s: a start bit, eight bits, a stop bit


class Answer(Protocol):
    """A servo's status packet, whatever its protocol.

    Attributes:
        error: its error byte; what that means is the protocol's.
    """

    @property
    def id(self) -> int: ...

    @property
    def data(self) -> bytes: ...

    @property
    def error(self) -> int: ...


class Ear(Protocol):
    """What takes the bytes that come back. Attributes: `skipped`, `broken`, as of `Decoder`."""

    skipped: int
    broken: int

    def hear(self, piece: bytes) -> Sequence[Answer]:
        """The answers that `piece` completes, oldest first."""
        ...


class Wire(Protocol):
    """How a bus's master talks: all that differs from protocol to protocol. One for each bus.

    Attributes:
        chained: whether a servo that is one of several waits for the answer of the one before it.
    """

    chained: bool

    def ask(self, servos: Sequence[int], address: int, count: int, again: bool = False) -> bytes:
        """A request for the same `count` bytes of several servos, who answer in this order."""
        ...

    def write(self, servo: int, address: int, data: bytes) -> bytes:
        """Bytes for one servo, which answers, or for all, who do not."""
        ...

    def sync_write(self, address: int, values: Mapping[int, bytes]) -> bytes:
        """Bytes for several servos, each its own; nobody answers."""
        ...

    def ear(self, count: int, servos: int) -> Ear:
        """For the answers of so many servos, `count` bytes of data each."""
        ...

    def longest(self, count: int, servos: int) -> int:
        """How many bytes those answers are."""
        ...

    def fared(self, missing: int) -> None:
        """How many servos did not answer the last request."""
        ...


P = TypeVar("P")


class Decoder(ABC, Generic[P]):
    """Packets out of a stream of bytes that may be cut anywhere and have noise between them.

    A header whose packet turns out wrong costs one byte: the search goes on right behind it, so that a whole
    packet inside a broken one is found.

    Attributes:
        skipped: bytes thrown away so far.
        broken: headers so far whose checksum was wrong.
    """

    header: bytes

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.skipped = self.broken = 0

    @abstractmethod
    def _size(self, at: int) -> int | None:
        """Bytes of the packet whose header is at `at`; 0 where none can be, None until more has come."""

    @abstractmethod
    def _packet(self, line: bytes) -> P | None:
        """A packet of exactly these bytes; None where they are none."""

    def feed(self, piece: bytes) -> list[P]:
        """The packets that `piece` completes, oldest first."""
        buffer, found, at = self._buffer, [], 0
        buffer += piece
        while True:
            start = buffer.find(self.header, at)
            if start < 0:
                start = max(at, len(buffer) - self._begun())
                self.skipped += start - at
                at = start
                break
            self.skipped += start - at
            at = start
            size = self._size(at)
            if size is None:
                break
            packet = self._packet(bytes(buffer[at : at + size])) if size else None
            if packet is not None:
                found.append(packet)
                at += size
                continue
            self.broken += size > 0
            self.skipped += 1
            at += 1
        del buffer[:at]
        return found

    def _begun(self) -> int:
        """How many bytes at the end may be the beginning of a header."""
        header, buffer = self.header, self._buffer
        return next((n for n in range(len(header) - 1, 0, -1) if buffer.endswith(header[:n])), 0)


class Answers:
    """Who has answered a request.

    Attributes:
        found: servo -> its answer.
        disordered: answers that were not taken, or taken back.
    """

    def __init__(self, servos: Sequence[int]) -> None:
        self.found: dict[int, Answer] = {}
        self.disordered = 0
        self._turn = {servo: i for i, servo in enumerate(servos)}
        self._doubted: set[int] = set()

    @property
    def complete(self) -> bool:
        return len(self.found) == len(self._turn)

    def take(self, packet: Answer) -> None:
        turn = self._turn.get(packet.id)
        if turn is None or packet.id in self._doubted:
            self.disordered += 1
            return
        # Who answered before one whose turn comes first had been asked by an earlier request.
        early = [servo for servo in self.found if self._turn[servo] > turn]
        if packet.id in self.found:
            early.append(packet.id)  # one of its two answers is old, and nothing says which
            self._doubted.add(packet.id)
        else:
            self.found[packet.id] = packet
        for servo in early:
            del self.found[servo]
        self.disordered += len(early)


class Echo:
    """Takes our own bytes off what comes back. No answer begins as a request does: what is asked is asked by
    a sync read, of one servo too, and a write is longer than its answer.

    Attributes:
        stripped: bytes taken off.
    """

    def __init__(self, line: bytes) -> None:
        self._line, self._head, self._open = line, b"", True
        self.stripped = 0

    def strip(self, piece: bytes) -> bytes:
        """What of the bytes so far is an answer; b"" while that cannot be said."""
        if not self._open:
            return piece
        self._head += piece
        if len(self._head) < len(self._line) and self._line.startswith(self._head):
            return b""
        self._open = False
        if self._head.startswith(self._line):
            self.stripped = len(self._line)
            return self._head[self.stripped :]
        return self._head
