"""What is wrong with servos: error bits, silence, torque that went away. Numbers in, words out.

Each fault names its servo. It lasts as long as its cause; who latches it is the guard.
"""

from __future__ import annotations

from collections.abc import Mapping

from robot_io import feetech
from robot_io import registers as r

PERSIST = 3  # cycles in a row that error bits have to last: a dip of the supply is over in one
SILENT = 0.5  # s in which it was asked at least PERSIST times without an answer; the guard holds long before


class Health:
    """The memory of one arm's servos."""

    def __init__(self, names: Mapping[int, str]) -> None:
        """`names`: servo -> what people call it."""
        self._names = dict(names)
        self._missed: dict[int, list[float]] = {servo: [] for servo in names}  # first and last, s
        self._misses = dict.fromkeys(names, 0)
        self._bits = dict.fromkeys(names, 0)
        self._lasted = dict.fromkeys(names, 0)
        self._limp: set[int] = set()

    def missed(self, servo: int, now: float) -> None:
        """A servo did not answer in this cycle."""
        self._missed[servo] = [*self._missed[servo][:1], now]
        self._misses[servo] += 1

    def heard(self, servo: int, bits: int) -> None:
        """A servo's answer of this cycle, with its error bits."""
        self._missed[servo], self._misses[servo] = [], 0
        self._lasted[servo] = self._lasted[servo] + 1 if bits else 0
        self._bits[servo] = bits

    def torque(self, servo: int, value: int) -> None:
        """What a servo's torque register says."""
        (self._limp.discard if value == r.ON else self._limp.add)(servo)

    def faults(self) -> tuple[str, ...]:
        """What is wrong, in the order of the servos."""
        return tuple(
            f"{name} (id {servo}): {words}"
            for servo, name in self._names.items()
            if (words := self._words(servo))
        )

    def strained(self, servo: int) -> bool:
        """Whether its last answer had an error bit: it should not go on pressing."""
        return bool(self._bits[servo])

    def _words(self, servo: int) -> str:
        found, missed = [], self._missed[servo]
        if self._misses[servo] >= PERSIST and missed[-1] - missed[0] > SILENT:
            found.append("does not answer")
        if self._lasted[servo] >= PERSIST:
            found.append(feetech.told(self._bits[servo]))
        if servo in self._limp:
            found.append("its torque is off: it lost its power, or protects itself")
        return ", ".join(found)
