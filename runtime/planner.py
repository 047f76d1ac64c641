"""When to ask for a plan, and which row of it is for now.

chunk      t0 --------- replan --------- end
ask              here -> |                         one request in flight
answer                        | newest observation wins; rows are looked up by time
late                                         | an answer that ended before it came is dropped
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from runtime.clock import Clock
from vla.contract import ActionChunk, Observation, Policy, PolicySpec

# A tick at start + k * period carries rounding, s.
_SAME = 1e-6


class Link(Protocol):
    """The way to a policy; neither call waits."""

    def submit(self, observation: Observation) -> bool:
        """Ask; False when it could not be sent."""

    def poll(self) -> list[ActionChunk]:
        """The answers that are there."""


class InlineLink:
    """A policy in this process whose answers come after a simulated latency.

    It computes at once and delivers when the clock says so: deterministic, for evaluation in simulated
    time. With a latency of 0 the answer is there in the tick that asked.
    """

    def __init__(self, policy: Policy, latency: float | Callable[[], float], clock: Clock) -> None:
        """`latency` in s, or a function that draws one for every request."""
        self._policy = policy
        self._latency = latency if callable(latency) else lambda: latency
        self._clock = clock
        self._due: list[tuple[float, ActionChunk]] = []

    def submit(self, observation: Observation) -> bool:
        due = self._clock.now() + self._latency()
        self._due.append((due, self._policy.infer(observation)))
        return True

    def poll(self) -> list[ActionChunk]:
        now = self._clock.now() + _SAME
        ready = sorted((d for d in self._due if d[0] <= now), key=lambda d: d[0])
        self._due = [d for d in self._due if d[0] > now]
        return [chunk for _, chunk in ready]


class Planner:
    """One request in flight, one chunk in use.

    Attributes:
        chunk: the plan in use.
        asked, answered: requests sent, answers received.
        late: answers dropped because a newer one was there or their last row had passed.
        stale: ticks that found no row for their time.
    """

    def __init__(
        self,
        spec: PolicySpec,
        link: Link,
        replan: float | None = None,
        max_age: float | None = None,
        timeout: float | None = None,
    ) -> None:
        """
        Args:
            replan: s of a chunk after which the next is asked for; the policy's own by default.
            max_age: s after its observation that a chunk may be used; to its last row by default.
            timeout: s after which a request counts as lost; by default when the chunk that runs ends.
        """
        self.replan = spec.replan if replan is None else replan
        self.max_age = np.inf if max_age is None else max_age
        left = max(0.3, (spec.chunk_length - 1) * spec.dt - self.replan)
        self.timeout = left if timeout is None else timeout
        self.chunk: ActionChunk | None = None
        self.asked = self.answered = self.late = self.stale = 0
        self._absolute = spec.actions.absolute
        self._link = link
        self._in_flight: float | None = None  # the observation time of the request, s

    def due(self, now: float) -> bool:
        """Whether an observation made at `now` (s) is to be sent."""
        if self._in_flight is not None and now - self._in_flight < self.timeout:
            return False
        return self.chunk is None or now - self.chunk.time >= self.replan - _SAME

    def submit(self, observation: Observation) -> bool:
        """Ask for the next chunk if it is time to; True when a request went out."""
        if not self.due(observation.time) or not self._link.submit(observation):
            return False
        self._in_flight = observation.time
        self.asked += 1
        return True

    def target(self, now: float) -> np.ndarray | None:
        """The action for `now` (s), shape (A,); None when no plan reaches so far: the caller holds."""
        for chunk in self._link.poll():
            self._take(chunk, now)
        row = None
        if self.chunk is not None and now - self.chunk.time <= self.max_age + _SAME:
            row = self.chunk.at(now, self._absolute)
        if row is None:
            self.stale += 1
        return row

    def _take(self, chunk: ActionChunk, now: float) -> None:
        self.answered += 1
        if chunk.time == self._in_flight:
            self._in_flight = None
        older = self.chunk is not None and chunk.time <= self.chunk.time
        if older or chunk.end < now - _SAME:
            self.late += 1
        else:
            self.chunk = chunk
