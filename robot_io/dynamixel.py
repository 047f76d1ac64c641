"""Dynamixel's protocol 2.0: packets to bytes, and bytes off a noisy line to packets. Pure functions.

    instruction  FF FF FD 00 | id | length, 2 | instruction | parameters | CRC, 2
    status       FF FF FD 00 | id | length, 2 | 55 | error  | data       | CRC, 2

Numbers are little-endian, signed ones two's complement. `length` counts what follows it. FF FF FD inside is
sent as FF FF FD FD, so that no header appears in a packet; `length` and CRC are those of what is sent.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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


class Decoder:
    """Packets out of a stream of bytes that may be cut anywhere and have noise between them.

    Attributes:
        skipped: bytes thrown away so far.
        broken: headers so far whose CRC was wrong, or whose content was.
    """

    def __init__(self, longest: int = _LONGEST) -> None:
        """`longest`: bytes that `length` may say; more counts as noise, and cannot swallow what follows."""
        self._longest = longest
        self._buffer = bytearray()
        self.skipped = self.broken = 0

    def feed(self, piece: bytes) -> list[Packet]:
        """The packets that `piece` completes, oldest first."""
        buffer, found, at = self._buffer, [], 0
        buffer += piece
        while True:
            start = buffer.find(_HEADER, at)
            if start < 0:
                start = max(at, len(buffer) - _begun(buffer))
                self.skipped += start - at
                at = start
                break
            self.skipped += start - at
            at = start
            size = self._size(at)
            if size is None:
                break
            packet = _packet(bytes(buffer[at : at + size])) if size else None
            if packet is not None:
                found.append(packet)
                at += size
                continue
            self.broken += size > 0
            self.skipped += 1
            at += 1
        del buffer[:at]
        return found

    def _size(self, at: int) -> int | None:
        """Bytes of the packet whose header is at `at`; 0 where none can be, None until more has come."""
        buffer = self._buffer
        if len(buffer) < at + _AROUND:
            return None
        length = int.from_bytes(buffer[at + 5 : at + 7], "little")
        if buffer[at + 4] > BROADCAST or not 3 <= length <= self._longest:
            return 0
        size = length + _AROUND
        return size if len(buffer) >= at + size else None


def _begun(buffer: bytearray) -> int:
    """How many bytes at the end may be the beginning of a header."""
    return next((n for n in (3, 2, 1) if buffer.endswith(_HEADER[:n])), 0)


def _packet(line: bytes) -> Packet | None:
    """A packet of exactly these bytes; None where they are none."""
    if crc(line[:-2]) != int.from_bytes(line[-2:], "little"):
        return None
    body = line[_AROUND:-2].replace(_STUFFED + b"\xfd", _STUFFED)
    if body[0] != Instruction.STATUS:
        return Packet(line[4], body[0], body[1:])
    return Packet(line[4], body[0], body[2:], body[1]) if len(body) > 1 else None


@dataclass(frozen=True)
class Register:
    """One value of the X series' table; `si` gives `unit`."""

    name: str
    address: int
    size: int
    signed: bool = False
    unit: str = ""
    scale: float = 1.0

    @property
    def eprom(self) -> bool:
        """Written only while the torque is off."""
        return self.address < 64

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data[: self.size], "little", signed=self.signed)

    def encode(self, value: int) -> bytes:
        """Raises ValueError where the register cannot hold the value."""
        try:
            return value.to_bytes(self.size, "little", signed=self.signed)
        except OverflowError:
            raise ValueError(f"{self.name} cannot hold {value}") from None

    def si(self, value: int) -> float:
        return value * self.scale

    def raw(self, value: float) -> int:
        return round(value / self.scale)


_RAD = 2.0 * math.pi / 4096
_SPEED = 0.229 * 2.0 * math.pi / 60.0  # rad/s a step

MODEL = Register("model", 0, 2)
HOMING_OFFSET = Register("homing_offset", 20, 4, True, "rad", _RAD)
MAX_POSITION = Register("max_position", 48, 4, False, "rad", _RAD)
MIN_POSITION = Register("min_position", 52, 4, False, "rad", _RAD)
TORQUE = Register("torque", 64, 1)
HARDWARE_ERROR = Register("hardware_error", 70, 1)
WATCHDOG = Register("watchdog", 98, 1, True, "s", 0.02)
GOAL = Register("goal", 116, 4, True, "rad", _RAD)
CURRENT = Register("current", 126, 2, True)  # its unit differs from model to model
VELOCITY = Register("velocity", 128, 4, True, "rad/s", _SPEED)
POSITION = Register("position", 132, 4, True, "rad", _RAD)
VOLTAGE = Register("voltage", 144, 2, False, "V", 0.1)
TEMPERATURE = Register("temperature", 146, 1, False, "°C")

TABLE: dict[str, Register] = {r.name: r for r in list(globals().values()) if isinstance(r, Register)}
