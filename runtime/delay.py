"""A link whose answers are kept back for a while: the latency of a slower policy, to be felt."""

from __future__ import annotations

from collections import deque

from runtime.clock import Clock
from runtime.planner import Link
from vla.contract import ActionChunk, Observation, Prefix, TaktError

LONGEST = 2.0  # s
_SAME = 1e-6  # s; times carry rounding


class DelayedLink:
    """Hands on what a link says, each answer `seconds` after it came; nothing in it waits.

    Attributes:
        seconds: how long answers are kept back; a change holds for those that are waiting as well.
        waited: how long the newest answer handed on was kept back, s.
        link: what is delayed; another may be put in its place, and what is waiting is dropped then.
    """

    def __init__(self, link: Link, clock: Clock, seconds: float = 0.0) -> None:
        self._link, self.clock = link, clock
        self.seconds, self.waited = seconds, 0.0
        self._waiting: deque[tuple[float, ActionChunk]] = deque()
        self._dropped = 0  # requests whose answers will not come because the link was changed

    @property
    def link(self) -> Link:
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        # The planner counts on `lost` to rise by what will not be answered, and never to fall.
        self._dropped += self._link.lost - link.lost + 1
        self._link = link
        self.clear()

    def clear(self) -> None:
        """Drop what is waiting."""
        self._waiting.clear()

    @property
    def lost(self) -> int:
        return self._link.lost + self._dropped

    @property
    def link_up(self) -> bool:
        return self._link.link_up

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        """Ask. The deadline is shortened by the delay, as it would be if the way were that long."""
        if deadline is not None:
            deadline = max(deadline - self.seconds, 1e-3)
        return self._link.submit(observation, prefix, deadline)

    def poll(self) -> list[ActionChunk]:
        """The answers that are due, oldest first."""
        now = self.clock.now()
        self._waiting.extend((now, chunk) for chunk in self._link.poll())
        ready = []
        while self._waiting and now - self._waiting[0][0] >= self.seconds - _SAME:
            came, chunk = self._waiting.popleft()
            self.waited = now - came
            ready.append(chunk)
        return ready

    def delay(self, seconds: float) -> None:
        """Keep answers back for so long.

        Raises:
            TaktError: not from 0 to `LONGEST`.
        """
        if not 0 <= seconds <= LONGEST:
            raise TaktError(f"a delay is from 0 to {LONGEST:g} s, got {seconds} s")
        self.seconds = float(seconds)
