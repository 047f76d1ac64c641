"""The tick: read, plan, limit, write. One thread, and nothing in it waits but the ticker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from runtime.budget import Budget
from runtime.clock import Clock, Ticker
from runtime.planner import Planner
from runtime.safety import Filter
from vla.contract import Observation, Robot

# on_tick(observation, target or None, command), every tick, after the command was written
OnTick = Callable[[Observation, "np.ndarray | None", np.ndarray], None]


@dataclass
class LoopResult:
    """How a run went.

    Attributes:
        reason: "done" when `until` said so, "stale" when the policy stayed away too long.
        ticks, held, skipped: ticks run, run without a target, left out.
        asked, answered, late: the planner's counts.
        closest: the shortest time between two ticks, s; infinite before the second.
        verdicts: the safety filter's counts.
    """

    reason: str = "done"
    ticks: int = 0
    held: int = 0
    skipped: int = 0
    asked: int = 0
    answered: int = 0
    late: int = 0
    closest: float = float("inf")
    verdicts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        # JSON knows no infinity.
        return dict(vars(self)) | {"closest": self.closest if self.closest < float("inf") else None}


def lasting(clock: Clock, seconds: float) -> Callable[[float], bool]:
    """An `until` that ends a run `seconds` from now."""
    end = clock.now() + seconds
    return lambda now: now >= end


def run(
    robot: Robot,
    planner: Planner,
    ticker: Ticker,
    budget: Budget,
    instruction: str,
    safety: Filter,
    until: Callable[[float], bool],
    patience: float = 5.0,
    on_tick: OnTick | None = None,
) -> LoopResult:
    """Obey `instruction` until `until(now)` is true.

    Without a target the filter holds: it brakes, then repeats the last command. After more than
    `patience` s of that the run stops. There is no `try` here: errors surface, and the caller's
    `with robot:` leaves the hardware safe.
    """
    result = LoopResult()
    fresh: float | None = None  # when there last was a target, or the run began
    before = -float("inf")
    for scheduled, now in ticker:
        if until(now):
            break
        result.closest, before = min(result.closest, now - before), now
        plan = planner.chunk
        budget.begin(now - scheduled, ticker.skipped)
        planner.receive(now)
        budget.mark("receive")
        seen = robot.read()
        # Cameras that render on demand are looked at only when the policy is about to be asked.
        frames = dict(seen.frames) if planner.due(seen.time) else seen.frames
        observation = replace(seen, instruction=instruction, frames=frames)
        budget.mark("capture")
        planner.submit(observation)
        budget.mark("send")
        # An answer may be there at once, and its first row is for the observation's time, not before.
        target = planner.target(max(now, observation.time))
        budget.mark("receive")
        command = safety(target, observation.state, now)
        budget.mark("filter")
        robot.write(command)
        budget.mark("write")
        budget.end()
        if planner.chunk is not None and planner.chunk is not plan:
            budget.answer(planner.chunk, now)
        if on_tick is not None:
            on_tick(observation, target, command)
        result.ticks += 1
        result.held += target is None
        fresh = now if target is not None or fresh is None else fresh
        if now - fresh > patience:
            result.reason = "stale"
            break
    return replace(
        result,
        skipped=ticker.skipped,
        asked=planner.asked,
        answered=planner.answered,
        late=planner.late,
        verdicts=dict(safety.verdicts),
    )
