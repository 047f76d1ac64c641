"""An arm under the real guard at the real beat, and what reached its servos, read from their bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from robot_io import calibration
from robot_io import registers as r
from robot_io.arm import Arm
from robot_io.calibration import Joint
from robot_io.emulator import Emulator
from robot_io.feetech import BROADCAST, Instruction, Packet
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from runtime.states import State
from tests.runtime.peers import PATIENCE

RATE = 50.0
IDS = tuple(range(1, 7))
# Registers that reach the line of a running arm.
TOLD = {reg.address for reg in (r.TORQUE, r.ACCELERATION, r.GOAL, r.GOAL_SPEED, r.TORQUE_LIMIT)}


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
    with Arm(emulator.port, calibration.read(emulator.calibration), end, patience=patience) as arm:
        made = Drive(arm, Guard(arm.spec))
        made.until(lambda: made.state is State.RUNNING)
        yield made


@dataclass(frozen=True)
class Write:
    """One value for one servo, or for `BROADCAST`, as it came over the line."""

    time: float
    servo: int
    address: int
    data: bytes
    alone: bool  # a packet of its own, not a share of one to all

    @property
    def value(self) -> int:
        return int.from_bytes(self.data, "little")


def writes(heard: list[tuple[float, Packet]]) -> list[Write]:
    """Every write that reached the servos, oldest first."""
    found = []
    for time, packet in heard:
        data = packet.data
        if packet.code == Instruction.WRITE:
            found.append(Write(time, packet.id, data[0], data[1:], packet.id != BROADCAST))
        elif packet.code == Instruction.SYNC_WRITE:
            rows = [data[i : i + data[1] + 1] for i in range(2, len(data), data[1] + 1)]
            found += [Write(time, row[0], data[0], row[1:], False) for row in rows]
        else:
            assert packet.code in (Instruction.SYNC_READ, Instruction.READ, Instruction.PING), packet
    return found


def check_bytes(emulator: Emulator, arm: Arm) -> list[Write]:
    """No EPROM, no register that has no business there, no goal outside the limits; all writes."""
    told = writes(emulator.heard())
    space = arm.spec.actions
    motors = calibration.read(emulator.calibration)
    limits = {}
    for (joint, motor), low, high in zip(motors.items(), space.lower, space.upper, strict=True):
        scale = Joint.of(joint, motor)
        limits[motor.id] = sorted((scale.steps(low), scale.steps(high)))
    for each in told:
        assert each.address in TOLD, each
        if each.address == r.TORQUE.address:
            assert each.value in (r.OFF, r.ON), each
        if each.address == r.GOAL.address:
            low, high = limits[each.servo]
            assert low <= each.value <= high, each
    return told


def switched(told: list[Write], value: int) -> list[int]:
    """Which servos were switched off or on one by one."""
    return [w.servo for w in told if w.address == r.TORQUE.address and w.value == value and w.alone]


def to_all(told: list[Write], value: int) -> bool:
    """Whether one packet to all switched them."""
    return any(w.servo == BROADCAST and w.address == r.TORQUE.address and w.value == value for w in told)
