"""A run that people look at and talk to: between the loop on one side and a console's feed on the other.

The loop calls `until` before a tick and `on_tick` after it. A stop is obeyed in the tick that finds it,
before anything else that was wished; what is sent to the console is the newest and may be lost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime import joining, spoken
from runtime.budget import Budget
from runtime.button import Button
from runtime.console import Command, Feed
from runtime.delay import DelayedLink
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.planner import Link, Planner
from runtime.states import Event, Flag
from runtime.view import View
from vla.contract import Observation, TaktError

FASTEST = 1 / 30  # s between two states sent
LOOKS = 1 / 15  # s between two looks at the cameras; where they would be rendered for people alone,
IDLE_LOOKS = 1.0  # and the arm waits for words
QUIET = 0.5  # s after a stop in which nothing that is said moves the arm: it may have been on its way already
SEEDS = 2**53
_BEGIN = (spoken.Say.TASK, spoken.Say.NEXT, spoken.Say.CORRECTION, spoken.Say.GO_ON)
Judge = Callable[["str | None", float], str]


class Live:
    """What is shown of one run after the other, and what people want of them.

    Attributes:
        feed: where it is shown.
        table: {"seed", "try": sentences that make sense on it} where there is one to lay anew, or None.
        wanted: the seed of another table that was asked for; -1 for any; None for none. It ends a run.
    """

    def __init__(
        self,
        feed: Feed,
        folder: Path,
        about: Mapping[str, Any],
        link: DelayedLink,
        policies: Mapping[str, Link] | None = None,
        button: Button | None = None,
    ) -> None:
        """
        Args:
            folder: that of the feed.
            about: "robot", "policy" and "rate" for people.
            link: the way to the policy that the planners of all runs have.
            policies: by name the links that may take its place.
            button: records, where people may want that.
        """
        self.feed = feed
        self.table: dict[str, Any] | None = None
        self.wanted: int | None = None
        self._view, self._link, self._button = View(folder, about), link, button
        self._policies = dict(policies or {})
        self._policy = next((name for name, one in self._policies.items() if one is link.link), "")
        self._join: str | None = None
        self._sent = self._looked = self._stopped = -np.inf

    # -- a run begins

    def begin(self, robot: Any, words: Words, planner: Planner, guard: Guard, budget: Budget) -> None:
        """The parts of the run that comes now; how chunks are joined stays as it was chosen."""
        if self._button is not None:
            self._button.end("left")  # another run is another episode
        self._view.begin(robot, words, planner, guard, budget)
        self._words, self._guard, self._planner = words, guard, planner
        self._judge: Judge | None = None
        self._joins = [n for n in joining.JOININGS if n != "rtc" or planner.spec.joining != "none"]
        if self._join is not None:
            self._set_join(self._join)
        self.wanted = None

    def judged(self, judge: Judge) -> None:
        """Let somebody who can see say what came of the instruction of now; "" for nothing new."""
        self._judge = judge

    def say(self, now: float, text: str, answer: str, tone: str) -> None:
        """A line for people: what one of them said, or "", and the answer. tone: "", "good" or "bad"."""
        self._view.say(now, text, answer, tone)

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
        self.say(now, "STOP", self._hear("stop", now), "")

    def hear(self, text: str, now: float) -> None:
        """What a person says, wherever: on a page, in the terminal, aloud."""
        if now - self._stopped < QUIET:
            self.say(now, text, "not taken: somebody has just pressed STOP; say it again", "bad")
            return
        if spoken.kind(text)[0] in _BEGIN:
            self._guard.tell(Event.START)  # it counts after a stop, and at no other time
        self.say(now, text, self._hear(text, now), "")

    def _hear(self, text: str, now: float) -> str:
        self._view.lines()
        answer = self._words.hear(text, now)
        self._view.heard()
        return answer

    def _obey(self, command: Command, now: float) -> None:
        """
        Raises:
            TaktError: it cannot be obeyed.
        """
        match command:
            case {"do": "say", "text": str(text)}:
                self.hear(text, now)
            case {"do": "set", "name": str(name), "value": value}:
                self._set(name, value)
            case {"do": "table", "seed": int() | None as seed} if self.table is not None:
                if seed is not None and not 0 <= seed < SEEDS:
                    raise TaktError("a table's seed is from 0 to 2^53")
                self._hear("stop", now)
                self.wanted = -1 if seed is None else seed
            case {"do": "record", "on": bool(on)} if self._button is not None:
                self._button.press(on)
            case _:
                raise TaktError(f"nothing here can {str(command.get('do'))[:40]!r}")

    def _set(self, name: str, value: Any) -> None:
        if name == "delay_ms" and isinstance(value, int | float):
            self._link.delay(value / 1000.0)
        elif name == "join":
            self._set_join(str(value))
        elif name == "policy" and value in self._policies:
            if value != self._policy:
                self._policy, self._link.link = str(value), self._policies[value]
        else:
            raise TaktError(f"{name[:40]!r} cannot be set to {str(value)[:40]!r} here")

    def _set_join(self, name: str) -> None:
        """Join otherwise from now on; the running chunk runs on."""
        old, new = self._planner.join, joining.make(name, self._planner.spec)
        new.pace, new.chunk = old.pace, old.chunk
        self._planner.join, self._join = new, name

    # -- what is shown

    def on_tick(self, seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
        """A tick was run: keep what is to be seen of it, and send it when it is time to."""
        now = self._link.clock.now()
        self._view.tick(now, self._link.waited, target, command)
        told = next((step.text for step in self._words.plan if step.state == "running"), None)
        verdict = "" if self._judge is None else self._judge(told, now)
        if verdict:
            self.say(now, "", verdict, "good")
        if self._button is not None:
            self._button.success = True if verdict else self._button.success
            self._button.tick(now, seen, target, command, self._guard, told or "")
        if now - self._sent >= FASTEST - 0.003:
            self._sent = now
            self.feed.send(self._view.state(now) | self._knobs())
        self._look(seen, now)

    def _knobs(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "recording": {"on": self._button.on, "said": self._button.said} if self._button else None,
            "knobs": {
                "delay_ms": 1e3 * self._link.seconds, "join": self._planner.join.name, "joins": self._joins,
                "policy": self._policy, "policies": list(self._policies),
            },
        }  # fmt: skip

    def _look(self, seen: Observation, now: float) -> None:
        """Show frames that are there; have some rendered now and then, while nothing is at stake."""
        if not self.feed.viewers or now - self._looked < LOOKS:
            return
        waits = Flag.WAITING in self._guard.status.active and now - self._looked >= IDLE_LOOKS
        if isinstance(seen.frames, dict) or waits:
            self._looked = now
            self.feed.show(now, dict(seen.frames))
