"""`takt demo`: type an instruction; a simulated arm does it in real time and shows its latency budget."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from runtime import loop, skills, voice
from runtime.advisor import Advisor
from runtime.budget import Budget, limits, table
from runtime.button import recorder
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.console import BIND, check_place
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.machine import machine
from runtime.planner import Planner
from runtime.realtime import without_collections
from runtime.run import interruptible, policy_at, told
from runtime.typed import Conversation, Heard
from sim import live
from sim.evaluate import SHIPPED
from sim.robot import TabletopRobot
from sim.tabletop import goals
from sim.tabletop.goals import Judge
from sim.tabletop.suite import SUITE, Scenario
from sim.video import film
from vla import atomic
from vla.contract import Observation, TaktError, check_match

RATE = 30.0  # ticks a second
LOOK = 0.5  # s that the world may take to come to rest when all is said to be done
INSTRUCTION = "put the red cube in the blue bowl"
# A table with things to tell apart, on which late answers do little harm: the first look is often on a
# machine that is busy, installing for one. Answers 150 and 300 ms late at the median: 10 of 12, table 1: 5.
TABLE = 4


@dataclass
class Command:
    """The simulated tabletop in real time: on a page where people say what is to be done, or filmed."""

    instruction: str = ""
    """What the arm is told at once; without a page by default "put the red cube in the blue bowl"."""
    headless: bool = False
    """No page: one instruction, filmed, then exit."""
    policy: str = str(SHIPPED)
    """A bundle's folder, or the address of a server: tcp://HOST:PORT."""
    other: tuple[str, ...] = ()
    """Further policies, to be chosen on the page: a bundle of another precision, a server's address."""
    seed: int = TABLE
    """Which table."""
    bind: str = BIND
    """Where the page is served, HOST:PORT; places that other machines reach need --token."""
    token: bool = False
    """Let in only those whose address has the random token that is printed."""
    realtime: bool = False
    """With a page: ask for SCHED_FIFO, locked memory and a core of its own, and say what was granted."""
    record: Path | None = None
    """With a page: a button that records episodes into this folder (docs/recording.md)."""
    seconds: float = 15.0
    """Without a page: give up after this long, for each thing that is to be done."""
    video: Path = Path("out/demo.mp4")
    """Without a page: where the film goes."""
    voice: str | None = None
    """Hear what is spoken as well: microphone, or FILE.wav; a terminal's lines are heard in any case."""
    voice_model: Path | None = None
    """Recognise speech by a Whisper model of yours, a folder in CTranslate2's form, not by the grammar."""
    planner: str | None = None
    """With a page: who takes apart what the grammar does not understand, an OpenAI-compatible
    http://127.0.0.1:PORT/v1."""
    planner_model: str = ""
    """Which of its models is asked (default: the first that it lists)."""
    threads: int = 1
    """Threads of the engine."""
    json: Path | None = None
    """Where to write the result."""

    def run(self) -> int:
        if self.instruction and not self.instruction.strip():
            raise TaktError(f'the instruction is empty; try "{INSTRUCTION}"')
        if not 0 < self.seconds < float("inf") or not 0 <= self.seed < 2**62:
            raise TaktError("--seconds is above 0 and finite, --seed from 0 to 2^62")
        if self.video.suffix != ".mp4":
            raise TaktError(f"--video {self.video}: a film's name ends in .mp4")
        check_place(self.bind, self.token)
        if self.voice_model and self.headless and not self.voice:
            raise TaktError("--voice-model is for what is spoken: give --voice, or the page")
        voice.choose(self.voice_model)
        if self.planner is not None:
            if self.headless:
                raise TaktError("--planner is for the page: --headless lays the table for what it is told")
            self._advisor(skills.find(""))  # an address that is none, before anything starts
        asked = goals.laid(self.instruction or INSTRUCTION, self.seed)
        return self._film(asked) if self.headless else self._page(live.scenario(asked))

    def _page(self, scenario: Scenario) -> int:
        robot = SUITE.robot(MonotonicClock())
        with ExitStack() as stack:
            pressed = stack.enter_context(interruptible())
            policies: dict[str, RemotePolicy] = {}
            for place in (self.policy, *self.other):
                policy = stack.enter_context(policy_at(place, self.threads))
                check_match(policy.spec, robot.spec)
                label = Path(place).name if "://" not in place else place
                policies[label if label not in policies else place] = policy
            records = None
            if self.record is not None:
                records = stack.enter_context(recorder(self.record, RATE))
            stack.enter_context(pressed.through(robot))
            scenario.lay(robot)
            for policy in policies.values():
                # The first inference allocates and reads the words: before the loop it costs no beat.
                policy.infer(replace(robot.read(), instruction=scenario.instruction))
                policy.reset(scenario.seed)
            text = self.instruction.strip()
            result, budget = live.serve(
                robot, policies, scenario, text, pressed, RATE, self.bind, self.token, self.realtime,
                records, self.voice, self._advisor,
            )  # fmt: skip
        print(f"\n{told(result)}")
        if self.json:
            data = {"machine": machine(), "loop": result.to_json(), "latency_ms": budget.to_json()}
            atomic.write_json(self.json, data)
        return 0

    def _advisor(self, known: skills.Skills) -> Advisor | None:
        return None if self.planner is None else Advisor(self.planner, known, self.planner_model)

    def _film(self, asked: goals.Sequel) -> int:
        clock = MonotonicClock()
        robot = SUITE.robot(clock)
        with (
            interruptible() as pressed,
            policy_at(self.policy, self.threads) as policy,
            pressed.through(robot),
        ):
            check_match(policy.spec, robot.spec)
            print(f'"{asked.text}"', flush=True)
            result, goal, budget, states = obey(robot, policy, asked, self.seconds, pressed, self.voice)
            if pressed():
                print("interrupted")
                return 130
            self._print(result, goal, budget, limits(policy.spec, 1.0 / RATE, policy.spec.replan))
            if self.json:
                data = self._report(asked, result, goal, budget)
                atomic.write_json(self.json, data)
            film(robot.world, states, self.video, round(RATE))
        print(f"video: {self.video.resolve()}")
        return 0 if goal.reached else 1

    def _print(self, result: loop.LoopResult, goal: Whole, budget: Budget, limit: dict[str, float]) -> None:
        Console().print(table(budget, limit))
        if goal.reached:
            ended = f"success after {goal.took:.1f} s"
        else:
            ended = {
                "done": goal.why or f"NO success within {self.seconds:g} s",
                "stale": "NO success: the policy stopped answering",
            }.get(result.reason, f"NO success: {result.reason}")
        print(ended, end="; ")
        closest = f"the closest two {1e3 * result.closest:.1f} ms apart"
        print(f"held for {result.held} of {result.ticks} ticks, {result.skipped} skipped, {closest}")

    def _report(
        self, asked: goals.Sequel, result: loop.LoopResult, goal: Whole, budget: Budget
    ) -> dict[str, Any]:
        return {
            "instruction": asked.text,
            "seed": self.seed,
            "success": goal.reached,
            "machine": machine(),
            "loop": result.to_json(),
            "latency_ms": budget.to_json(),
            "video": str(self.video),
        }


class Whole:
    """An `until`: all goals were reached and what should stay has stayed, or the words or the time are over.

    Attributes:
        reached: whether it was. took: s until then. why: what was said last where the words were over first.
    """

    def __init__(self, judge: Judge, talk: Conversation, begun: float, end: float) -> None:
        self._judge, self._talk, self._begun, self._end = judge, talk, begun, end
        self.reached, self.took, self.why = False, float("inf"), ""
        self._over: float | None = None  # since when nothing is left to do, s

    def __call__(self, now: float) -> bool:
        self._judge.look(now)
        self.reached = self._judge.whole()
        if self.reached:
            self.took = now - self._begun
        over = self._talk(now)
        self._over = (now if self._over is None else self._over) if over else None
        # The policy may have seen it before the rule has held for long enough.
        over = self._over is not None and now - self._over >= goals.SETTLE + LOOK
        if over and not self.reached and self._talk.words.over:
            words, last = self._talk.words, self._talk.words.log[-1][1]
            self.why = f"NO success: {last}" + ("" if words.failed else ", says the policy, and it is not")
        return self.reached or over or now >= self._end


def obey(
    robot: TabletopRobot,
    policy: RemotePolicy,
    asked: goals.Sequel,
    seconds: float,
    pressed: Any,
    voice: str | None = None,
) -> tuple[loop.LoopResult, Whole, Budget, list[np.ndarray]]:
    """Run the loop in real time until all is done; with the physics states of every tick."""
    # The first inference allocates and reads the words: before the loop it costs no beat.
    robot.reset(asked.layout, asked.goals[0])
    words = Words(skills.find(policy.spec.name), asked.text, robot.spec)
    policy.infer(replace(robot.read(), instruction=words.plan[0].text))
    policy.reset(asked.seed)
    robot.reset(asked.layout, asked.goals[0])
    clock, budget = robot.clock, Budget()
    states: list[np.ndarray] = []

    def save(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
        states.append(robot.world.save())

    with ExitStack() as stack:
        stack.enter_context(without_collections())
        heard = Heard.open(stack, voice, policy.spec.name)
        begun, allowed = clock.now(), seconds * len(asked.goals)
        talk = Conversation(words, allowed, begun, heard.polls)
        goal = Whole(Judge(robot.world, asked.goals), talk, begun, begun + allowed)
        result = loop.run(
            robot, Planner(policy.spec, policy, period=1.0 / RATE), Ticker(clock, 1.0 / RATE), budget,
            words, Guard(robot.spec), lambda now: pressed() or goal(now), on_tick=save,
        )  # fmt: skip
    return result, goal, budget, states
