"""How long inference takes on this machine, from its own recent runs; and how much of it fits.

A windowed quantile: a running maximum would never forget one bad second, and a mean is late every other
time. The first runs after loading allocate and do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.estimate import Quantile

WARMUP = 2  # runs that do not count
WINDOW = 32  # runs that are remembered
QUANTILE = 0.9


def _recent() -> Quantile:
    return Quantile(float("inf"), WINDOW, WARMUP)


class Pace:
    """Estimates of the prefix and of a step, by the number of rows in the batch."""

    def __init__(self) -> None:
        self._prefix: dict[int, Quantile] = {}
        self._step: dict[int, Quantile] = {}

    def ran(self, prefix: float, steps: Sequence[float], asked: int, rows: int) -> None:
        """Note one inference, s: `asked` observations in the prefix, `rows` chunks in each step."""
        self._prefix.setdefault(asked, _recent()).put(0.0, prefix)
        self._step.setdefault(rows, _recent()).put(0.0, sum(steps) / len(steps))

    def prefix(self, asked: int = 1) -> float | None:
        """s that the prefix takes; None while unknown."""
        return _at(self._prefix, asked)

    def step(self, rows: int = 1) -> float | None:
        """s that a step takes; None while unknown."""
        return _at(self._step, rows)

    def steps_in(self, left: float | None, most: int, rows: int = 1) -> int:
        """How many steps fit into `left` s: 1 to `most`, all of them while a step's time is unknown."""
        each = self.step(rows)
        if left is None or not each:
            return most
        return int(min(max(left // each, 1), most))

    def candidates_in(self, left: float | None, steps: int, most: int, asked: int = 1) -> int:
        """How many draws for each observation fit with all their steps: `most`, its halves, or 1."""
        count = most
        while count > 1 and left is not None:
            each = self.step(asked * count)
            if each is not None and steps * each <= left:
                break
            count //= 2
        return count


def _at(known: dict[int, Quantile], rows: int) -> float | None:
    """The estimate for a batch; where it never ran, in proportion to the largest smaller one that did."""
    for n in sorted(known, reverse=True):
        if n <= rows and (value := known[n].value(QUANTILE)) is not None:
            return value * rows / n
    return None
