"""The real loop on a body of its own, tick by tick, and the laws that what it commands obeys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from runtime import loop
from runtime.budget import Budget
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from runtime.planner import Planner
from runtime.safety import LONGEST, Limits
from runtime.states import Flag, State
from runtime.watchdogs import Watch
from tests.runtime.faults import hours
from tests.runtime.faults.body import SPEC, Arm, Body
from tests.runtime.peers import PATIENCE, until
from vla.contract import Observation

PERIOD = 1 / 30
LIMITS = Limits.of(SPEC)


@dataclass(frozen=True)
class Tick:
    """What one tick saw, at `now` (s), and commanded; its target is for `at`, when it had read the body."""

    now: float
    at: float
    target: np.ndarray | None
    command: np.ndarray
    state: State
    flags: frozenset[Flag]
    link_up: bool


class Witness(Guard):
    """A guard that remembers."""

    def __init__(self) -> None:
        # The run is never given up: what comes back has to be gone on with, however slow the machine.
        super().__init__(SPEC, Watch(patience=10 * PATIENCE))
        self.ticks: list[Tick] = []

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
        command = super().__call__(target, seen, now, lateness, skipped, link_up, waiting)
        status, at = self.status, max(now, seen.time)
        self.ticks.append(Tick(now, at, target, command, status.state, status.active, link_up))
        return command


@dataclass
class Drive:
    """A run.

    Attributes:
        ticks: until now.
        passed: when each stage of its script had come, s.
    """

    ticks: list[Tick]
    planner: Planner
    passed: list[float] = field(default_factory=list)
    result: loop.LoopResult = field(default_factory=loop.LoopResult)

    @property
    def last(self) -> Tick:
        return self.ticks[-1]

    def ended(self, count: int, target: bool) -> bool:
        """Whether the last `count` ticks all had a target, or all had none."""
        recent = self.ticks[-count:]
        return len(recent) == count and all((t.target is not None) == target for t in recent)


Step = Callable[[Drive], bool]


def drive(body: Body, policy: RemotePolicy, step: Step) -> Drive:
    """The loop over `policy` on `body` until `step(drive)`, called after every tick, is true."""
    clock, guard = MonotonicClock(), Witness()
    made = Drive(guard.ticks, Planner(policy.spec, policy, period=PERIOD))
    over = False
    late = loop.lasting(clock, 3 * PATIENCE)

    def done(now: float) -> bool:
        assert not late(now), f"it does not come to an end: {made.last}"
        return over

    def on_tick(*_: object) -> None:
        nonlocal over
        over = over or step(made)

    with Arm(body.folder) as arm:
        ticker = Ticker(clock, PERIOD)
        made.result = loop.run(arm, made.planner, ticker, Budget(), "put", guard, done, on_tick, settle=True)
    check_reached(body, made.ticks)
    return made


def script(*stages: Step) -> Step:
    """Stages that are waited for one after the other; true when all have passed, see `Drive.passed`."""
    left = list(stages)

    def step(made: Drive) -> bool:
        if left and left[0](made):
            left.pop(0)
            made.passed.append(made.last.now)
        return not left

    return step


def then(when: Step, do: Callable[[], object]) -> Step:
    """The stage `when`, which does something when it has come."""

    def step(made: Drive) -> bool:
        if not when(made):
            return False
        do()
        return True

    return step


def acting(count: int) -> Step:
    """Until `count` ticks in a row had a target."""
    return lambda made: made.ended(count, target=True)


def holding(count: int) -> Step:
    """Until `count` ticks in a row had none."""
    return lambda made: made.ended(count, target=False)


def check_reached(body: Body, ticks: list[Tick]) -> None:
    """What reached the body is what was commanded, once each, within every limit; then it was made safe."""
    until(lambda: body.notes()[-1:] == ["safe"], "it was not made safe")
    np.testing.assert_array_equal(body.goals(), [t.command for t in ticks])
    assert body.notes() == ["enter", "safing", "safe"]
    check_lawful(ticks)
    np.testing.assert_array_equal(ticks[-1].command, ticks[-2].command)


def check_lawful(ticks: list[Tick]) -> None:
    """Finite, in range, |v| <= v_max, |dv| <= a_max dt, and no two ticks closer than half a period."""
    before, velocity = ticks[0], np.zeros(SPEC.actions.size)
    for tick in ticks:
        assert np.isfinite(tick.command).all()
        assert (tick.command >= LIMITS.lower).all() and (tick.command <= LIMITS.upper).all()
    for tick in ticks[1:]:
        assert tick.now - before.now > PERIOD / 2 - 1e-9
        dt = min(tick.now - before.now, LONGEST)
        moved = (tick.command - before.command) / dt
        assert (np.abs(moved) <= LIMITS.velocity + 1e-9 / dt).all()
        assert (np.abs(moved - velocity) <= LIMITS.acceleration * dt + 1e-9 / dt).all()
        before, velocity = tick, moved


def check_timed(ticks: list[Tick], rows: int = hours.ROWS) -> None:
    """Every target of the policy `hours` is the row for its tick, of a chunk that has not run out."""
    for tick in ticks:
        if tick.target is not None:
            assert hours.off(tick.target, tick.at) < hours.NEAR
            assert -hours.NEAR < hours.since(tick.target, tick.at) < hours.age(rows) + hours.NEAR


def first(ticks: list[Tick], when: Callable[[Tick], bool]) -> int:
    """The index of the first tick of a kind."""
    return next(i for i, tick in enumerate(ticks) if when(tick))


def asked(tick: Tick) -> float:
    """When the target of a tick was asked for, s."""
    assert tick.target is not None
    return tick.at - hours.since(tick.target, tick.at)


def runs(tick: Tick) -> bool:
    """Whether targets get through, or nothing but a machine that is busy with other things keeps them."""
    return tick.state is State.RUNNING or bool(tick.flags & {Flag.OVERRUNS, Flag.STATE_STALE})
