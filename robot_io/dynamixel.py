"""Dynamixel's protocol 2.0: packets to bytes, and bytes off a noisy line to packets. Pure functions.

    instruction  FF FF FD 00 | id | length, 2 | instruction | parameters | CRC, 2
    status       FF FF FD 00 | id | length, 2 | 55 | error  | data       | CRC, 2

Numbers are little-endian, signed ones two's complement. `length` counts what follows it. FF FF FD inside is
sent as FF FF FD FD, so that no header appears in a packet; `length` and CRC are those of what is sent. The
one answer of several servos to a fast sync read is not stuffed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from robot_io import packets

BROADCAST = 0xFE
HIGHEST_ID = 0xFC
_HEADER = b"\xff\xff\xfd\x00"
_STUFFED = b"\xff\xff\xfd"
_AROUND = 7  # bytes up to and with the length
_LONGEST = 1024  # what `length` may say; more is noise


class Instruction(enum.IntEnum):
    """What a servo can be asked; STATUS is what it answers."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    REBOOT = 0x08
    STATUS = 0x55
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    FAST_SYNC_READ = 0x8A


# The error byte: bit 7 says that register 70 tells more, the rest is one of these.
ERRORS = {1: "result", 2: "instruction", 3: "checksum", 4: "range", 5: "length", 6: "limit", 7: "access"}
ALERT = 0x80
# The bits of register 70.
HARDWARE = {0x01: "voltage", 0x04: "overheat", 0x08: "encoder", 0x10: "shock", 0x20: "overload"}


def told(error: int) -> str:
    """An error byte in words, "" for none."""
    words = ["hardware alert"] if error & ALERT else []
    rest = error & ~ALERT
    return ", ".join(words + ([ERRORS.get(rest, f"error {rest:#04x}")] if rest else []))


def hardware(bits: int) -> str:
    """Bits of register 70 in words, "" for none; with `ALERT` where there are some that are not known."""
    names = [name for bit, name in HARDWARE.items() if bits & bit]
    rest = bits & ~sum(HARDWARE) & ~ALERT
    alert = ["hardware alert"] if bits == ALERT else []
    return ", ".join(alert + names + ([f"error {rest:#04x}"] if rest else []))


def _table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        crc = value << 8
        for _ in range(8):
            crc = (crc << 1) ^ (0x8005 if crc & 0x8000 else 0)
        rows.append(crc & 0xFFFF)
    return tuple(rows)


_CRC = _table()


def crc(line: bytes) -> int:
    """CRC-16 with the polynomial 0x8005, from 0, most significant bit first."""
    value = 0
    for byte in line:
        value = (value << 8 & 0xFFFF) ^ _CRC[value >> 8 ^ byte]
    return value


@dataclass(frozen=True)
class Packet:
    """What stood between a header and a CRC that was right.

    Attributes:
        code: the instruction; `Instruction.STATUS` for an answer.
        data: parameters or data, unstuffed; a status packet's error byte is not among them.
        error: a status packet's error byte, 0 in an instruction.
    """

    id: int
    code: int
    data: bytes = b""
    error: int = 0


def encode(packet: Packet) -> bytes:
    """A packet as it goes over the line.

    Raises:
        ValueError: an id above 0xFE, a code or an error above 0xFF, an instruction with an error, or more
            than a packet may hold.
    """
    status = packet.code == Instruction.STATUS
    if packet.id > BROADCAST or (packet.error and not status):
        raise ValueError(f"an id is at most {HIGHEST_ID}, and only a status has an error; got {packet}")
    body = bytes((packet.code, packet.error) if status else (packet.code,)) + packet.data
    if not status or packet.id != BROADCAST:
        body = body.replace(_STUFFED, _STUFFED + b"\xfd")
    if len(body) + 2 > _LONGEST:
        raise ValueError(f"a packet holds at most {_LONGEST - 2} bytes, got {len(body)}")
    line = _HEADER + bytes((packet.id,)) + (len(body) + 2).to_bytes(2, "little") + body
    return line + crc(line).to_bytes(2, "little")


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "little") for value in values)


def ping(servo: int) -> bytes:
    """Answered with the model (2 bytes) and the firmware (1)."""
    return encode(Packet(servo, Instruction.PING))


def read(servo: int, address: int, count: int) -> bytes:
    return encode(Packet(servo, Instruction.READ, _words(address, count)))


def write(servo: int, address: int, data: bytes) -> bytes:
    return encode(Packet(servo, Instruction.WRITE, _words(address) + data))


def sync_read(servos: Iterable[int], address: int, count: int) -> bytes:
    """The same registers of several servos; each answers with a packet of its own, in this order."""
    return encode(Packet(BROADCAST, Instruction.SYNC_READ, _words(address, count) + bytes(servos)))


def sync_write(address: int, values: Mapping[int, bytes]) -> bytes:
    """The same registers of several servos, each its own value; nobody answers.

    Raises:
        ValueError: values of different lengths, or none.
    """
    lengths = {len(value) for value in values.values()}
    if len(lengths) != 1:
        raise ValueError(f"values of one length, got {sorted(lengths)}")
    rows = b"".join(bytes((servo,)) + value for servo, value in values.items())
    return encode(Packet(BROADCAST, Instruction.SYNC_WRITE, _words(address, *lengths) + rows))


def fast_sync_read(servos: Iterable[int], address: int, count: int) -> bytes:
    """As `sync_read`, but all answer in one packet, see `shares`."""
    return encode(Packet(BROADCAST, Instruction.FAST_SYNC_READ, _words(address, count) + bytes(servos)))


def shares(packet: Packet, count: int) -> list[Packet] | None:
    """What each servo contributed to the one answer to `fast_sync_read`; None where it has another shape.

    error | id | data | CRC, 2 | error | id | data | CRC, 2 | ...      the last CRC is the packet's own
    """
    rows, width = bytes((packet.error,)) + packet.data, count + 4
    if packet.id != BROADCAST or packet.code != Instruction.STATUS or (len(rows) + 2) % width:
        return None
    starts = range(0, len(rows) + 2, width)
    return [Packet(rows[i + 1], Instruction.STATUS, rows[i + 2 : i + 2 + count], rows[i]) for i in starts]


def joined(answers: Sequence[Packet], servos: int, count: int) -> list[bytes]:
    """The one answer of several servos to `fast_sync_read`: what each of them sends, as far as they do.

    Its length is that of all `servos`, and each part ends with the CRC of everything up to there.
    """
    length = 1 + servos * (4 + count)
    line = _HEADER + bytes((BROADCAST,)) + length.to_bytes(2, "little") + bytes((Instruction.STATUS,))
    parts: list[bytes] = []
    for answer in answers:
        begun = len(line) if parts else 0
        line += bytes((answer.error, answer.id)) + answer.data
        line += crc(line).to_bytes(2, "little")
        parts.append(line[begun:])
    return parts


class Decoder(packets.Decoder[Packet]):
    """Packets of this protocol out of a stream, see `packets.Decoder`."""

    header = _HEADER

    def __init__(self, longest: int = _LONGEST) -> None:
        """`longest`: bytes that `length` may say; more counts as noise, and cannot swallow what follows."""
        super().__init__()
        self._longest = longest

    def _size(self, at: int) -> int | None:
        buffer = self._buffer
        if len(buffer) < at + _AROUND:
            return None
        length = int.from_bytes(buffer[at + 5 : at + 7], "little")
        if buffer[at + 4] > BROADCAST or not 3 <= length <= self._longest:
            return 0
        size = length + _AROUND
        return size if len(buffer) >= at + size else None

    def _packet(self, line: bytes) -> Packet | None:
        if crc(line[:-2]) != int.from_bytes(line[-2:], "little"):
            return None
        body = line[_AROUND:-2]
        if body[0] != Instruction.STATUS:
            return Packet(line[4], body[0], _plain(body)[1:])
        # What all say together is not stuffed: each writes its part without knowing those of the others.
        body = body if line[4] == BROADCAST else _plain(body)
        return Packet(line[4], body[0], body[2:], body[1]) if len(body) > 1 else None


def _plain(body: bytes) -> bytes:
    return body.replace(_STUFFED + b"\xfd", _STUFFED)


def split(packet: Packet) -> list[Packet]:
    """An instruction to several servos as one to each; others as they are, and none that makes no sense."""
    code, data = packet.code, packet.data
    if code in (Instruction.SYNC_READ, Instruction.FAST_SYNC_READ) and len(data) > 4:
        return [Packet(servo, Instruction.READ, data[:4]) for servo in data[4:]]
    if code == Instruction.SYNC_WRITE and len(data) > 4:
        width = int.from_bytes(data[2:4], "little") + 1
        rows = [data[i : i + width] for i in range(4, len(data) - width + 1, width)]
        return [Packet(row[0], Instruction.WRITE, data[:2] + row[1:]) for row in rows]
    short: dict[int, int] = {Instruction.READ: 4, Instruction.WRITE: 3, Instruction.REG_WRITE: 3}
    several = (Instruction.SYNC_READ, Instruction.FAST_SYNC_READ, Instruction.SYNC_WRITE)
    return [] if code in several or len(data) < short.get(code, 0) else [packet]


class Ear(Decoder):
    """Status packets with `count` bytes of data, and such packets of all servos in one."""

    def __init__(self, count: int, servos: int) -> None:
        # Stuffing adds a byte to three at the most.
        super().__init__(max(4 + count + count // 3, 4 + servos * (count + 4)))
        self._count = count

    def hear(self, piece: bytes) -> list[Packet]:
        """The answers that `piece` completes, oldest first."""
        found: list[Packet] = []
        for packet in self.feed(piece):
            if packet.id == BROADCAST:
                found += shares(packet, self._count) or []
            elif packet.code == Instruction.STATUS and len(packet.data) == self._count:
                found.append(packet)
        return found


class Wire:
    """A master's side of this protocol, see `packets.Wire`.

    Several servos are asked by a fast sync read, whose one answer saves a header and a length each: 34 of 212
    bytes for six servos with 21 bytes each. It fails as a whole where one servo is dead, and old firmware
    does not know it. So what is missing is asked again, and after `GIVE_UP` fast reads in a row of which
    something was missing a sync read takes their place, but for one in `AGAIN`.
    """

    GIVE_UP, AGAIN = 3, 256
    chained = True

    def __init__(self) -> None:
        self._failed = self._asked = 0
        self._fast = False  # whether the last request was one

    def ask(self, servos: Sequence[int], address: int, count: int, again: bool = False) -> bytes:
        self._asked += 1
        may = self._failed < self.GIVE_UP or self._asked % self.AGAIN == 0
        self._fast = not again and len(servos) > 1 and may
        return (fast_sync_read if self._fast else sync_read)(servos, address, count)

    def write(self, servo: int, address: int, data: bytes) -> bytes:
        return write(servo, address, data)

    def sync_write(self, address: int, values: Mapping[int, bytes]) -> bytes:
        return sync_write(address, values)

    def ear(self, count: int, servos: int) -> Ear:
        return Ear(count, servos)

    def longest(self, count: int, servos: int) -> int:
        return servos * (count + 4 + _AROUND)

    def fared(self, missing: int) -> None:
        if self._fast:
            self._failed = self._failed + 1 if missing else 0
