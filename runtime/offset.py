"""How far another machine's monotonic clock is ahead of ours (as NTP does it, RFC 5905 section 8).

ours    asked ------------------------------ heard
theirs          arrived --------- left
"""

from __future__ import annotations

from collections import deque


class Offset:
    """Estimated from round trips; of the last ones, that with the smallest delay is believed."""

    def __init__(self, keep: int = 32) -> None:
        self._trips: deque[tuple[float, float]] = deque(maxlen=keep)  # (delay, offset), s

    def note(self, asked: float, arrived: float, left: float, heard: float) -> None:
        """A round trip: `asked`, `heard` on our clock, `arrived`, `left` on theirs, s."""
        delay = (heard - asked) - (left - arrived)
        if delay >= 0 and left >= arrived:  # anything else is a mistake of theirs
            self._trips.append((delay, ((arrived - asked) + (left - heard)) / 2))

    @property
    def seconds(self) -> float | None:
        """Theirs minus ours, s; wrong by half the smallest delay at most. None before the first trip."""
        return min(self._trips)[1] if self._trips else None

    def ours(self, theirs: float | None) -> float | None:
        """A time on their clock as one on ours; None where it is not known."""
        ahead = self.seconds
        return None if theirs is None or ahead is None else theirs - ahead
