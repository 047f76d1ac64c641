"""The registers of Feetech's STS servos: a table, and each value's way to SI and back.

Addresses below 40 are EPROM and survive a power cut; from 40 on it is RAM. Signed values are a magnitude and
a sign bit, not two's complement. Names are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STEPS = 4096  # a turn
RAD = 2.0 * math.pi / STEPS  # a step
RAM = 40  # the first address that is not EPROM
STS3215 = 777  # the model number of the SO-101's servos


@dataclass(frozen=True)
class Register:
    """One value of a servo's table.

    Attributes:
        size: bytes, 1 or 2.
        sign: the bit that says "negative"; None for values that never are.
        unit: what `si` gives; "1" for a ratio, "" for a bare number.
        scale: how much of `unit` one step of the raw value is.
        highest: the greatest magnitude that may be written.
    """

    name: str
    address: int
    size: int = 1
    sign: int | None = None
    unit: str = ""
    scale: float = 1.0
    highest: int | None = None

    @property
    def eprom(self) -> bool:
        return self.address < RAM

    def decode(self, data: bytes) -> int:
        """The raw value, with its sign, of the register's own bytes."""
        value = int.from_bytes(data[: self.size], "little")
        if self.sign is None:
            return value
        magnitude = value & ((1 << self.sign) - 1)
        return -magnitude if value >> self.sign & 1 else magnitude

    def encode(self, value: int) -> bytes:
        """The register's own bytes of a raw value.

        Raises:
            ValueError: a value that the register cannot hold, or may not.
        """
        limit = (1 << (8 * self.size if self.sign is None else self.sign)) - 1
        if self.highest is not None:
            limit = min(limit, self.highest)
        if abs(value) > limit or (value < 0 and self.sign is None):
            raise ValueError(f"{self.name} takes at most {limit}, got {value}")
        bits = value if value >= 0 or self.sign is None else -value | 1 << self.sign
        return bits.to_bytes(self.size, "little")

    def si(self, value: int) -> float:
        """A raw value in the register's unit."""
        return value * self.scale

    def raw(self, value: float) -> int:
        """The raw value nearest to one in the register's unit."""
        return round(value / self.scale)


FIRMWARE = Register("firmware", 0, 2)
MODEL = Register("model", 3, 2)
ID = Register("id", 5)
BAUD = Register("baud", 6)
RETURN_DELAY = Register("return_delay", 7, unit="s", scale=2e-6)
RESPONSE_LEVEL = Register("response_level", 8)
MIN_POSITION = Register("min_position", 9, 2)
MAX_POSITION = Register("max_position", 11, 2)
MAX_TEMPERATURE = Register("max_temperature", 13, unit="°C")
MAX_VOLTAGE = Register("max_voltage", 14, unit="V", scale=0.1)
MIN_VOLTAGE = Register("min_voltage", 15, unit="V", scale=0.1)
MAX_TORQUE = Register("max_torque", 16, 2, unit="1", scale=1e-3)
PHASE = Register("phase", 18)
UNLOAD = Register("unload", 19)
P = Register("p", 21)
D = Register("d", 22)
I = Register("i", 23)  # noqa: E741 (the gains' usual names)
PROTECTION_CURRENT = Register("protection_current", 28, 2, unit="A", scale=6.5e-3)
HOMING_OFFSET = Register("homing_offset", 31, 2, sign=11)
MODE = Register("mode", 33)
PROTECTIVE_TORQUE = Register("protective_torque", 34, unit="1", scale=1e-2)
PROTECTION_TIME = Register("protection_time", 35, unit="s", scale=1e-2)
OVERLOAD = Register("overload", 36, unit="1", scale=1e-2)

# 128 would make the present position the middle one, and so move every limit: it is never written.
TORQUE = Register("torque", 40, highest=2)
ACCELERATION = Register("acceleration", 41, unit="rad/s^2", scale=math.radians(8.7), highest=254)
GOAL = Register("goal", 42, 2, sign=15, unit="rad", scale=RAD, highest=STEPS - 1)
GOAL_TIME = Register("goal_time", 44, 2)
GOAL_SPEED = Register("goal_speed", 46, 2, sign=15, unit="rad/s", scale=RAD)
TORQUE_LIMIT = Register("torque_limit", 48, 2, unit="1", scale=1e-3, highest=1000)
LOCK = Register("lock", 55, highest=1)

POSITION = Register("position", 56, 2, sign=15, unit="rad", scale=RAD)
# Vendor tables and users disagree whether one step is 1 or 50 steps/s. What presses and stands is told by it
# from what turns: with the larger unit a jaw that travels with strain would be eased too early, and be slow.
VELOCITY = Register("velocity", 58, 2, sign=15, unit="rad/s", scale=RAD)
LOAD = Register("load", 60, 2, sign=10, unit="1", scale=1e-3)
VOLTAGE = Register("voltage", 62, unit="V", scale=0.1)
TEMPERATURE = Register("temperature", 63, unit="°C")
STATUS = Register("status", 65)
MOVING = Register("moving", 66)
TARGET = Register("target", 67, 2, sign=15, unit="rad", scale=RAD)
CURRENT = Register("current", 69, 2, sign=15, unit="A", scale=6.5e-3)
MAX_ACCELERATION = Register("max_acceleration", 85, highest=254)

OFF, ON, DAMPING = 0, 1, 2  # what `TORQUE` takes

TABLE: dict[str, Register] = {r.name: r for r in list(globals().values()) if isinstance(r, Register)}

# One block holds all that a servo has to say about itself: 1.4 ms for six of them.
FEEDBACK = (POSITION, VELOCITY, LOAD, VOLTAGE, TEMPERATURE, STATUS, MOVING, TARGET, CURRENT)
FEEDBACK_AT, FEEDBACK_SIZE = 56, 15


def pick(register: Register, block: bytes, start: int) -> int:
    """A register's raw value out of a block that was read from address `start`."""
    return register.decode(block[register.address - start :])
