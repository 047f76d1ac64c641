"""What the arm is told: words begin a plan, change it while the arm moves, and end it.

hear(text) --> understood in the tick --> steps   waiting | running | done | failed | dropped
ask(seen)  <-- every tick: the instruction for now; None: hold still
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

import numpy as np

from runtime.advisor import Advisor
from runtime.agenda import Agenda, Patience, Phase, Step
from runtime.skills import Reading, Skills, Wish
from runtime.spoken import Say, kind, plain
from vla.contract import ActionChunk, Observation, RobotSpec

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


class Words:
    """A plan that is talked to while the arm moves; `hear` may be called from any thread.

    Attributes:
        log: (time in s, line) of what was said back, oldest first; the last 200.
        lines: how many there were in all.
        pace: how fast rows are played, one of `PACES`.
    """

    def __init__(
        self,
        skills: Skills,
        text: str = "",
        robot: RobotSpec | None = None,
        patience: Patience | None = None,
        advisor: Advisor | None = None,
    ) -> None:
        """
        Args:
            text: heard before the first tick.
            robot: the body that obeys. Without it the arm is not led back between steps.
            advisor: asked about what the skills do not understand; they hold where it is of no help.
        """
        self.log: deque[tuple[float, str]] = deque(maxlen=200)
        self.lines = 0
        self.pace = 1.0
        self._skills, self._advisor = skills, advisor
        self._thinking = ""  # what the advisor was asked
        # Rows that are steps and not places would add up to more or less when they are stretched.
        self._paces = robot is None or bool(robot.actions.absolute.all())
        self._agenda = Agenda(self._say, patience, robot)
        self._lock = threading.RLock()
        if text:
            self.hear(text, 0.0)

    @property
    def plan(self) -> tuple[Step, ...]:
        """The steps; those of the plan before stay until the next one begins."""
        return self._agenda.plan

    @property
    def plays(self) -> bool:
        """See `Instructions`."""
        return self._agenda.plays

    @property
    def pose(self) -> np.ndarray | None:
        """See `Instructions`."""
        return self._agenda.pose

    @property
    def thinking(self) -> bool:
        """Whether the advisor is asked about something."""
        return bool(self._thinking)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, and the hand has got away from what it did."""
        return not self._thinking and self._agenda.over and self._agenda.phase is not Phase.LEAVE

    @property
    def failed(self) -> bool:
        """Whether there is a step that failed, or no plan at all."""
        return not self.plan or any(step.state == "failed" for step in self.plan)

    @property
    def unfinished(self) -> bool:
        """Whether a policy that can tell has not said yet that all is done."""
        return self._agenda.tells and not self._agenda.over

    @property
    def paused(self) -> bool:
        """Whether it was told to wait."""
        return self._agenda.paused

    def ask(self, seen: Observation, now: float, answer: ActionChunk | None) -> str | None:
        """See `Instructions`."""
        with self._lock:
            self._agenda.pace = self.pace
            if self._thinking:
                self._advised(now)
            return self._agenda.ask(seen, now, answer)

    def hear(self, text: str, now: float) -> str:
        """Take what a person said at `now` (s) and answer in words, at once."""
        with self._lock:
            what, rest = kind(text)
            self._thinking = ""  # an answer to what was said before comes too late
            return self._say(self._answer(what, rest, now), now)

    def _answer(self, what: Say, rest: str, now: float) -> str:
        a = self._agenda
        if what is Say.NOTHING:
            return "yes?"
        if what is Say.STOP:
            return self._stop()
        if what is Say.WAIT:
            a.wait()
            return "waiting; say go on" if a.paused else "I stand still"
        if what is Say.GO_ON:
            return self._go_on(now)
        if what is Say.DONE:
            if a.step is None or a.phase is not Phase.DO:
                return "nothing runs that could be done"
            a.told_done(now)
            return f"done, as you say: {a.last}"
        if what is Say.UNDO:
            return "I cannot undo what is done; say where each thing is to go"
        if what in (Say.FASTER, Say.SLOWER, Say.NORMAL):
            return self._change_pace(what)
        if what is Say.CORRECTION:
            return self._correct(rest, now)
        return self._told(rest, now, more=what is Say.NEXT)

    def _stop(self) -> str:
        left = [step.text for step in self.plan if step.state in ("waiting", "running")]
        self._agenda.drop()
        self._agenda.left = []
        return f"stopped; dropped: {'; '.join(left)}" if left else "I stand still"

    def _go_on(self, now: float) -> str:
        a = self._agenda
        if a.paused:
            a.go_on(now)
            return f"going on: {a.last}"
        left = a.left
        if a.over and left:
            a.begin([Wish(text) for text in left], now)
            return f"going on without it: {'; '.join(left)}"
        return "nothing to go on with: say what I am to do" if a.over else "I am at it"

    def _change_pace(self, what: Say) -> str:
        if not self._paces:
            return "I cannot change the pace: this policy's actions are steps, not places"
        by = {Say.FASTER: 1, Say.SLOWER: -1, Say.NORMAL: 0}[what]
        at = (PACES.index(self.pace) if by else PACES.index(1.0)) + by
        if not 0 <= at < len(PACES):
            return f"that is all I can: {self.pace:g} times the usual pace"
        self.pace = PACES[at]
        if what is Say.NORMAL:
            return "at the usual pace"
        return f"at {self.pace:g} times the usual pace"

    def _correct(self, rest: str, now: float) -> str:
        a, step = self._agenda, self._agenda.step
        if not rest:
            return f"{self._stop()}; what do you want instead?"
        about = step.text if step else a.last
        reading = self._skills.correct(rest, about) if about else self._skills.read(rest)
        if not reading.wishes:
            return self._lost(reading, rest)
        if step is None:
            return self._begin(reading, now)
        a.turn(list(reading.wishes), now)
        return f"{step.text} -> {told(reading)}"

    def _told(self, text: str, now: float, more: bool) -> str:
        a = self._agenda
        if (chosen := self._chosen(text)) is not None:
            a.begin([Wish(chosen)], now)
            return chosen
        reading = self._skills.read(text, a.last)
        if not reading.wishes:
            if a.step is not None and self._skills.correct(text, a.step.text).wishes:
                return self._correct(text, now)  # "the blue one", said without a "no"
            if self._advisor is not None and self._advisor.ask(text):
                self._thinking = text
                return f"let me think about {text!r}"
            return self._lost(reading, text)
        if more and not a.over:
            a.add(list(reading.wishes))
            return f"after that: {told(reading)}"
        return self._begin(reading, now)

    def _advised(self, now: float) -> None:
        """Take what the advisor made of a sentence, if it is there and nothing else was said meanwhile."""
        assert self._advisor is not None
        answer = self._advisor.poll()
        if answer is None or answer[0] != self._thinking:
            return
        self._thinking = ""
        text, reading = answer
        self._say(self._begin(reading, now) if reading.wishes else self._lost(reading, text), now)

    def _chosen(self, text: str) -> str | None:
        """Which of the things we asked about an answer means: the one that shares most of its words."""
        said, about = set(plain(text).split()), self._agenda.open
        shared = [len(said & set(each.split())) for each in about]
        if about and len(said) <= 5 and max(shared) > 0 and shared.count(max(shared)) == 1:
            return about[shared.index(max(shared))]
        return None

    def _begin(self, reading: Reading, now: float) -> str:
        self._agenda.begin(list(reading.wishes), now)
        return f"taken to mean: {told(reading)}" if reading.guessed else told(reading)

    def _lost(self, reading: Reading, text: str) -> str:
        near = self._skills.nearest(text)
        problem = reading.problem or f"I do not understand {text!r}"
        return f"{problem}. I know how to {'; '.join(near)}" if near else problem

    def _say(self, line: str, now: float) -> str:
        self.log.append((now, line))
        self.lines += 1
        return line


def told(reading: Reading) -> str:
    """What was understood, in a line."""
    return "; then ".join(wish.text for wish in reading.wishes)
