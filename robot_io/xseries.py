"""Dynamixel's X series as a family: its registers, by the vendor's tables of XL430-W250 and XL330-M288.

Addresses below 64 are EEPROM, written only while the torque is off. Signed values are two's complement.
Address 126 is a load in an XL430, which measures no current, and a current in an XL330.

A cycle reads 126 to 146 of all servos, 21 bytes each: 1.78 ms for six of them in one fast sync read, 2.12 by
a sync read. Register 70, the errors, is 56 bytes before that; with it in the block it would be 5 ms. So it is
read when a servo's alert bit is up, and of one servo in turn besides. The vendor's indirect addresses would
bring it nearer, but an XL330 has their data at 208 to 227 and an XL430 at 224 to 251, and a sync read has one
address for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from robot_io import dynamixel, registers
from robot_io.family import Family, Model

RAM = 64  # the first address that is not EEPROM
TURNS = 256 * registers.STEPS - 1  # steps of a goal beyond a turn's, in both directions
POSITION_MODE, EXTENDED, CURRENT_BASED = 3, 4, 5  # of `MODE`, those that go for a position


@dataclass(frozen=True)
class Register(registers.Register):
    """One value of the X series' table; `sign` is its highest bit, for those that may be negative."""

    @property
    def eprom(self) -> bool:
        return self.address < RAM

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data[: self.size], "little", signed=self.sign is not None)

    def encode(self, value: int) -> bytes:
        try:
            if self.highest is not None and abs(value) > self.highest:
                raise OverflowError
            return value.to_bytes(self.size, "little", signed=self.sign is not None)
        except OverflowError:
            raise ValueError(f"{self.name} cannot hold {value}") from None


_RAD = registers.RAD
_SPEED = 0.229 * 2.0 * math.pi / 60.0  # rad/s a step
_QUICK = 214.577 * 2.0 * math.pi / 3600.0  # rad/s^2 a step

MODEL = Register("model", 0, 2)
FIRMWARE = Register("firmware", 6)
ID = Register("id", 7)
BAUD = Register("baud", 8)
RETURN_DELAY = Register("return_delay", 9, unit="s", scale=2e-6)
DRIVE_MODE = Register("drive_mode", 10)
MODE = Register("mode", 11)
HOMING_OFFSET = Register("homing_offset", 20, 4, 31, highest=1_044_479)
MAX_TEMPERATURE = Register("max_temperature", 31, unit="°C")
MAX_VOLTAGE = Register("max_voltage", 32, 2, unit="V", scale=0.1)
MIN_VOLTAGE = Register("min_voltage", 34, 2, unit="V", scale=0.1)
CURRENT_LIMIT = Register("current_limit", 38, 2, unit="A", scale=1e-3)
MAX_POSITION = Register("max_position", 48, 4, highest=registers.STEPS - 1)
MIN_POSITION = Register("min_position", 52, 4, highest=registers.STEPS - 1)
SHUTDOWN = Register("shutdown", 63)

TORQUE = Register("torque", 64, highest=1)
STATUS_LEVEL = Register("status_level", 68, highest=2)
HARDWARE_ERROR = Register("hardware_error", 70)
D = Register("d", 80, 2)
I = Register("i", 82, 2)  # noqa: E741 (the gains' usual names)
P = Register("p", 84, 2)
WATCHDOG = Register("watchdog", 98, 1, 7, "s", 0.02)
GOAL_CURRENT = Register("goal_current", 102, 2, 15, "A", 1e-3)
PROFILE_ACCELERATION = Register("profile_acceleration", 108, 4, unit="rad/s^2", scale=_QUICK, highest=32_767)
PROFILE_VELOCITY = Register("profile_velocity", 112, 4, unit="rad/s", scale=_SPEED, highest=32_767)
GOAL = Register("goal", 116, 4, 31, "rad", _RAD, highest=TURNS)
MOVING = Register("moving", 122)
EFFORT = Register("effort", 126, 2, 15)  # what it is differs from model to model
VELOCITY = Register("velocity", 128, 4, 31, "rad/s", _SPEED)
POSITION = Register("position", 132, 4, 31, "rad", _RAD)
VOLTAGE = Register("voltage", 144, 2, unit="V", scale=0.1)
TEMPERATURE = Register("temperature", 146, unit="°C")

TABLE: dict[str, registers.Register] = {
    r.name: r for r in list(globals().values()) if isinstance(r, Register)
}

_STALL = 1.47  # A that a held XL330-M288 takes at 5 V
_GRIP = (
    0.35  # A; of that a quarter, as much as an SO-101's gripper gets. The vendor names no lasting current.
)
XL430_W250 = Model("XL430-W250", 1060, Register("load", 126, 2, 15, "1", 1e-3), None)
XL330_M288 = Model(
    "XL330-M288",
    1200,
    Register("load", 126, 2, 15, "1", 1e-3 / _STALL),
    Register("current", 126, 2, 15, "A", 1e-3),
    grip={GOAL_CURRENT: GOAL_CURRENT.raw(_GRIP)},
)
XL330_M077 = replace(XL330_M288, name="XL330-M077", number=1190)  # other gears

X = Family(
    name="X series",
    wire=dynamixel.Wire,
    highest=dynamixel.HIGHEST_ID,
    table=TABLE,
    feedback=(EFFORT.address, 21),
    # Whether a servo is on, its errors, and whether its watchdog stopped it.
    audit=(TORQUE.address, 35),
    described=147,
    running=frozenset(
        {TORQUE, STATUS_LEVEL, P, I, D, WATCHDOG, GOAL_CURRENT, PROFILE_ACCELERATION, PROFILE_VELOCITY, GOAL}
    ),
    # No profile: the guard limits it, the servo only follows. A watchdog that has bitten lets no goal in.
    begin={STATUS_LEVEL: 2, WATCHDOG: 0, PROFILE_ACCELERATION: 0, PROFILE_VELOCITY: 0},
    lock=None,
    watchdog=WATCHDOG,
    bite=WATCHDOG.raw(0.5),  # as old as an action may be
    bitten=-1,
    error=HARDWARE_ERROR,
    alert=dynamixel.ALERT,
    told=dynamixel.hardware,
    tired=0x04 | 0x20,
    offset=-1,
    turns=True,
    furthest=1_044_479,
    counts=True,
)
