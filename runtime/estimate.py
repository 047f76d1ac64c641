"""What latency to expect: a quantile of what was measured lately.

Never a running maximum: one slow answer would rule for ever, and a delay that is assumed too long
commits rows which need not be. Old samples leave by age and by number, warm-up never enters.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import floor


class Quantile:
    """A quantile over a window of samples, s; the window ends at the newest `now` it was told.

    Putting and asking cost microseconds: the window is kept sorted.
    """

    def __init__(self, window: float = 10.0, count: int = 100, warmup: int = 1) -> None:
        """
        Args:
            window: s that a sample stays; one of exactly this age still counts.
            count: samples that stay at most, the newest.
            warmup: first samples that are left out: they allocate, compile and read the words.
        """
        if not (window > 0 and count >= 1 and warmup >= 0):
            raise ValueError(f"window {window} s > 0, count {count} >= 1, warmup {warmup} >= 0 are needed")
        self._window, self._count, self._warmup = window, count, warmup
        self._by_age: deque[tuple[float, float]] = deque()  # (when, seconds), oldest first
        self._sorted: list[float] = []
        self._now = -float("inf")

    def __len__(self) -> int:
        return len(self._sorted)

    def put(self, now: float, seconds: float) -> None:
        """Add a sample that was there at `now`, s; times that step back count as the newest one."""
        if self._warmup > 0:
            self._warmup -= 1
            return
        self.forget(now)
        self._by_age.append((self._now, seconds))
        insort(self._sorted, seconds)
        if len(self._by_age) > self._count:
            self._drop()

    def value(self, q: float) -> float | None:
        """The quantile `q` in [0, 1], linear between samples as numpy's is; None without samples."""
        if not self._sorted:
            return None
        at = q * (len(self._sorted) - 1)
        i = min(floor(at), len(self._sorted) - 1)
        j = min(i + 1, len(self._sorted) - 1)
        return self._sorted[i] + (at - i) * (self._sorted[j] - self._sorted[i])

    def forget(self, now: float) -> None:
        """It is `now`, s: samples older than the window leave."""
        self._now = max(self._now, now)
        while self._by_age and self._now - self._by_age[0][0] > self._window:
            self._drop()

    def _drop(self) -> None:
        _, seconds = self._by_age.popleft()
        del self._sorted[bisect_left(self._sorted, seconds)]
