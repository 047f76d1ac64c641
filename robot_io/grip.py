"""How hard a gripper may press: with all its torque while it travels, with what it bears for ever on a thing.

A limit on a servo's torque is one on its speed as well. Held to what it may give for ever, less than a
quarter on an SO-101, a jaw takes three times as long to shut, and grasps that were timed for a quicker one
fail. So it has all that its settings allow until it presses on something for a moment, and again when it
lets go of that.
"""

from __future__ import annotations

from collections.abc import Mapping

from robot_io.bodies import GRIPPER, Body
from robot_io.health import NEARLY, STANDS, STRAIN, Rated
from robot_io.registers import TORQUE_LIMIT

PRESSES = 0.6 * STRAIN  # s of strain while it stands: before the arm would slow down for it
TRAVELS = 1.3  # s of strain in any case: more than a whole stroke; an STS3215 protects itself after 2 s
EASED = 0.5  # of what it may give for ever; with less than that it presses no longer
EASES = 2  # answers in a row that say so
REPEAT = 6  # cycles after which it is told again, as nobody answers


class Grip:
    """What the gripper's servo may give, cycle by cycle.

    Attributes:
        servo: which one it is.
        lasting, most: the part of its torque that it may give for ever, and for a moment.
        pressing: whether it has pressed for so long that it is held to the former.
    """

    def __init__(self, servo: int, rated: Rated) -> None:
        self.servo = servo
        self.lasting, self.most = NEARLY * rated.load, rated.most
        self.pressing = True  # it may hold something: what it was switched on with is told first
        self._side = 0.0  # the load with which it pressed
        self._eased = 0  # answers in a row that say that it does no longer
        self._heard: float | None = None  # when it said something, s
        self._strained: float | None = None  # since when, s
        self._stood: float | None = None  # since when it has not even moved for it, s
        self._cycle = 0
        self._told = -1

    def felt(self, load: float, speed: float, now: float) -> None:
        """What part of its torque it gives, -1 to 1, and how fast it turns, rad/s."""
        self._heard = now
        if self.pressing:
            eased = abs(load) < EASED * self.lasting or load * self._side < 0.0
            self._eased = self._eased + 1 if eased else 0
            if self._eased >= EASES:
                self.pressing, self._strained, self._stood = False, None, None
            return
        if abs(load) <= self.lasting + 1e-3:
            self._strained = self._stood = None
            return
        self._strained = now if self._strained is None else self._strained
        self._stood = None if abs(speed) > STANDS else now if self._stood is None else self._stood
        stood = 0.0 if self._stood is None else now - self._stood
        if stood >= PRESSES or now - self._strained >= TRAVELS:
            self.pressing, self._side, self._eased = True, load, 0

    def missed(self, now: float) -> None:
        """It did not answer: after a while nobody knows how long it has pressed."""
        if self._heard is None or now - self._heard >= PRESSES:
            self.pressing, self._eased = True, 0

    def due(self) -> dict[int, int]:
        """What is to be written into its torque limit in this cycle, if anything: servo -> raw value."""
        self._cycle += 1
        value = TORQUE_LIMIT.raw(self.lasting if self.pressing else self.most)
        if value == self._told and self._cycle % REPEAT:
            return {}
        self._told = value
        return {self.servo: value}

    def rest(self) -> dict[int, int]:
        """What is written there when nobody will look after it any more."""
        return {self.servo: TORQUE_LIMIT.raw(self.lasting)}


def of(body: Body, servo: int, rated: Mapping[int, Rated]) -> Grip | None:
    """The grip of an arm whose gripper, that servo, may give more for a moment than for ever; None where it
    may not, or has a register of its own for that.
    """
    if body.model(GRIPPER).grip or TORQUE_LIMIT.name not in body.family.table:
        return None
    made = Grip(servo, rated[servo])
    return made if made.most > made.lasting else None
