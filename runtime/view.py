"""What people see of a run: a state in one message, with the last of what happened before it.

"state", "reasons"          the guard's
"plan"                      [[text, waiting|running|done|failed|dropped], ...]
"about"                     robot, policy, rate [Hz], period_ms, late_ms, chunk_ms: what is due by when;
                            speaks: the policy whose language is spoken
"counts"                    the planner's, and ticks: asked, answered, late, held, skipped, ...
"scene"                     {"version", "time", "state"} of a simulated robot, or None
series, each row with a rising number first; the last ones are repeated:
"ticks"     late [ms], computed [ms], whether it held, ticks skipped before it, the fastest joint [rad/s]
"chunks"    from the observation to the answer [ms], whether that was late, steps, {stage: ms}
"said"      time [s], what a person said or "", the answer, its tone: "", "good" or "bad"
"changes"   s since the first tick, from, to, reasons
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from runtime.budget import POLICY, Budget, limits
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.planner import Planner
from runtime.states import Flag

RECENT = 0.5  # s of ticks that a message repeats, in case one before it was lost
COUNTED = ("asked", "answered", "late", "exceeded", "refused", "failed", "kept", "void")


@runtime_checkable
class Simulated(Protocol):
    """A robot whose world can be looked at from all sides.

    Attributes:
        laid: changes whenever the model does.
    """

    laid: int

    def save_model(self, path: Path) -> None:
        """The model, as MuJoCo's own binary file."""

    def physics(self) -> np.ndarray:
        """The state now, mjSTATE_INTEGRATION, float64."""


class View:
    """The series of one run after the other."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """`folder` is where models are put for the console."""
        self._folder, self._about = folder, dict(about)
        self._numbers = dict.fromkeys(("ticks", "chunks", "said", "changes"), 0)
        self._rows: dict[str, deque[list[Any]]] = {
            "ticks": deque(maxlen=16), "chunks": deque(maxlen=12), "said": deque(maxlen=8),
            "changes": deque(maxlen=8),
        }  # fmt: skip
        self._begun: float | None = None
        self._model: int | None = None  # the newest that was put into the folder

    def begin(self, robot: Any, words: Words, planner: Planner, guard: Guard, budget: Budget) -> None:
        """The parts of the run that comes now."""
        self._world = robot if isinstance(robot, Simulated) else None
        self._words, self._planner, self._guard, self._budget = words, planner, guard, budget
        self._row, self._lines = budget.ring.count, words.lines
        self._answered = self._change = -np.inf
        self._before: tuple[float, np.ndarray] | None = None
        limit = limits(planner.spec, planner.period, planner.replan)
        due = {"period_ms": "tick", "late_ms": "lateness", "chunk_ms": "chunk"}
        self._about |= {name: 1e3 * limit[stage] for name, stage in due.items()}
        self._about["speaks"] = planner.spec.name
        self._rows["ticks"] = deque(self._rows["ticks"], max(16, round(RECENT / planner.period)))

    def say(self, now: float, text: str, answer: str, tone: str) -> None:
        """A line for people; see "said"."""
        self._put("said", round(now, 3), text, answer, tone)

    def heard(self) -> None:
        """What the words have said until now is told already."""
        self._lines = self._words.lines

    def _put(self, series: str, *row: Any) -> None:
        self._numbers[series] += 1
        self._rows[series].append([self._numbers[series], *row])

    # -- a tick

    def tick(self, now: float, waited: float, target: np.ndarray | None, command: np.ndarray) -> None:
        """Keep what is to be seen of a tick that was run.

        Args:
            now: s. waited: how long the newest answer was kept back, s.
            target, command: shape (A,); None for no target.
        """
        self._begun = now if self._begun is None else self._begun
        self._tick(now, target, command)
        self._answer(now, waited)
        self.lines()
        self._changes()

    def _tick(self, now: float, target: np.ndarray | None, command: np.ndarray) -> None:
        late = work = 0.0
        skipped = 0
        for name, seconds, number in self._budget.ring.each(self._row):
            late += seconds if name == "lateness" else 0.0
            work += seconds if name == "tick" else 0.0
            skipped += number if name == "skipped" else 0
        self._row = self._budget.ring.count
        speed = 0.0
        if self._before is not None and now > self._before[0]:
            speed = float(np.abs(command - self._before[1]).max()) / (now - self._before[0])
        self._before = now, command
        held = int(target is None and Flag.WAITING not in self._guard.status.active)
        self._put("ticks", round(1e3 * late, 3), round(1e3 * work, 3), held, skipped, round(speed, 3))

    def _answer(self, now: float, waited: float) -> None:
        answer = self._planner.answer
        if answer is None or answer.time <= self._answered:
            return
        self._answered = answer.time
        total = 1e3 * (now - answer.time)
        stages = {name: 1e3 * s for name, s in answer.stages.items() if name in POLICY}
        stages["injected"] = 1e3 * waited
        stages["way"] = max(0.0, total - sum(stages.values()))
        rounded = {name: round(ms, 2) for name, ms in stages.items()}
        self._put(
            "chunks", round(total, 2), total > self._about["chunk_ms"], len(answer.step_seconds), rounded
        )

    def lines(self) -> None:
        """What the words say of themselves: done, failed, trying again."""
        new = self._words.lines - self._lines
        self._lines = self._words.lines
        for time, line in list(self._words.log)[-new:] if new > 0 else ():
            tone = "bad" if line.startswith("failed") else "good" if line.startswith("done") else ""
            self.say(time, "", line, tone)

    def _changes(self) -> None:
        history = self._guard.history
        if not history or history[-1][0] <= self._change:
            return
        for time, before, after, reasons in list(history)[-8:]:
            if time > self._change:
                since = round(max(0.0, time - (self._begun or time)), 2)
                self._put("changes", since, before.name, after.name, list(reasons))
        self._change = history[-1][0]

    # -- the message

    def state(self, now: float) -> dict[str, Any]:
        """All of it at `now`, s."""
        status = self._guard.status
        counts = {name: getattr(self._planner, name) for name in COUNTED}
        counts |= {
            "held": self._planner.stale, "skipped": self._budget.skipped, "ticks": self._budget.ticks,
        }  # fmt: skip
        return {name: list(rows) for name, rows in self._rows.items()} | {
            "time": now, "about": self._about, "state": status.state.name, "reasons": list(status.reasons),
            "plan": [[step.text, step.state] for step in self._words.plan], "pace": self._words.pace,
            "counts": counts, "scene": self._scene(now),
        }  # fmt: skip

    def _scene(self, now: float) -> dict[str, Any] | None:
        if self._world is None:
            return None
        version = self._world.laid
        if version != self._model:
            # The file is whole before its name is sent.
            self._world.save_model(self._folder / f"scene-{version}.mjb")
            self._model = version
        return {"version": version, "time": now, "state": self._world.physics().tobytes()}
