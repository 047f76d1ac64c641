"""A run that people look at and talk to: between the loop on one side and a console's feed on the other.

The loop calls `until` before a tick and `on_tick` after it. A stop is obeyed in the tick that finds it,
before anything else that was wished; what is sent to the console is the newest and may be lost.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from runtime import joining, spoken
from runtime.budget import POLICY, Budget, limits
from runtime.console import Command, Feed
from runtime.delay import DelayedLink
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.planner import Link, Planner
from runtime.states import Event, Flag
from vla.contract import Observation, TaktError

FASTEST = 1 / 30  # s between two states sent
LOOKS, IDLE_LOOKS = (
    1 / 15,
    1.0,
)  # s between two looks at the cameras: while it is asked, while it waits for words
QUIET = 0.5  # s after a stop in which nothing that is said moves the arm: it may have been on its way already
RECENT = 0.5  # s of ticks that a message repeats, in case one before it was lost
_BEGIN = (spoken.Say.TASK, spoken.Say.NEXT, spoken.Say.CORRECTION, spoken.Say.GO_ON)


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


class Recorder(Protocol):
    """What a record button calls. Neither may wait."""

    def begin(self, instruction: str) -> None: ...

    def end(self) -> str:
        """What was recorded, in words."""


class Live:
    """What is shown of one run after the other, and what people want of them.

    Attributes:
        table: {"seed", "try": sentences that make sense on it} where there is one to lay anew, or None.
        feed: where it is shown.
        wanted: the seed of another table that was asked for; -1 for any; None for none. It ends a run.
    """

    def __init__(
        self,
        feed: Feed,
        folder: Path,
        about: Mapping[str, Any],
        link: DelayedLink,
        policies: Mapping[str, Link] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """
        Args:
            folder: that of the feed.
            about: "robot", "policy" and "rate" for people.
            link: the way to the policy that the planners of all runs have.
            policies: by name the links that may take its place.
        """
        self.table: dict[str, Any] | None = None
        self.wanted: int | None = None
        self.feed, self._folder, self._about, self._link = feed, folder, dict(about), link
        self._policies = dict(policies or {})
        self._recorder, self._recording, self._recorded = recorder, False, "recorder"
        self._policy = next((name for name, one in self._policies.items() if one is link.link), "")
        self._join: str | None = None
        self._numbers = dict.fromkeys(("ticks", "chunks", "said", "changes"), 0)
        self._rows: dict[str, deque[list[Any]]] = {
            "ticks": deque(maxlen=16), "chunks": deque(maxlen=12), "said": deque(maxlen=8),
            "changes": deque(maxlen=8),
        }  # fmt: skip
        self._begun: float | None = None
        self._stopped = -np.inf
        self._sent = self._looked = self._model_of = -np.inf
        self._change = -np.inf

    # -- a run begins

    def begin(self, robot: Any, words: Words, planner: Planner, guard: Guard, budget: Budget) -> None:
        """The parts of the run that comes now; how chunks are joined stays as it was chosen."""
        self._world = robot if isinstance(robot, Simulated) else None
        self._words, self._guard = words, guard
        self._planner, self._budget = planner, budget
        self._judge: Callable[[str | None, float], str] | None = None
        self._row = budget.ring.count
        self._lines = words.lines
        self._answered = self._change = -np.inf
        self._before: tuple[float, np.ndarray] | None = None
        self._joins = [n for n in joining.JOININGS if n != "rtc" or planner.spec.joining != "none"]
        limit = limits(planner.spec, planner.period, planner.replan)
        self._about |= {f"{n}_ms": 1e3 * limit[s] for n, s in (("period", "tick"), ("late", "lateness"))}
        self._about["chunk_ms"] = 1e3 * limit["chunk"]
        self._rows["ticks"] = deque(self._rows["ticks"], max(16, round(RECENT / planner.period)))
        if self._join is not None:
            self._set_join(self._join)
        self.wanted = None

    def judged(self, judge: Callable[[str | None, float], str]) -> None:
        """Let somebody who can see say what came of the instruction of now; "" for nothing new."""
        self._judge = judge

    # -- what people want

    def until(self, now: float) -> bool:
        """Take what came from the console; whether the run is to end for another table."""
        stopped, commands = self.feed.poll()
        if stopped:
            self.stop(now)
        for command in commands:
            try:
                self._obey(command, now)
            except TaktError as error:
                self.say(now, "", str(error), "bad")
        if self.feed.gone():
            print("takt: the console has gone; the run goes on without it", file=sys.stderr, flush=True)
        return self.wanted is not None

    def beside(self, until: Callable[[float], bool]) -> Callable[[float], bool]:
        """Another `until` with this one; both are asked at every tick."""
        return lambda now: self.until(now) | until(now)

    def stop(self, now: float) -> None:
        """Brake at the limits and stand; what was asked for is dropped."""
        self._stopped = now
        self._guard.tell(Event.STOP)
        answer = self._hear("stop", now)
        self.say(now, "STOP", answer, "")

    def _hear(self, text: str, now: float) -> str:
        self._tell_lines(now)
        answer = self._words.hear(text, now)
        self._lines = self._words.lines
        return answer

    def _obey(self, command: Command, now: float) -> None:
        do = command["do"]
        if do == "say":
            text = str(command["text"])
            if now - self._stopped < QUIET:
                self.say(now, text, "not taken: somebody has just pressed STOP; say it again", "bad")
                return
            if spoken.kind(text)[0] in _BEGIN:
                self._guard.tell(Event.START)  # it counts after a stop, and at no other time
            self.say(now, text, self._hear(text, now), "")
        elif do == "set":
            self._set(str(command["name"]), command["value"])
        elif do == "table" and self.table is not None:
            self._hear("stop", now)
            seed = command["seed"]
            self.wanted = -1 if seed is None else int(seed)
        elif do == "record" and self._recorder is not None:
            self._record(bool(command["on"]))

    def _set(self, name: str, value: Any) -> None:
        if name == "delay_ms" and isinstance(value, int | float):
            self._link.delay(value / 1000.0)
        elif name == "join":
            self._set_join(str(value))
        elif name == "policy" and value in self._policies and value != self._policy:
            self._policy, self._link.link = str(value), self._policies[value]
        elif name not in ("delay_ms", "join", "policy"):
            raise TaktError(f"nothing here is called {name!r}")

    def _set_join(self, name: str) -> None:
        """Join otherwise from now on; the running chunk runs on."""
        old, new = self._planner.join, joining.make(name, self._planner.spec)
        new.pace, new.chunk = old.pace, old.chunk
        self._planner.join, self._join = new, name

    def _record(self, on: bool) -> None:
        assert self._recorder is not None
        if on and not self._recording:
            self._recorder.begin("; ".join(step.text for step in self._words.plan))
            self._recorded = "recording"
        elif not on and self._recording:
            self._recorded = self._recorder.end()
        self._recording = on

    # -- what is shown

    def say(self, now: float, text: str, answer: str, tone: str) -> None:
        """A line for people: what one of them said, or "", and the answer. tone: "", "good" or "bad"."""
        self._put("said", [round(now, 3), text, answer, tone])

    def _put(self, series: str, row: list[Any]) -> None:
        self._numbers[series] += 1
        self._rows[series].append([self._numbers[series], *row])

    def on_tick(self, seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
        """A tick was run: keep what is to be seen of it, and send it when it is time to."""
        now = seen.time
        self._begun = now if self._begun is None else self._begun
        self._tick(now, target, command)
        self._answer(now)
        self._tell_lines(now)
        self._tell_changes()
        if self._judge is not None:
            verdict = self._judge(self._told(), now)
            if verdict:
                self.say(now, "", verdict, "good")
        if now - self._sent >= FASTEST - 0.003:
            self._sent = now
            self.feed.send(self._state(now))
        self._look(seen, now)

    def _tick(self, now: float, target: np.ndarray | None, command: np.ndarray) -> None:
        late = work = skipped = 0.0
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
        self._put("ticks", [round(1e3 * late, 3), round(1e3 * work, 3), held, int(skipped), round(speed, 3)])

    def _answer(self, now: float) -> None:
        answer = self._planner.answer
        if answer is None or answer.time <= self._answered:
            return
        self._answered = answer.time
        total = 1e3 * (now - answer.time)
        stages = {name: 1e3 * s for name, s in answer.stages.items() if name in POLICY}
        stages["injected"] = 1e3 * self._link.waited
        stages["way"] = max(0.0, total - sum(stages.values()))
        rounded = {name: round(ms, 2) for name, ms in stages.items()}
        late = total > self._about["chunk_ms"]
        self._put("chunks", [round(total, 2), late, len(answer.step_seconds), rounded])

    def _told(self) -> str | None:
        return next((step.text for step in self._words.plan if step.state == "running"), None)

    def _tell_lines(self, now: float) -> None:
        """What the words say of themselves: done, failed, trying again."""
        new = self._words.lines - self._lines
        self._lines = self._words.lines
        for time, line in list(self._words.log)[len(self._words.log) - new :] if new > 0 else ():
            tone = "bad" if line.startswith("failed") else "good" if line.startswith("done") else ""
            self.say(time, "", line, tone)

    def _tell_changes(self) -> None:
        history = self._guard.history
        if not history or history[-1][0] <= self._change:
            return
        for time, before, after, reasons in list(history)[-8:]:
            if time > self._change:
                self._put(
                    "changes",
                    [
                        round(max(0.0, time - (self._begun or time)), 2),
                        before.name,
                        after.name,
                        list(reasons),
                    ],
                )
        self._change = history[-1][0]

    def _state(self, now: float) -> dict[str, Any]:
        planner, status = self._planner, self._guard.status
        names = ("asked", "answered", "late", "exceeded", "refused", "failed", "kept", "void")
        counts = {name: getattr(planner, name) for name in names}
        counts |= {"held": planner.stale, "skipped": self._budget.skipped, "ticks": self._budget.ticks}
        state: dict[str, Any] = {name: list(rows) for name, rows in self._rows.items()}
        state |= {
            "time": now, "about": self._about, "state": status.state.name, "reasons": list(status.reasons),
            "plan": [[step.text, step.state] for step in self._words.plan], "pace": self._words.pace,
            "counts": counts, "table": self.table, "scene": self._scene(now),
            "recording": {"on": self._recording, "said": self._recorded} if self._recorder else None,
            "knobs": {
                "delay_ms": 1e3 * self._link.seconds, "join": planner.join.name, "joins": self._joins,
                "policy": self._policy, "policies": list(self._policies),
            },
        }  # fmt: skip
        return state

    def _scene(self, now: float) -> dict[str, Any] | None:
        if self._world is None:
            return None
        version = self._world.laid
        if version != self._model_of:
            # The file is whole before its name is sent; an older one is read by nobody any more.
            self._world.save_model(self._folder / f"scene-{version}.mjb")
            self._model_of = version
        return {"version": version, "time": now, "state": self._world.physics().tobytes()}

    def _look(self, seen: Observation, now: float) -> None:
        """Show frames that are there; have some rendered now and then, while nothing is at stake."""
        if not self.feed.viewers or now - self._looked < LOOKS:
            return
        waits = Flag.WAITING in self._guard.status.active and now - self._looked >= IDLE_LOOKS
        if isinstance(seen.frames, dict) or waits:
            self._looked = now
            self.feed.show(now, dict(seen.frames))
