"""What the arm is told, and how far it has come: a plan of steps that words begin, change and end.

hear(text) --> understood in the tick --> steps   waiting | running | done | failed | dropped
ask(seen)  <-- every tick: the instruction for now; None: hold still

look    the policy is asked whether what is named is there; nothing is played
return  the arm goes to where it began, so that its cameras see the table
do      the policy plays; its own head says when the step is done, a clock when it is given up
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from runtime.skills import Reading, Skills, Wish
from runtime.spoken import Say, kind
from vla.contract import ActionChunk, Observation

PACES = (0.25, 0.5, 1.0, 1.5)  # times the policy's own


class Instructions(Protocol):
    """What the loop asks at every tick.

    Attributes:
        plays: whether what the policy answers is to be played, or only looked at.
        pace: how fast rows are played, 1 for as planned.
        pose: where the arm is to go by itself, shape (A,); None for nowhere.
    """

    @property
    def plays(self) -> bool: ...

    @property
    def pace(self) -> float: ...

    @property
    def pose(self) -> np.ndarray | None: ...

    def ask(self, seen: Observation, now: float, answer: ActionChunk | None) -> str | None:
        """The instruction for `now` (s); None: hold still.

        Args:
            answer: the newest answer to the instruction of before; None before the first.
        """


class Fixed:
    """One instruction from the beginning to the end."""

    plays, pace = True, 1.0
    pose: np.ndarray | None = None

    def __init__(self, text: str) -> None:
        self.text = text

    def ask(self, seen: Observation, now: float, answer: ActionChunk | None) -> str | None:
        return self.text


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    Attributes:
        text: the instruction as the policy is told it.
        state: waiting, running, done, failed or dropped.
    """

    text: str
    state: str = "waiting"


@dataclass(frozen=True)
class Patience:
    """When a step counts as what.

    Attributes:
        done: its probability, from which an answer says so.
        answers: how many have to say so one after the other.
        leave: s that the policy goes on after that, to let go and get away.
        allowed: s for one try, at the policy's own pace.
        tries: of a step.
        absent: answers one after the other that move nothing, from which what is named is not there.
        home: s for the way back to where the arm began. near: rad or m, what counts as being there.
    """

    done: float = 0.5
    answers: int = 3
    leave: float = 1.0
    allowed: float = 12.0
    tries: int = 2
    absent: int = 3
    home: float = 3.0
    near: float = 0.08


class Phase(enum.Enum):
    IDLE = "idle"
    RETURN = "return"
    LOOK = "look"
    DO = "do"
    LEAVE = "leave"


class Words:
    """A plan that is talked to while the arm moves.

    Attributes:
        plan: its steps; those of the plan before stay until the next one begins.
        log: (time in s, line) of what was said back, oldest first; the last 200.
        lines: how many there were in all.
        plays, pace, pose: see `Instructions`.
    """

    def __init__(
        self, skills: Skills, text: str = "", patience: Patience | None = None, paces: bool = True
    ) -> None:
        """
        Args:
            text: heard before the first tick.
            paces: whether the policy's rows may be played faster or slower: not where they are steps.
        """
        self.plan: tuple[Step, ...] = ()
        self.log: deque[tuple[float, str]] = deque(maxlen=200)
        self.lines = 0
        self.plays, self.pace = True, 1.0
        self.pose: np.ndarray | None = None
        self._skills, self._patience, self._paces = skills, patience or Patience(), paces
        self._wishes: dict[str, Wish] = {}
        self._start: np.ndarray | None = None
        self._phase, self._since, self._paused = Phase.IDLE, 0.0, False
        self._try = self._agreed = self._empty = 0
        self._answered = -np.inf
        self._looked: list[str] = []
        self._found: list[str] = []
        self._last = ""
        self._moved = False
        if text:
            self.hear(text, 0.0)

    # -- what people say

    @property
    def step(self) -> Step | None:
        """The step that runs."""
        return next((step for step in self.plan if step.state == "running"), None)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not any(step.state in ("waiting", "running") for step in self.plan)

    @property
    def paused(self) -> bool:
        """Whether it was told to wait."""
        return self._paused

    def hear(self, text: str, now: float) -> str:
        """Take what a person said at `now` (s) and answer in words, at once."""
        what, rest = kind(text)
        answer = {
            Say.NOTHING: self._nothing, Say.STOP: self._stop, Say.WAIT: self._wait,
            Say.GO_ON: self._go_on, Say.FASTER: self._faster, Say.SLOWER: self._slower,
            Say.NORMAL: self._normal, Say.UNDO: self._undo,
        }  # fmt: skip
        if what in answer:
            said = answer[what](now)
        elif what is Say.CORRECTION:
            said = self._correct(rest, now)
        else:
            said = self._told(rest, now, more=what is Say.NEXT)
        return self._say(said, now)

    def _nothing(self, now: float) -> str:
        return "yes?"

    def _stop(self, now: float) -> str:
        left = [step for step in self.plan if step.state in ("waiting", "running")]
        self._drop()
        return f"stopped; dropped: {'; '.join(s.text for s in left)}" if left else "I stand still"

    def _wait(self, now: float) -> str:
        self._paused = not self.over
        return "waiting; say go on" if self._paused else "I stand still"

    def _go_on(self, now: float) -> str:
        if self._paused:
            self._paused = False
            self._enter(self._phase, now)
            return f"going on: {self.step.text if self.step else ''}"
        failed = next((i for i, s in enumerate(self.plan) if s.state == "failed"), None)
        left = [] if failed is None else [s for s in self.plan[failed + 1 :] if s.state == "dropped"]
        if self.over and left:
            self._begin([Step(s.text) for s in left], now)
            return f"going on without it: {'; '.join(s.text for s in left)}"
        return "nothing to go on with: say what I am to do" if self.over else "I am at it"

    def _faster(self, now: float) -> str:
        return self._change_pace(1)

    def _slower(self, now: float) -> str:
        return self._change_pace(-1)

    def _normal(self, now: float) -> str:
        self.pace = 1.0
        return "at the usual pace"

    def _change_pace(self, by: int) -> str:
        if not self._paces:
            return "I cannot change the pace: this policy's actions are steps, not places"
        at = PACES.index(self.pace) + by
        if not 0 <= at < len(PACES):
            return f"that is all I can: {self.pace:g} times the usual pace"
        self.pace = PACES[at]
        return f"at {self.pace:g} times the usual pace"

    def _undo(self, now: float) -> str:
        return "I cannot undo what is done; say where each thing is to go"

    def _correct(self, rest: str, now: float) -> str:
        step = self.step
        if not rest:
            return f"{self._stop(now)}; what do you want instead?"
        about = step.text if step else self._last
        reading = self._skills.correct(rest, about) if about else self._skills.read(rest)
        if reading.problem or not reading.wishes:
            return self._lost(reading, rest)
        if step is None:
            return self._begin_wishes(reading, now)
        self._keep(reading)
        after = [s for s in self.plan if s.state == "waiting"]
        self.plan = tuple(
            replace(s, state="dropped") if s is step else s for s in self.plan if s not in after
        )
        self.plan += tuple(Step(w.text) for w in reading.wishes) + tuple(after)
        # The hand is in the air: it turns at once, and is not led home first.
        self._run_next(now, home=False)
        return f"{step.text} -> {'; then '.join(w.text for w in reading.wishes)}"

    def _told(self, text: str, now: float, more: bool) -> str:
        reading = self._skills.read(text, self._last)
        if reading.problem or not reading.wishes:
            return self._lost(reading, text)
        if more and not self.over:
            self._keep(reading)
            self.plan += tuple(Step(w.text) for w in reading.wishes)
            return f"after that: {'; then '.join(w.text for w in reading.wishes)}"
        return self._begin_wishes(reading, now)

    def _begin_wishes(self, reading: Reading, now: float) -> str:
        self._keep(reading)
        self._begin([Step(w.text) for w in reading.wishes], now)
        meant = "; then ".join(w.text for w in reading.wishes)
        return f"taken to mean: {meant}" if reading.guessed else meant

    def _lost(self, reading: Reading, text: str) -> str:
        near = self._skills.nearest(text)
        problem = reading.problem or f"I do not understand {text!r}"
        return f"{problem}. I know how to {'; '.join(near)}" if near else problem

    # -- what the loop asks

    def ask(self, seen: Observation, now: float, answer: ActionChunk | None) -> str | None:
        """See `Instructions`."""
        if self._start is None:
            self._start = np.array(seen.state, float)
        self.pose, self.plays = None, True
        if self._paused or self._phase is Phase.IDLE:
            return None
        fresh = answer is not None and answer.time > self._answered
        if answer is not None and fresh:
            self._answered = answer.time
        heard = answer if fresh else None
        if self._phase is Phase.RETURN:
            self._returning(seen, now)
        elif self._phase is Phase.LOOK:
            self._looking(heard, now)
        elif self._phase is Phase.DO:
            self._doing(heard, now)
        elif now - self._since >= self._patience.leave / self.pace:
            self._run_next(now)
        return self._instruction(seen)

    def _instruction(self, seen: Observation) -> str | None:
        """What the phase that was come to wants."""
        step = self.step
        if self._phase is Phase.RETURN:
            self.pose = self._home(seen)
            return None
        if self._phase is Phase.LOOK:
            self.plays = False
            return self._looked[0]
        if self._phase in (Phase.DO, Phase.LEAVE):
            self._moved = True
            return self._last if step is None else step.text
        return None

    def _home(self, seen: Observation) -> np.ndarray:
        assert self._start is not None
        return self._start

    def _returning(self, seen: Observation, now: float) -> None:
        assert self._start is not None
        away = float(np.abs(np.asarray(seen.state, float) - self._start)[:-1].max())
        if away < self._patience.near or now - self._since > self._patience.home:
            self._moved = False
            self._look_or_do(now)

    def _look_or_do(self, now: float) -> None:
        step = self.step
        assert step is not None
        wish = self._wishes.get(step.text)
        if wish is not None and wish.each:
            self._looked, self._found = list(wish.each), []
            self._enter(Phase.LOOK, now)
        else:
            self._last = step.text
            self._enter(Phase.DO, now)

    def _looking(self, answer: ActionChunk | None, now: float) -> None:
        if answer is None:
            return
        candidate = self._looked.pop(0)
        if not stands(answer):
            self._found.append(candidate)
        if self._looked:
            return
        step = self.step
        found = [Step(text) for text in self._found]
        here = next(i for i, s in enumerate(self.plan) if s is step)
        if found:
            self.plan = self.plan[:here] + tuple(found) + self.plan[here + 1 :]
            self._say(f"I see {len(found)}: {'; '.join(s.text for s in found)}", now)
            self._run_next(now, home=False)
        else:
            self._fail("I see none of them", now)

    def _doing(self, answer: ActionChunk | None, now: float) -> None:
        p = self._patience
        if answer is not None:
            self._agreed = self._agreed + 1 if (answer.done or 0.0) >= p.done else 0
            self._empty = self._empty + 1 if stands(answer) else 0
        if self._agreed >= p.answers:
            self._set("done")
            self._say(f"done: {self._last}", now)
            self._enter(Phase.LEAVE, now)
        elif self._empty >= p.absent:
            self._fail("something that it names is not there", now)
        elif now - self._since > p.allowed / self.pace:
            self._try += 1
            if self._try < p.tries:
                self._say(f"not done after {p.allowed:g} s, trying again: {self._last}", now)
                self._enter(Phase.RETURN, now)
            else:
                self._fail(f"not done after {self._try} tries of {p.allowed:g} s", now)

    # -- how a plan goes on

    def _keep(self, reading: Reading) -> None:
        self._wishes |= {wish.text: wish for wish in reading.wishes}

    def _begin(self, steps: list[Step], now: float) -> None:
        self._paused = False
        busy = not self.over
        self.plan = tuple(steps)
        # An arm at work turns to what it is told now; one that has stood goes where it can see first.
        self._run_next(now, home=not busy)

    def _run_next(self, now: float, home: bool = True) -> None:
        step = next((s for s in self.plan if s.state == "waiting"), None)
        if step is None:
            self._enter(Phase.IDLE, now)
            return
        self.plan = tuple(replace(s, state="running") if s is step else s for s in self.plan)
        self._try = 0
        if home and self._moved:
            self._enter(Phase.RETURN, now)
        else:
            self._look_or_do(now)

    def _fail(self, why: str, now: float) -> None:
        step = self.step
        self._set("failed")
        left = [s for s in self.plan if s.state == "waiting"]
        self._drop()
        more = f"; left undone: {'; '.join(s.text for s in left)} (say go on)" if left else ""
        self._say(f"failed: {step.text if step else self._last}: {why}{more}", now)

    def _drop(self) -> None:
        self.plan = tuple(
            replace(s, state="dropped") if s.state in ("waiting", "running") else s for s in self.plan
        )
        self._paused = False
        self._phase = Phase.IDLE

    def _set(self, state: str) -> None:
        self.plan = tuple(replace(s, state=state) if s.state == "running" else s for s in self.plan)

    def _enter(self, phase: Phase, now: float) -> None:
        self._phase, self._since, self._agreed, self._empty = phase, now, 0, 0

    def _say(self, line: str, now: float) -> str:
        self.log.append((now, line))
        self.lines += 1
        return line


def stands(chunk: ActionChunk) -> bool:
    """Whether a policy's answer moves nothing: its last rows, which nothing has committed, are one pose."""
    last = chunk.actions[-3:]
    return bool((last == last[:1]).all())
