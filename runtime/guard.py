"""The last stage before a body: watchdogs, states, filter. The same for simulation and metal."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

from runtime.safety import Filter, Limits, usable
from runtime.states import NONE, Event, Flag, State, Status, update
from runtime.watchdogs import STANDARD, Watch, Watchdogs
from vla.contract import Observation, RobotSpec


class Guard:
    """What everything has to pass on its way to a body.

    The loop calls it last before `Robot.write`, in simulation as on metal. RUNNING lets the target
    through the filter; in every other state the arm brakes at its acceleration limit and keeps the last
    command (holding the measured pose would let an arm sink under gravity).

    Attributes:
        status: the state, its flags and reasons.
        history: (time, from, to, reasons) of the last changes of state.
    """

    def __init__(self, spec: RobotSpec, watch: Watch = STANDARD, margin: float = 0.0) -> None:
        """
        Args:
            margin: how much of each range to leave out at both ends, see `shrunk`.

        Raises:
            TaktError: the robot's description lacks a limit.
        """
        self.limits = Limits.of(spec, margin)
        self.status = Status()
        self.history: deque[tuple[float, State, State, tuple[str, ...]]] = deque(maxlen=256)
        self._filter = Filter(self.limits)
        self._dogs = Watchdogs(watch)
        # Reading a pose is being connected, limits and a pose within them arm it, the call starts it.
        self._events: deque[Event] = deque((Event.CONNECT, Event.ARM, Event.START))
        self._told = NONE

    @property
    def verdicts(self) -> Counter[str]:
        """How many commands were rejected or clamped, by name."""
        return self._filter.verdicts

    @property
    def still(self) -> bool:
        """Whether the last command stood still."""
        return self._filter.still

    def tell(self, what: Event | Flag) -> None:
        """An operator's event, or a flag found elsewhere; it counts at the next call."""
        if isinstance(what, Event):
            self._events.append(what)
        else:
            self._told |= {what}

    def fresh(self, seen: Observation, now: float) -> bool:
        """Whether a policy may be asked about an observation: not stale, its state finite, no fault."""
        return self._dogs.fresh(seen, now)

    def __call__(
        self,
        target: np.ndarray | None,
        seen: Observation,
        now: float,
        lateness: float = 0.0,
        skipped: int = 0,
        link_up: bool = True,
        waiting: bool = False,
    ) -> np.ndarray:
        """The command for `now`, shape (A,).

        Args:
            target: the action for `now`, shape (A,); None when there is none in age.
            seen: this tick's observation.
            now: s, on the observation's clock.
            lateness: s that the tick came after its time.
            skipped: ticks left out since the run began.
            link_up: whether the policy's process can be heard.
            waiting: whether there is no target because none is wanted.

        Raises:
            TaktError: at the first call, the robot stands outside its limits.
        """
        self._filter.start(seen.state, now)
        action = target is not None and usable(self.limits, target)
        if target is not None and not action:
            self.verdicts["rejected"] += 1
        flags = self._dogs(action, seen, now, lateness, skipped, link_up, waiting) | self._told
        self._told = NONE
        while self._events:
            self._update(now, flags, self._events.popleft(), seen)
        self._update(now, flags, seen=seen)
        running = self.status.state is State.RUNNING
        pace = min(seen.pace, self._dogs.pace(seen, now))
        command = self._filter(target if running else None, seen.state, now, pace)
        if self.status.state is State.PARKING and self._filter.still:
            self._update(now, flags, Event.PARKED)
        return command

    def _update(
        self,
        now: float,
        flags: frozenset[Flag],
        event: Event | None = None,
        seen: Observation | None = None,
    ) -> None:
        before, self.status = self.status, update(now, self.status, flags, event)
        if self.status.state is not before.state:
            # Which part of the body it is stands in the record; the states know but that there is a fault.
            parts: tuple[str, ...] = ()
            if seen is not None and Flag.ROBOT_FAULT.value in self.status.reasons:
                parts = seen.faults
            elif seen is not None and Flag.CAMERA_STALE.value in self.status.reasons:
                parts = seen.blind
            self.history.append((now, before.state, self.status.state, self.status.reasons + parts))
