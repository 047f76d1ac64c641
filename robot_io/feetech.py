"""Feetech's STS protocol: packets to bytes, and bytes off a noisy line to packets. Pure functions.

    instruction  FF FF | id | length | instruction | parameters | checksum
    status       FF FF | id | length | error       | data       | checksum

`length` counts what follows it. The checksum is the inverted low byte of the sum of everything between the
header and itself. Words are little-endian. Both kinds look alike, so one decoder reads both: what the byte
after the length means depends on who listens.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from robot_io import packets

BROADCAST = 0xFE
HIGHEST_ID = 0xFD
_HEADER = b"\xff\xff"
_OVERHEAD = 6  # bytes of a packet without parameters
_LONGEST = 0xFF  # what the length byte can say


class Instruction(enum.IntEnum):
    """What a servo can be asked."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class Error(enum.IntFlag):
    """The bits of a status packet's error byte, and of the register `status`."""

    VOLTAGE = 0x01
    ANGLE = 0x02
    OVERHEAT = 0x04
    OVERCURRENT = 0x08
    OVERLOAD = 0x20


def told(bits: int) -> str:
    """Error bits in words, "" for none; bits without a name as a number."""
    names = [error.name.lower() for error in Error if error & bits and error.name]
    rest = bits & ~sum(Error)
    return ", ".join(names + ([f"error {rest:#04x}"] if rest else []))


@dataclass(frozen=True)
class Packet:
    """What stood between a header and a checksum that was right.

    Attributes:
        id: the servo; `BROADCAST` in an instruction to all.
        code: the instruction, or a status packet's error byte.
        data: parameters or data.
    """

    id: int
    code: int
    data: bytes = b""

    @property
    def error(self) -> int:
        """Of a status packet."""
        return self.code


def checksum(body: bytes | bytearray) -> int:
    """Of the bytes between header and checksum."""
    return ~sum(body) & 0xFF


def encode(packet: Packet) -> bytes:
    """A packet as it goes over the line.

    Raises:
        ValueError: an id above 0xFE, a code above 0xFF, or more data than the length byte can say.
    """
    body = bytes((packet.id, len(packet.data) + 2, packet.code)) + packet.data
    if packet.id > BROADCAST:
        raise ValueError(f"a servo's id is at most {HIGHEST_ID}, got {packet.id}")
    return _HEADER + body + bytes((checksum(body),))


def ping(servo: int) -> bytes:
    return encode(Packet(servo, Instruction.PING))


def read(servo: int, address: int, count: int) -> bytes:
    return encode(Packet(servo, Instruction.READ, bytes((address, count))))


def write(servo: int, address: int, data: bytes) -> bytes:
    return encode(Packet(servo, Instruction.WRITE, bytes((address,)) + data))


def reg_write(servo: int, address: int, data: bytes) -> bytes:
    """A write that waits for `action`."""
    return encode(Packet(servo, Instruction.REG_WRITE, bytes((address,)) + data))


def action() -> bytes:
    """Every servo carries out what `reg_write` left with it."""
    return encode(Packet(BROADCAST, Instruction.ACTION))


def sync_read(servos: Iterable[int], address: int, count: int) -> bytes:
    """The same registers of several servos; each answers with a packet of its own, in this order."""
    return encode(Packet(BROADCAST, Instruction.SYNC_READ, bytes((address, count, *servos))))


def sync_write(address: int, values: Mapping[int, bytes]) -> bytes:
    """The same registers of several servos, each its own value; nobody answers.

    Raises:
        ValueError: values of different lengths, or none.
    """
    lengths = {len(value) for value in values.values()}
    if len(lengths) != 1:
        raise ValueError(f"values of one length, got {sorted(lengths)}")
    rows = b"".join(bytes((servo,)) + value for servo, value in values.items())
    return encode(Packet(BROADCAST, Instruction.SYNC_WRITE, bytes((address, *lengths)) + rows))


class Decoder(packets.Decoder[Packet]):
    """Packets of this protocol out of a stream, see `packets.Decoder`."""

    header = b"\xff\xff"

    def __init__(self, data: int | None = None, highest: int = BROADCAST) -> None:
        """
        Args:
            data: how many bytes of data a packet has; others count as noise at once, so that a false
                header cannot swallow what follows it. None takes any.
            highest: the highest id. Status packets come from `HIGHEST_ID` at most.
        """
        super().__init__()
        self._lengths = range(2, _LONGEST + 1) if data is None else range(data + 2, data + 3)
        self._highest = highest

    hear = packets.Decoder.feed

    def _size(self, at: int) -> int | None:
        buffer = self._buffer
        if len(buffer) < at + 3:
            return None
        if buffer[at + 2] > self._highest:
            return 0
        if len(buffer) < at + 4:
            return None
        if buffer[at + 3] not in self._lengths:
            return 0
        size = buffer[at + 3] + 4
        return size if len(buffer) >= at + size else None

    def _packet(self, line: bytes) -> Packet | None:
        right = checksum(line[2:-1]) == line[-1]
        return Packet(line[2], line[4], line[5:-1]) if right else None


def split(packet: Packet) -> list[Packet]:
    """An instruction to several servos as one to each; others as they are, and none that makes no sense."""
    data = packet.data
    if packet.code == Instruction.SYNC_READ and len(data) > 2:
        return [Packet(servo, Instruction.READ, data[:2]) for servo in data[2:]]
    if packet.code == Instruction.SYNC_WRITE and len(data) > 2:
        width = data[1] + 1
        rows = [data[i : i + width] for i in range(2, len(data) - width + 1, width)]
        return [Packet(row[0], Instruction.WRITE, data[:1] + row[1:]) for row in rows]
    return [] if packet.code == Instruction.READ and len(data) < 2 else [packet]


class Wire:
    """A master's side of this protocol, see `packets.Wire`.

    Every read is a sync read, of one servo too: what an adapter echoes of it can be no answer.
    """

    chained = False

    def ask(self, servos: Sequence[int], address: int, count: int, again: bool = False) -> bytes:
        return sync_read(servos, address, count)

    def write(self, servo: int, address: int, data: bytes) -> bytes:
        return write(servo, address, data)

    def sync_write(self, address: int, values: Mapping[int, bytes]) -> bytes:
        return sync_write(address, values)

    def ear(self, count: int, servos: int) -> Decoder:
        return Decoder(count, HIGHEST_ID)

    def longest(self, count: int, servos: int) -> int:
        return servos * (count + _OVERHEAD)

    def fared(self, missing: int) -> None:
        return
