"""Clocks and the beat. Time is injected, so that every timing behaviour runs deterministically in a test.

All times are monotonic seconds; the wall clock may jump and is never asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

# Sleeping wakes up to this much late on Linux (timer slack and scheduling), so the rest is spun, s.
_SPIN = 0.00015
# Two times closer than this are the same instant: start + k * period carries rounding, s.
_SAME = 1e-9


class Clock(Protocol):
    """What time it is, and how to wait."""

    def now(self) -> float:
        """Monotonic time, s."""

    def sleep_until(self, t: float) -> None:
        """Return at `t` (s) or as soon as possible after it; at once when it has passed."""


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, t: float) -> None:
        rest = t - time.monotonic() - _SPIN
        if rest > 0:
            time.sleep(rest)
        while time.monotonic() < t:
            pass


class SimulatedClock:
    """A clock that moves only when told to; waiting costs nothing."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def sleep_until(self, t: float) -> None:
        self._now = max(self._now, t)

    def advance(self, seconds: float) -> None:
        """Move on by `seconds` >= 0."""
        if not seconds >= 0:
            raise ValueError(f"time does not run backwards: {seconds} s")
        self._now += seconds


class Ticker:
    """Ticks on the grid start + k * period, for ever.

        work   |==|      |============|        |==|
        grid   0     1     2     3     4     5
        tick   0     1           -     4     5        tick 1 overran: 2 and 3 are skipped and counted

    A tick whose time has passed when it is asked for is skipped whole, and so is one that would come
    within half a period of a tick that woke late: ticks never come bunched, and the phase never drifts.

    Attributes:
        skipped: ticks left out so far.
    """

    def __init__(self, clock: Clock, period: float) -> None:
        """`period` in s, > 0."""
        if not period > 0:
            raise ValueError(f"a tick's period is positive, got {period} s")
        self.clock = clock
        self.period = period
        self.skipped = 0

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """Yields (scheduled, now), s; now - scheduled is the tick's lateness."""
        start = self.clock.now()
        yield start, start
        last, k = start, 1
        while True:
            late = self.clock.now() - (start + k * self.period)
            if late > _SAME:
                missed = int((late - _SAME) // self.period) + 1
                self.skipped += missed
                k += missed
            scheduled = start + k * self.period
            k += 1
            if scheduled - last < self.period / 2:
                # The tick before woke late: this one would come right behind it.
                self.skipped += 1
                continue
            self.clock.sleep_until(scheduled)
            last = self.clock.now()
            yield scheduled, last
