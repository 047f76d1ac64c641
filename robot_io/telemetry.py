"""All that an arm's servos said last, in SI units and by joint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from robot_io.calibration import Joint
from robot_io.family import Family, Model
from robot_io.registers import Register, pick


class Telemetry:
    """Shape (6,) each, by joint; NaN before a servo has said anything.

    Attributes:
        time: when each was asked, s, monotonic.
        position, velocity, load: rad, rad/s, and the part of its torque that it gives, -1 to 1.
        voltage, temperature: V, °C.
        current: A; NaN for a servo that does not measure it.
        status: error bits.
    """

    def __init__(self, family: Family, models: Sequence[Model], joints: Sequence[Joint], now: float) -> None:
        self._family, self._models, self._joints = family, models, joints
        count = len(joints)
        self.time, self.status = np.full(count, now), np.zeros(count, int)
        self.position, self.velocity, self.load = (np.full(count, np.nan) for _ in range(3))
        self.voltage, self.temperature, self.current = (np.full(count, np.nan) for _ in range(3))

    def keep(self, i: int, block: bytes, bits: int, now: float) -> None:
        """What the servo of joint `i` said: the block of its feedback, and its error bits."""
        family, model, joint = self._family, self._models[i], self._joints[i]

        def raw(register: Register) -> int:
            return pick(register, block, family.feedback[0])

        def si(register: Register) -> float:
            return register.si(raw(register))

        self.time[i], self.status[i] = now, bits
        self.position[i] = joint.angle(raw(family.position))
        self.velocity[i] = joint.sign * si(family.velocity)
        self.load[i] = joint.sign * si(model.load)
        self.voltage[i], self.temperature[i] = si(family.voltage), si(family.temperature)
        self.current[i] = math.nan if model.current is None else si(model.current)

    def strain(self, i: int) -> tuple[float, float, float]:
        """Temperature, load and velocity of joint `i`."""
        return float(self.temperature[i]), float(self.load[i]), float(self.velocity[i])
