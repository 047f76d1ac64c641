"""`takt demo` with its page: a table, whoever looks at it, and one run after the other on it."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from runtime import console, loop, skills
from runtime.advisor import Advisor
from runtime.budget import Budget
from runtime.button import Button
from runtime.client import RemotePolicy
from runtime.clock import Ticker
from runtime.delay import DelayedLink
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.live import Live
from runtime.planner import Planner
from runtime.realtime import line, real_time, without_collections
from runtime.run import Presses
from runtime.typed import Conversation, Heard
from sim.robot import TabletopRobot
from sim.tabletop import goals, instructions, rules, tasks
from sim.tabletop.suite import Scenario
from sim.tabletop.suite import name as kind
from sim.tabletop.world import World

SUGGESTIONS = 5
SETTLE = 0.5  # s that success lasts before it is said


def serve(
    robot: TabletopRobot,
    policies: Mapping[str, RemotePolicy],
    scenario: Scenario,
    text: str,
    pressed: Presses,
    rate: float,
    bind: str,
    token: bool,
    realtime: bool = False,
    records: Any = None,
    voice: str | None = None,
    advise: Callable[[skills.Skills], Advisor | None] = lambda known: None,
) -> tuple[loop.LoopResult, Budget]:
    """Show the table on a page and obey what people say there, until Ctrl-C; how the last run went.

    Args:
        policies: by the name that is shown; the first one begins.
        text: said before the first tick, "" for nothing.
        records: a Recorder for the record button; None for no button.
        voice: what is listened to, see `Ears`; None for nothing.
        advise: makes a language model's end, see `Advisor`; None for none.
    """
    clock = robot.clock
    policy = next(iter(policies.values()))
    link = DelayedLink(policy, clock)
    about = {"robot": robot.spec.name, "policy": policy.spec.name, "rate": rate}
    with ExitStack() as stack:
        feed, url, folder = stack.enter_context(console.opened(bind, token))
        print(f"the page: {url}   (Ctrl-C ends)", flush=True)
        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin":
            webbrowser.open(url)
        button = None if records is None else Button(records, robot.spec, about)
        live = Live(feed, folder, about, link, dict(policies), button)
        if realtime:
            print(line(stack.enter_context(real_time())), flush=True)
        else:
            stack.enter_context(without_collections())
        heard = Heard.open(stack, voice, policy.spec.name)
        known = skills.find(policy.spec.name)
        while True:
            # One each: a plan for the table before is none for this one.
            advisor = advise(known)
            scenario.lay(robot)
            link.clear()  # answers to what was seen on the table before
            for one in policies.values():
                one.reset(scenario.seed)
            live.table = {"seed": scenario.seed, "try": suggestions(scenario)}
            words = Words(known, text, robot.spec, advisor=advisor)
            planner = Planner(policy.spec, link, period=1.0 / rate)
            guard, budget = Guard(robot.spec), Budget()
            live.begin(robot, words, planner, guard, budget)
            live.judged(Referee(robot.world))
            talk = Conversation(
                words, float("inf"), clock.now(), heard.polls, stays=lambda: True, hear=live.hear
            )  # fmt: skip
            either = live.beside(talk)

            def until(now: float, either: Callable[[float], bool] = either) -> bool:
                return pressed() or either(now)

            result = loop.run(
                robot, planner, Ticker(clock, 1.0 / rate), budget, words, guard,
                until, on_tick=live.on_tick,
            )  # fmt: skip
            if pressed():
                return result, budget
            text = ""
            if live.wanted is None:
                live.say(clock.now(), "", f"the run ended ({result.reason}); the table was laid anew", "bad")
            elif live.wanted != scenario.seed:
                scenario = table(scenario.seed + 1 if live.wanted < 0 else live.wanted)


def scenario(asked: goals.Sequel) -> Scenario:
    """A table that was laid for a sentence, with the first thing that is to be done on it."""
    first = asked.goals[0]
    return Scenario(asked.seed, kind(first), instructions.canonical(first), asked.layout, first)


def table(seed: int) -> Scenario:
    """Any table of that seed, with a task that makes sense on it."""
    layout, task = tasks.draw(np.random.default_rng(seed))
    return Scenario(seed, kind(task), instructions.canonical(task), layout, task)


def suggestions(scenario: Scenario) -> list[str]:
    """Sentences that make sense on a table: its own, and those of other tasks."""
    rng, found = np.random.default_rng(scenario.seed), [scenario.instruction]
    for _ in range(4 * SUGGESTIONS):
        other = tasks.another(rng, scenario.layout, scenario.asked)
        if other is not None and (text := instructions.canonical(other)) not in found:
            found.append(text)
        if len(found) == SUGGESTIONS:
            break
    return found


class Referee:
    """Says what came of an instruction, from the simulator: what the policy cannot see of itself."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._text: str | None = None
        self._begun = 0.0
        self._since: float | None = None

    def __call__(self, told: str | None, now: float) -> str:
        """A line when success has lasted, once an instruction; "" otherwise."""
        if told is not None and told != self._text:
            self._ask(told, now)
        if self._text is None or self._begun == np.inf:
            return ""
        if not (self._world.possible() and rules.done(self._world)):
            self._since = None
            return ""
        self._since = now if self._since is None else self._since
        if now - self._since < SETTLE:
            return ""
        took, self._begun = self._since - self._begun, np.inf
        return f"success after {took:.1f} s, says the simulator"

    def _ask(self, told: str, now: float) -> None:
        task = instructions.parse(told)
        self._text, self._begun, self._since = told, now, None
        if task is None:
            self._begun = np.inf  # nothing that could be judged
        else:
            self._world.ask(task)
