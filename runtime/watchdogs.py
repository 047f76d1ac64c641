"""What a tick notices: the age of what was read, a loop that falls behind, a policy that stays away.

Watchdogs find; what follows from it is the table in `runtime/states.py`. How old an action may be is the
planner's `max_age`: what it no longer gives out arrives here as no action.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from runtime.states import NONE, Flag
from vla.contract import Observation

# Ticks on a grid carry rounding, s.
_SAME = 1e-6


@dataclass(frozen=True)
class Watch:
    """Thresholds, in s unless said otherwise.

    Attributes:
        camera: how old a frame may be, by `Observation.captured`; one that is blind is found at once. From
            half of that on the arm is slowed, so that it is slow already when a frame is too old.
        state: how old the measured state may be, by `Observation.time`.
        overruns: how many overruns there may be within `quiet`.
        overrun: how long one may be.
        quiet: how long after the last overrun they count as over.
        patience: how long a run goes on without an action.
    """

    camera: float = 0.2
    state: float = 0.06
    overruns: int = 5
    overrun: float = 0.1
    quiet: float = 1.0
    patience: float = 5.0


STANDARD = Watch()


class Watchdogs:
    """The memory of one run's watchdogs; it does not grow."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._recent: deque[float] = deque(maxlen=watch.overruns + 1)  # when the loop overran, s
        self._behind = False
        self._skipped = 0
        self._tick: float | None = None
        self._acted: float | None = None

    def __call__(
        self,
        action: bool,
        seen: Observation,
        now: float,
        lateness: float,
        skipped: int,
        link_up: bool,
        waiting: bool = False,
    ) -> frozenset[Flag]:
        """What is wrong at the tick of `now`.

        Args:
            action: whether there is a usable one.
            seen: the observation of this tick, its times on the clock of `now`.
            lateness: s that the tick came after its time.
            skipped: ticks left out since the run began.
            link_up: whether the policy's process can be heard.
            waiting: whether there is no action because none is wanted.
        """
        found = self._stale(seen, now)
        if not action:
            found |= _WAITING if waiting else _NO_ACTION
        if self._overruns(now, lateness, skipped):
            found |= _OVERRUNS
        if not link_up:
            found |= _LINK_DOWN
        return found | _AWAY if self._away(action or waiting, now) else found

    def fresh(self, seen: Observation, now: float) -> bool:
        """Whether an observation may be acted on: recent, its state finite, and the body without a fault."""
        return not self._stale(seen, now)

    def pace(self, seen: Observation, now: float) -> float:
        """The part of its speed limits that the age of the oldest frame allows, from 0 to 1."""
        oldest = max((now - captured for captured in seen.captured.values()), default=0.0)
        # A clock that is wrong is `_stale`'s to find.
        return min(1.0, max(0.0, 2.0 - 2.0 * oldest / self._watch.camera))

    def _stale(self, seen: Observation, now: float) -> frozenset[Flag]:
        # A time from the future is a wrong clock; NaN fails either comparison.
        found = NONE if abs(now - seen.time) <= self._watch.state else _STATE_STALE
        for captured in seen.captured.values():
            if not abs(now - captured) <= self._watch.camera:
                found |= _CAMERA_STALE
        if seen.blind:
            found |= _CAMERA_STALE
        if seen.faults:
            found |= _ROBOT_FAULT
        return found if np.isfinite(seen.state).all() else found | _INVALID

    def _away(self, action: bool, now: float) -> bool:
        if action or self._acted is None:
            self._acted = now
        return now - self._acted > self._watch.patience

    def _overruns(self, now: float, lateness: float, skipped: int) -> bool:
        """More than so many, or a long one; once found, until there was none for a while."""
        watch, before = self._watch, self._tick
        self._tick = now
        if before is not None and (skipped != self._skipped or lateness > watch.overrun):
            self._recent.append(now)
            long = max(lateness, now - before) > watch.overrun + _SAME
            many = len(self._recent) > watch.overruns and now - self._recent[0] <= watch.quiet
            self._behind |= long or many
        self._skipped = skipped
        if self._behind and now - self._recent[-1] > watch.quiet:
            self._behind = False
        return self._behind


# A set is made once and shared, so that a tick without news allocates nothing.
_NO_ACTION = frozenset({Flag.NO_ACTION})
_WAITING = frozenset({Flag.WAITING})
_CAMERA_STALE = frozenset({Flag.CAMERA_STALE})
_STATE_STALE = frozenset({Flag.STATE_STALE})
_ROBOT_FAULT = frozenset({Flag.ROBOT_FAULT})
_INVALID = frozenset({Flag.STATE_INVALID})
_OVERRUNS = frozenset({Flag.OVERRUNS})
_LINK_DOWN = frozenset({Flag.LINK_DOWN})
_AWAY = frozenset({Flag.POLICY_AWAY})
