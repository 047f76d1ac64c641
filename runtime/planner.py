"""When to ask for a plan, what to ask for, and which row is for now. Decided before the work starts.

    chunk     t0 ---------- replan ---------- end
    ask                 here -> |                     one request in flight; earlier where latency wants it
    commit                      |== d rows ==|        what will be executed before the answer is there
    answer                                   |        the newest observation wins; rows are looked up by time
    late                                          |   an answer that ended before it came is dropped

When nothing fits the time that is left, the running chunk is kept to its end, then the arm holds, then
the loop stops: in that order, each counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime import joining, plan
from runtime.clock import Clock
from runtime.estimate import Quantile
from vla.contract import ActionChunk, Observation, Policy, PolicySpec, Prefix

# A tick at start + k * period carries rounding, s.
_SAME = 1e-6
# The share of recent answers that the assumed latency covers, and how long an answer is recent, s.
_COVER = 0.95
_WINDOW = 3.0


class Link(Protocol):
    """The way to a policy; nothing in it waits.

    Attributes:
        lost: requests so far that will get no chunk: refused, failed, or of a server that went away.
        link_up: whether the other side can be heard.
    """

    @property
    def lost(self) -> int: ...

    @property
    def link_up(self) -> bool: ...

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        """Ask; False when it could not be sent."""

    def poll(self) -> list[ActionChunk]:
        """The answers that are there."""


class InlineLink:
    """A policy in this process whose answers come after a simulated latency.

    It computes at once and delivers when the clock says so: deterministic, for evaluation in simulated
    time. With a latency of 0 the answer is there in the tick that asked. The deadline is not handed on:
    how many steps the policy makes must not depend on the machine that evaluates it.
    """

    lost, link_up = 0, True

    def __init__(self, policy: Policy, latency: float | Callable[[], float], clock: Clock) -> None:
        """`latency` in s, or a function that draws one for every request."""
        self._policy = policy
        self._latency = latency if callable(latency) else lambda: latency
        self._clock = clock
        self._due: list[tuple[float, ActionChunk]] = []

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        due = self._clock.now() + self._latency()
        self._due.append((due, self._policy.infer(observation, prefix)))
        return True

    def poll(self) -> list[ActionChunk]:
        now = self._clock.now() + _SAME
        ready = sorted((d for d in self._due if d[0] <= now), key=lambda d: d[0])
        self._due = [d for d in self._due if d[0] > now]
        return [chunk for _, chunk in ready]


@dataclass(frozen=True)
class Choice:
    """What was decided when a request was made.

    Attributes:
        time: of the observation, s.
        latency: until the answer, as assumed, s; None before anything was measured.
        rows: of the running chunk that were committed.
        deadline: s from then on within which the policy is to answer; None for unlimited.
        steps: denoising steps that fit; None where the policy has not said how long one takes.
        fits: whether the answer is expected before the running chunk ends; where not, that is kept.
    """

    time: float
    latency: float | None
    rows: int
    deadline: float | None
    steps: int | None
    fits: bool


class Planner:
    """One request in flight, one chunk in use (several where they are averaged).

    Attributes:
        asked, answered: requests sent, answers received.
        late: answers dropped because a newer one was there or their last row had passed.
        refused: answers that no robot may be given: not finite, of another shape, for a time to come,
            or for longer than the policy says.
        failed: requests that got no chunk.
        exceeded: answers that came later than was assumed, and after the rows committed for them.
        kept: requests made knowing that their answer comes after the running chunk's end.
        void: answers dropped because the words had changed since they were asked for.
        answer: the newest answer to the words of now; None before the first.
        stale: ticks that found no row for their time.
        choices: the last decisions, oldest first.
    """

    def __init__(
        self,
        spec: PolicySpec,
        link: Link,
        replan: float | None = None,
        max_age: float | None = None,
        timeout: float | None = None,
        *,
        join: str | None = None,
        period: float = 0.0,
        deadline: float | None = None,
        warm_up: int = 1,
    ) -> None:
        """
        Args:
            replan: s of a chunk after which the next is asked for; the policy's own by default.
            max_age: s after its observation that a chunk may be used; to its last row by default.
            timeout: s after which a request counts as lost when nothing was heard of it; a chunk's length
                by default, at least 1 s, and never less than twice the usual latency.
            join: how chunks are joined, see `joining`; by default as well as the policy can.
            period: of the ticks, s; an answer waits for the next one.
            deadline: s within which a chunk is declared to be due; None: before the running one ends.
            warm_up: answers whose latency is not counted: the first are slow for reasons that pass.
        """
        self.spec = spec
        self.replan = spec.replan if replan is None else replan
        self.max_age = np.inf if max_age is None else max_age
        self.timeout = max(1.0, (spec.chunk_length - 1) * spec.dt) if timeout is None else timeout
        self.period, self.deadline = period, deadline
        self.join = joining.make(join, spec)
        self.asked = self.answered = self.late = self.refused = self.failed = 0
        self.exceeded = self.kept = self.stale = self.void = 0
        self.answer: ActionChunk | None = None
        self.choices: deque[Choice] = deque(maxlen=256)
        self._link, self._lost = link, link.lost
        self._in_flight: float | None = None  # the observation time of the request, s
        self._asked = self._voided = -np.inf  # of the last request; of the last one that counts no more, s
        self._renewed = False  # whether what runs is of the words before
        self._expires = np.inf  # when that ends, s
        self._warm_up = warm_up
        # From asking to the tick that has the answer; all of it but the steps; one step; all but the policy.
        self._total, self._fixed, self._step, self._overhead = (Quantile(_WINDOW, warmup=0) for _ in range(4))
        self._last: float | None = None  # the latency of the last answer, s
        self._most = 0  # the largest number of steps that the policy was seen to make

    @property
    def chunk(self) -> ActionChunk | None:
        """The plan in use."""
        return self.join.chunk

    @property
    def link_up(self) -> bool:
        """Whether the policy's process can be heard."""
        return self._link.link_up

    # -- other words

    def renew(self, now: float) -> None:
        """The words have changed at `now` (s): ask anew at once; no answer to the old ones is taken.

        What runs is played on until the first answer to the new words, which continues it, but for no
        longer than an answer usually takes: then the caller holds.
        """
        usual = self.latency(now) or 0.0
        self._voided, self._in_flight, self.answer = self._asked, None, None
        self._renewed, self._expires = True, now + usual + 2.0 * self.period

    def drop(self) -> None:
        """Play nothing any more, and take no answer to what was asked: the caller holds."""
        self._voided, self._in_flight, self.answer = self._asked, None, None
        self._renewed, self._expires = False, np.inf
        self.join.clear()

    def play_at(self, pace: float, now: float) -> None:
        """Play rows `pace` times as fast from `now` (s) on; the limits of the body stay as they are."""
        if pace != self.join.pace:
            self.join.play_at(pace, now)

    # -- asking

    def latency(self, now: float) -> float | None:
        """The latency to assume at `now`, s; None before anything was measured.

        A windowed quantile, so that a spike is forgotten; at least the last answer's, so that a jump is
        believed at once; at least the age of the request in flight, so that it is believed before its
        first answer is there.
        """
        usual = self._total.value(_COVER)
        if usual is None:
            return None
        waiting = 0.0 if self._in_flight is None else now - self._in_flight
        return max(usual, self._last or 0.0, waiting)

    def due(self, now: float) -> bool:
        """Whether an observation made at `now` (s) is to be sent."""
        if self._link.lost != self._lost:
            self.failed += self._link.lost - self._lost
            self._lost, self._in_flight = self._link.lost, None
        if now <= self._voided:
            return False  # its answer could not be told from one to the words before
        patience = max(self.timeout, 2.0 * (self._total.value(_COVER) or 0.0))
        if self._in_flight is not None and now - self._in_flight < patience:
            return False
        if self.chunk is None or self._renewed:
            return True
        after = plan.ask_after(self.replan, self._usable(), self.latency(now) or 0.0, self.period)
        return now - self.chunk.time >= after - _SAME

    def submit(self, observation: Observation) -> bool:
        """Ask for the next chunk if it is time to; True when a request went out."""
        now = observation.time
        if not self.due(now):
            return False
        choice, prefix = self._choose(now)
        if not self._link.submit(observation, prefix, choice.deadline):
            return False
        self.choices.append(choice)
        self._in_flight = self._asked = now
        self.asked += 1
        self.kept += not choice.fits
        return True

    def _choose(self, now: float) -> tuple[Choice, Prefix | None]:
        latency, left = self.latency(now), self._left(now)
        if not np.isfinite(left) and self._steps(self._share()):
            left = self._share()  # an answer that took longer would end before the one after it
        if not np.isfinite(left):
            prefix = self.join.prefix(now, latency or 0.0)
            return Choice(now, latency, _committed(prefix), None, self._most or None, True), prefix
        steps = self._steps(min(left, self._share()))
        fits = latency is None or latency <= left if steps is None else steps > 0
        if steps and latency is not None:
            latency = min(latency, max(left, self.period))  # fewer steps where all of them are too many
        prefix = self.join.prefix(now, latency or 0.0)
        own = min(left, self._share()) - (self._overhead.value(_COVER) or 0.0)
        own = max(own, self.period, 1e-3)
        return Choice(now, latency, _committed(prefix), float(own), steps, bool(fits)), prefix

    def _left(self, now: float) -> float:
        """Until an answer asked for `now` is due, s; infinite where nothing runs that it could miss."""
        left = np.inf if self.chunk is None else self.chunk.time + self._usable() - now - self.period
        left = left if left > _SAME else np.inf
        return left if self.deadline is None else min(left, self.deadline)

    def _share(self) -> float:
        """What an answer may take when the next one is to take as long, s: both fit into one chunk.

        A policy that used all that is left for more steps would leave nothing for the answer after it.
        """
        return self._usable() / 2 - self.period

    def _steps(self, left: float) -> int | None:
        fixed, step = self._fixed.value(_COVER), self._step.value(_COVER)
        if fixed is None or step is None or not self._most:
            return None
        return plan.steps_that_fit(left, fixed, step, 1, self._most)

    def _usable(self) -> float:
        """How long after its observation a chunk may be used, s."""
        rows, dt = self.spec.chunk_length, self.join.dt
        if self.chunk is not None:
            rows, dt = len(self.chunk.actions), self.chunk.dt
        return min((rows - 1) * dt, self.max_age)

    # -- answering

    def receive(self, now: float) -> None:
        """Take the answers that are there at `now`, s: before asking, so that no tick passes in between."""
        for chunk in self._link.poll():
            self._take(chunk, now)

    def target(self, now: float) -> np.ndarray | None:
        """The action for `now` (s), shape (A,); None when no plan reaches so far: the caller holds."""
        self.receive(now)
        row = None
        if now > self._expires:
            self.join.clear()
        waits = self.join.waits and self._in_flight is not None
        if self.join.age(now) <= self.max_age + _SAME and not waits:
            row = self.join.row(now)
        if row is None:
            self.stale += 1
        return row

    def _take(self, chunk: ActionChunk, now: float) -> None:
        self.answered += 1
        if chunk.time == self._in_flight:
            self._in_flight = None
        if not _sound(chunk, self.spec, now):
            self.refused += 1
            return
        self._measure(chunk, now)
        if chunk.time <= self._voided:
            self.void += 1
            return
        if self._renewed:
            self.join.clear()  # no average of what was said before and now
            self._renewed, self._expires = False, np.inf
        if not self.join.take(chunk, now):
            self.late += 1
        elif self.answer is None or chunk.time > self.answer.time:
            self.answer = chunk

    def _measure(self, chunk: ActionChunk, now: float) -> None:
        took = now - chunk.time
        asked = next((c for c in reversed(self.choices) if c.time == chunk.time), None)
        if asked is not None and asked.latency is not None:
            promised = max(asked.latency + self.period, (asked.rows - 1) * self.join.dt)
            self.exceeded += took > promised + _SAME
        if self._warm_up > 0:
            self._warm_up -= 1
            return
        self._last = took
        self._total.put(now, took)
        self._overhead.put(now, max(0.0, took - sum(chunk.stages.values())))
        if chunk.step_seconds:
            self._most = max(self._most, len(chunk.step_seconds))
            self._fixed.put(now, max(0.0, took - sum(chunk.step_seconds)))
            self._step.put(now, max(chunk.step_seconds))


def _sound(chunk: ActionChunk, spec: PolicySpec, now: float) -> bool:
    """Whether a chunk may be played at all; one number that is not finite spoils the whole of it."""
    shape = chunk.actions.ndim == 2 and len(chunk.actions) > 0 and chunk.actions.shape[1] == spec.actions.size
    timed = chunk.time <= now + _SAME and 0 < chunk.dt < np.inf
    # One that lasts longer than the policy's would be played on and on after the policy has gone.
    lasts = (len(chunk.actions) - 1) * chunk.dt <= (spec.chunk_length - 1) * spec.dt + _SAME
    return shape and timed and lasts and bool(np.isfinite(chunk.actions).all())


def _committed(prefix: Prefix | None) -> int:
    return 0 if prefix is None else int((prefix.weights >= 1.0).sum())
