"""A servo's shaft, made of numbers: how it moves, what load it bears, how warm it gets.

Pure functions of the time that is given. A family's own servo says what it wants and what limits it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

STEP = 0.001  # s of motion at a time
LONGEST = 2.0  # s of motion caught up at once; a longer stall loses time
QUICKEST = 40_000.0  # steps/s^2, what the motor can do
LAG = 0.02  # s, of the position loop
STALL = 40.0  # steps of error at which a motor that is held gives all it has
AMBIENT = 25.0  # °C
NEAR = 0.05  # steps; nearer is there


class Shaft(ABC):
    """One servo's shaft.

    Attributes:
        actual: where it stands, steps.
        velocity, load: steps/s, and the part of the torque it takes.
        stuck, dead: something holds the shaft; it neither moves nor hears.
        led: a plant moves the shaft, see `lead`; without one a servo moves its own.
        fastest: steps/s, without load.
    """

    fastest: float

    def __init__(self, actual: float, now: float) -> None:
        self.actual, self.velocity, self.load = actual, 0.0, 0.0
        self.temperature = AMBIENT
        self.stuck, self.dead, self.led = False, False, False
        self._left = actual  # where it was last driven
        self._time = now

    @property
    @abstractmethod
    def driven(self) -> bool:
        """Whether its motor goes for a goal."""

    @abstractmethod
    def goal(self) -> float:
        """Where it goes, steps of `actual`."""

    @abstractmethod
    def limits(self) -> tuple[float, float]:
        """Speed and acceleration that its registers allow, steps/s and steps/s^2."""

    @abstractmethod
    def strength(self) -> float:
        """The part of its torque that it may give now."""

    @abstractmethod
    def strain(self, seconds: float) -> None:
        """It has borne `load` for so long: what protects it does so."""

    def aim(self) -> float:
        """Where a plant should have the shaft, steps of `actual`: the goal, or where it was last driven."""
        if not self.driven or self.stuck:
            return self._left
        self._left = self.actual
        return self.goal()

    def lead(self, actual: float, velocity: float, load: float) -> None:
        """What the plant says of the shaft: steps, steps/s, and the part of the torque it takes."""
        self.actual, self.velocity, self.load = actual, velocity, load

    def halt(self, now: float) -> None:
        """It stands still from now on."""
        self._time, self.velocity, self.load, self._left = now, 0.0, 0.0, self.actual

    def advance(self, now: float) -> None:
        """Move on to `now`."""
        elapsed = min(now - self._time, LONGEST)
        steps = int(elapsed / STEP + 1e-6)
        if steps <= 0:
            return
        self._time = now - (elapsed - steps * STEP)
        if self.led:
            self._protect(steps * STEP)
            return
        goal = self.goal()
        speed, quick = self.limits()
        for _ in range(steps):
            if not self.driven or (abs(goal - self.actual) < NEAR and abs(self.velocity) < 1.0):
                self.velocity, self.load = 0.0, 0.0
                self._protect((steps - 1) * STEP)
                break
            self._move(goal, min(speed, self.fastest), min(quick, QUICKEST))
            self._protect(STEP)

    def _move(self, goal: float, speed: float, quick: float) -> None:
        gap = goal - self.actual
        limit = self.strength()
        if self.stuck:
            self.velocity = 0.0
            self.load = math.copysign(min(limit, abs(gap) / STALL), gap)
            return
        wanted = min(speed, abs(gap) / LAG, math.sqrt(2.0 * quick * abs(gap)))
        change = math.copysign(wanted, gap) - self.velocity
        change = max(-quick * STEP, min(quick * STEP, change))
        self.velocity += change
        self.actual += self.velocity * STEP
        load = 0.08 * self.velocity / self.fastest + 0.25 * change / (QUICKEST * STEP)
        self.load = max(-limit, min(limit, load))

    def _protect(self, seconds: float) -> None:
        drift = (AMBIENT - self.temperature) / 120.0 + self.load**2
        self.temperature += drift * min(seconds, 60.0)
        self.strain(seconds)
