"""The tick: read, plan, limit, write. One thread, and nothing in it waits but the ticker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from runtime.budget import Budget
from runtime.clock import Clock, Ticker
from runtime.guard import Guard
from runtime.instruct import Fixed, Instructions
from runtime.planner import Planner
from runtime.states import Flag, State
from vla.contract import Observation, Robot

# on_tick(observation, target or None, command), every tick, after the command was written
OnTick = Callable[[Observation, "np.ndarray | None", np.ndarray], None]


@dataclass
class LoopResult:
    """How a run went.

    Attributes:
        reason: "done" when `until` said so; "stale" when the policy stayed away too long, "interrupted",
            or "fault".
        ticks, held, skipped: ticks run, run without a target, left out.
        asked, answered, late, refused, failed, exceeded, kept, void: the planner's counts.
        closest: the shortest time between two ticks, s; infinite before the second.
        verdicts: the safety filter's counts.
        states: (s since the first tick, from, to, reasons) of the last changes of state.
    """

    reason: str = "done"
    ticks: int = 0
    held: int = 0
    skipped: int = 0
    asked: int = 0
    answered: int = 0
    late: int = 0
    refused: int = 0
    failed: int = 0
    exceeded: int = 0
    kept: int = 0
    void: int = 0
    closest: float = float("inf")
    verdicts: dict[str, int] = field(default_factory=dict)
    states: list[tuple[float, str, str, list[str]]] = field(default_factory=list)

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
    instruction: str | Instructions,
    guard: Guard,
    until: Callable[[float], bool],
    on_tick: OnTick | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    settle: bool = False,
) -> LoopResult:
    """Obey `instruction` until `until(now)` is true: a text, or what says at each tick what is wanted.

    Without a target in age the guard holds: it brakes, then repeats the last command. There is no `try`
    here: errors surface, and the caller's `with robot:` leaves the hardware safe.

    Args:
        interrupted: asked at each tick; once true the arm brakes, and the run ends when it stands.
        settle: brake to a stand when `until` is true, as a body of metal should; a simulated one may
            end where it is.
    """
    result = LoopResult()
    words = Fixed(instruction) if isinstance(instruction, str) else instruction
    told: str | None = None
    begun: float | None = None
    before = -float("inf")
    done = False
    for scheduled, now in ticker:
        begun = now if begun is None else begun
        if not done and until(now):
            if not settle:
                break
            done = True
        if done:
            guard.tell(Flag.FINISHED)
        if interrupted():
            guard.tell(Flag.INTERRUPTED)
        result.closest, before = min(result.closest, now - before), now
        budget.begin(now - scheduled, ticker.skipped)
        chunk, late, held, refused = planner.chunk, planner.late, planner.stale, planner.refused
        planner.receive(now)
        budget.mark("receive")
        seen = robot.read()
        told = _told(words, planner, seen, now, told)
        ask = told is not None and guard.fresh(seen, now) and planner.due(seen.time)
        observation = _worded(seen, told or "", ask)
        budget.mark("capture")
        if ask:
            planner.submit(observation)
        budget.mark("send")
        # An answer may be there at once, and its first row is for the observation's time, not before.
        target = _target(words, planner, told, max(now, observation.time))
        budget.mark("receive")
        waiting = told is None or not words.plays
        command = guard(target, observation, now, now - scheduled, ticker.skipped, planner.link_up, waiting)
        budget.mark("filter")
        robot.write(command)
        budget.mark("write")
        budget.end()
        if planner.chunk is not None and planner.chunk is not chunk:
            budget.answer(planner.chunk, now)
        budget.note("late", planner.late - late)
        budget.note("held", planner.stale - held)
        budget.note("refused", planner.refused - refused)
        if on_tick is not None:
            on_tick(observation, target, command)
        result.ticks += 1
        result.held += target is None
        if _ended(guard):
            result.reason = _reason(guard)
            break
    return _counted(result, planner, ticker, guard, begun or 0.0)


def _told(
    words: Instructions, planner: Planner, seen: Observation, now: float, before: str | None
) -> str | None:
    """The instruction for now; where it is another than `before`, the planner forgets the old one."""
    told = words.ask(seen, now, planner.answer)
    if told is None or not words.plays:
        if told != before or planner.chunk is not None:
            planner.drop()
    elif told != before:
        planner.renew(seen.time)
    planner.play_at(words.pace, now)
    return told


def _target(words: Instructions, planner: Planner, told: str | None, now: float) -> np.ndarray | None:
    """The action for `now`: a pose the words ask for, or the policy's; None to hold."""
    if words.pose is not None:
        return words.pose
    return planner.target(now) if told is not None and words.plays else None


def _worded(seen: Observation, instruction: str, ask: bool) -> Observation:
    """The observation with the words; cameras that render on demand are looked at only to be sent."""
    return replace(seen, instruction=instruction, frames=dict(seen.frames) if ask else seen.frames)


def _ended(guard: Guard) -> bool:
    """Whether the run is over: parked, or latched in a fault and at rest, which nobody here can clear."""
    state = guard.status.state
    return state is State.OFF or (state >= State.FAULT and guard.still)


def _reason(guard: Guard) -> str:
    if guard.status.state >= State.FAULT:
        return "fault"
    asked = {Flag.INTERRUPTED: "interrupted", Flag.FINISHED: "done"}
    return next((reason for flag, reason in asked.items() if flag in guard.status.latched), "stale")


def _counted(result: LoopResult, planner: Planner, ticker: Ticker, guard: Guard, begun: float) -> LoopResult:
    names = ("asked", "answered", "late", "refused", "failed", "exceeded", "kept", "void")
    states = [
        (round(time - begun, 4), before.name, after.name, list(reasons))
        for time, before, after, reasons in guard.history
    ]
    return replace(
        result,
        skipped=ticker.skipped,
        verdicts=dict(guard.verdicts),
        states=states,
        **{name: getattr(planner, name) for name in names},
    )
