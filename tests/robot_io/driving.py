"""An arm under the real guard at the real beat, and what reached its servos, read from their bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_io import calibration, dynamixel
from robot_io import registers as r
from robot_io.arm import Arm
from robot_io.calibration import Joint
from robot_io.emulator import Emulator
from robot_io.feetech import Instruction
from robot_io.sts import STS
from robot_io.xseries import X
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from runtime.states import State
from tests.runtime.peers import PATIENCE

RATE = 50.0
IDS = tuple(range(1, 7))
BROADCAST = 0xFE
# Registers that reach the line of a running arm.
TOLD = {
    "STS": {"torque", "acceleration", "goal", "goal_speed", "torque_limit"},
    "X series": {
        "torque", "status_level", "p", "i", "d", "watchdog", "goal_current", "profile_acceleration",
        "profile_velocity", "goal",
    },
}  # fmt: skip


def wave(now: float) -> np.ndarray:
    """A target that wants more than any limit allows, `now` s after the beginning, shape (6,), rad."""
    return 4.0 * np.sin(2.0 * now + 0.5 + np.array([0, 1, 3, 2, 3, 0.5]))


@dataclass
class Drive:
    """An arm that is driven.

    Attributes:
        arm, guard: as the loop has them.
        poses: what was read, (time of the observation, state shape (6,)).
        origin: when it began, s; a target's time is counted from here.
    """

    arm: Arm
    guard: Guard
    poses: list[tuple[float, np.ndarray]] = field(default_factory=list)
    origin: float = 0.0

    @property
    def state(self) -> State:
        return self.guard.status.state

    @property
    def told(self) -> str:
        """What led to the last change of state."""
        return "; ".join(self.guard.history[-1][3])

    def until(
        self,
        over: Callable[[], object],
        target: Callable[[float], np.ndarray | None] = wave,
        every: Callable[[], None] = lambda: None,
    ) -> None:
        """Tick until `over()`; a test fails when that does not come."""
        clock = MonotonicClock()
        begun = clock.now()
        self.origin = self.origin or begun
        for scheduled, now in Ticker(clock, 1.0 / RATE):
            seen = self.arm.read()
            self.poses.append((seen.time, seen.state))
            self.arm.write(self.guard(target(now - self.origin), seen, now, now - scheduled))
            every()
            if over():
                return
            assert now - begun < PATIENCE, f"{self.state.name}: {self.told}"

    def run(self, ticks: int, target: Callable[[float], np.ndarray | None] = wave) -> None:
        end = len(self.poses) + ticks
        self.until(lambda: len(self.poses) >= end, target)


@contextlib.contextmanager
def drive(emulator: Emulator, end: str = "park", patience: float = 0.05) -> Iterator[Drive]:
    """The arm, entered and running."""
    with metal(emulator, end=end, patience=patience) as arm:
        made = Drive(arm, Guard(arm.spec))
        made.until(lambda: made.state is State.RUNNING)
        yield made


def metal(emulator: Emulator, **options: Any) -> Arm:
    """The arm that those servos are."""
    body = emulator.body
    return Arm(emulator.port, calibration.read(emulator.calibration, body), body=body, **options)


@dataclass(frozen=True)
class Write:
    """One value for one servo, or for `BROADCAST`, as it came over the line."""

    time: float
    servo: int
    name: str  # of the register, "" where none begins there
    address: int
    data: bytes
    alone: bool  # a packet of its own, not a share of one to all
    value: int


def writes(heard: list[tuple[float, Any]]) -> list[Write]:
    """Every write that reached the servos, oldest first."""
    found = []
    for time, packet in heard:
        wide = isinstance(packet, dynamixel.Packet)
        data, width = packet.data, 2 if wide else 1
        address, rest = int.from_bytes(data[:width], "little"), data[width:]
        if packet.code == Instruction.WRITE:
            rows = [(packet.id, rest, packet.id != BROADCAST)]
        elif packet.code == Instruction.SYNC_WRITE:
            size, rest = int.from_bytes(rest[:width], "little") + 1, rest[width:]
            rows = [(rest[i], rest[i + 1 : i + size], False) for i in range(0, len(rest), size)]
        else:
            asked = (Instruction.SYNC_READ, Instruction.READ, Instruction.PING)
            assert packet.code in (*asked, dynamixel.Instruction.FAST_SYNC_READ), packet
            continue
        table = {register.address: register for register in (X if wide else STS).table.values()}
        register = table.get(address)
        for servo, value, alone in rows:
            number = register.decode(value) if register else -1
            found.append(Write(time, servo, register.name if register else "", address, value, alone, number))
    return found


def limits(emulator: Emulator, arm: Arm) -> dict[int, list[int]]:
    """Servo -> the least and the greatest step that its goal may be."""
    space, found = arm.spec.actions, {}
    motors = calibration.read(emulator.calibration, emulator.body)
    for (joint, motor), low, high in zip(motors.items(), space.lower, space.upper, strict=True):
        scale = Joint.of(joint, motor, emulator.body)
        found[motor.id] = sorted((scale.steps(low), scale.steps(high)))
    return found


def check_bytes(emulator: Emulator, arm: Arm) -> list[Write]:
    """No EPROM, no register that has no business there, no goal outside the limits; all writes."""
    told, within = writes(emulator.heard()), limits(emulator, arm)
    for each in told:
        assert each.name in TOLD[emulator.body.family.name], each
        if each.name == "torque":
            assert each.value in (r.OFF, r.ON), each
        if each.name == "goal":
            low, high = within[each.servo]
            assert low <= each.value <= high, each
    return told


def switched(told: list[Write], value: int) -> list[int]:
    """Which servos were switched off or on one by one."""
    return [w.servo for w in told if w.name == "torque" and w.value == value and w.alone]


def to_all(told: list[Write], value: int) -> bool:
    """Whether one packet to all switched them."""
    return any(w.servo == BROADCAST and w.name == "torque" and w.value == value for w in told)
