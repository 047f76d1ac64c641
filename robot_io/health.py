"""What is wrong with servos: error bits, silence, torque that went away. Numbers in, words out.

Each fault names its servo. It lasts as long as its cause; who latches it is the guard. Before that,
a servo that is hot or strained slows the whole arm down, so that its joints stay together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from robot_io.family import Family
from robot_io.sts import STS

PERSIST = 3  # cycles in a row that error bits have to last: a dip of the supply is over in one
SILENT = 0.5  # s in which it was asked at least PERSIST times without an answer; the guard holds long before
WARM, HOT = 10.0, 2.0  # °C below a servo's own limit where the arm begins to slow down, and is slowest
SLOW = 0.3  # of its speed limits, at the slowest
NEARLY = 0.9  # of the load that a servo calls overload; more than this counts as strain
STANDS = 0.2  # rad/s; a shaft that turns faster is at work, and not pressing on something
ON = 1  # of a torque register
STRAIN = 0.5  # s of that until the arm slows down; the servo lets go by itself after 2 s
RELIEF = 1.0  # s without it until it is as fast as before


@dataclass(frozen=True)
class Rated:
    """What a servo's own settings allow: °C, the part of its torque that is overload, and the most of it."""

    heat: float = 70.0
    load: float = 0.8
    most: float = 1.0


class Health:
    """The memory of one arm's servos."""

    def __init__(
        self, names: Mapping[int, str], rated: Mapping[int, Rated] | None = None, family: Family = STS
    ) -> None:
        """`names`: servo -> what people call it. `rated`: servo -> what it can take."""
        self._family = family
        self._names = dict(names)
        self._rated = {servo: (rated or {}).get(servo, Rated()) for servo in names}
        self._heat = dict.fromkeys(names, 0.0)
        self._strained: dict[int, float | None] = dict.fromkeys(names)  # since when, s
        self._relieved = -math.inf  # when the last strain that counts was over, s
        self._missed: dict[int, list[float]] = {servo: [] for servo in names}  # first and last, s
        self._misses = dict.fromkeys(names, 0)
        self._bits = dict.fromkeys(names, 0)
        self._lasted = dict.fromkeys(names, 0)
        self._limp: set[int] = set()
        self._bitten: set[int] = set()

    def missed(self, servo: int, now: float) -> None:
        """A servo did not answer in this cycle."""
        self._missed[servo] = [*self._missed[servo][:1], now]
        self._misses[servo] += 1

    def heard(self, servo: int, bits: int) -> None:
        """A servo's answer of this cycle, with its error bits."""
        self._missed[servo], self._misses[servo] = [], 0
        self._lasted[servo] = self._lasted[servo] + 1 if bits else 0
        self._bits[servo] = bits

    def felt(self, servo: int, heat: float, load: float, speed: float, now: float) -> None:
        """How hot a servo is, °C, what part of its torque it gives, -1 to 1, and how fast it turns, rad/s."""
        self._heat[servo] = heat
        since = self._strained[servo]
        # A gripper may give just that, see `grip`.
        if abs(load) <= NEARLY * self._rated[servo].load + 1e-3 or abs(speed) > STANDS:
            self._strained[servo] = None
        elif since is None:
            self._strained[servo] = now
        elif now - since >= STRAIN:
            self._relieved = now + RELIEF

    def pace(self, now: float) -> float:
        """The part of its speed limits that the arm should be asked for, `SLOW` to 1."""
        if now < self._relieved or any(bits & self._family.tired for bits in self._bits.values()):
            return SLOW
        left = min(self._rated[servo].heat - heat for servo, heat in self._heat.items())
        share = (left - HOT) / (WARM - HOT)
        return min(1.0, SLOW + (1.0 - SLOW) * max(0.0, share))

    def torque(self, servo: int, value: int) -> None:
        """What a servo's torque register says."""
        (self._limp.discard if value == ON else self._limp.add)(servo)

    def watchdog(self, servo: int, value: int) -> None:
        """What a servo's watchdog register says."""
        (self._bitten.add if value == self._family.bitten else self._bitten.discard)(servo)

    def faults(self) -> tuple[str, ...]:
        """What is wrong, in the order of the servos."""
        return tuple(
            f"{name} (id {servo}): {words}"
            for servo, name in self._names.items()
            if (words := self._words(servo))
        )

    def stopped(self, servo: int) -> bool:
        """Whether its watchdog has stopped it."""
        return servo in self._bitten

    def strained(self, servo: int) -> bool:
        """Whether its last answer had an error bit, or its watchdog stopped it: it is not to press on."""
        return bool(self._bits[servo]) or self.stopped(servo)

    def _words(self, servo: int) -> str:
        found, missed = [], self._missed[servo]
        if self._misses[servo] >= PERSIST and missed[-1] - missed[0] > SILENT:
            found.append("does not answer")
        if self._lasted[servo] >= PERSIST or (servo in self._limp and self._bits[servo]):
            found.append(self._family.told(self._bits[servo]))
        if servo in self._limp:
            found.append("its torque is off: it lost its power, or protects itself")
        if servo in self._bitten:
            found.append("its watchdog stopped it: it heard nothing for a while")
        return ", ".join(found)
