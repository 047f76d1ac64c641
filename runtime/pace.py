"""How long inference takes on this machine, from its own recent runs; and how much of it fits.

A windowed quantile: a running maximum would never forget one bad second, and a mean is late every other
time. The first runs after loading allocate and do not count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

WARMUP = 2  # runs that do not count
WINDOW = 32  # runs that are remembered
QUANTILE = 0.9


class Estimate:
    """Seconds of something that is done again and again."""

    def __init__(self) -> None:
        self._warm = 0
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self.value: float | None = None

    def add(self, seconds: float) -> None:
        """One run's time; the value is None until one counts."""
        self._warm += 1
        if self._warm > WARMUP:
            self._recent.append(seconds)
            self.value = float(np.quantile(list(self._recent), QUANTILE))


class Pace:
    """Estimates of the prefix and of a step, by the number of rows in the batch."""

    def __init__(self) -> None:
        self._prefix: dict[int, Estimate] = {}
        self._step: dict[int, Estimate] = {}

    def ran(self, prefix: float, steps: Sequence[float], asked: int, rows: int) -> None:
        """Note one inference, s: `asked` observations in the prefix, `rows` chunks in each step."""
        self._prefix.setdefault(asked, Estimate()).add(prefix)
        self._step.setdefault(rows, Estimate()).add(sum(steps) / len(steps))

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
        return int(np.clip(left // each, 1, most))

    def candidates_in(self, left: float | None, steps: int, most: int, asked: int = 1) -> int:
        """How many draws for each observation fit with all their steps: `most`, its halves, or 1."""
        count = most
        while count > 1 and left is not None:
            each = self.step(asked * count)
            if each is not None and steps * each <= left:
                break
            count //= 2
        return count


def _at(known: dict[int, Estimate], rows: int) -> float | None:
    """The estimate for a batch; where it never ran, in proportion to the largest smaller one that did."""
    values = {n: e.value for n, e in known.items() if e.value is not None and n <= rows}
    return values[max(values)] * rows / max(values) if values else None
