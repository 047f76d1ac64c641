"""Words in motion: plans that go on by themselves, words that change them, and a policy that never waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from robot_io.dryrun import DryRun
from runtime import loop, skills
from runtime.agenda import Patience
from runtime.budget import Budget
from runtime.clock import SimulatedClock, Ticker
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.planner import InlineLink, Planner
from runtime.skills import Plain, Reading, Wish
from runtime.watchdogs import Watch
from tests import fakes
from vla.contract import ActionChunk, Observation, Prefix, TaktError

SPEC = fakes.arm_spec(chunk_length=12, dt=0.1, replan=0.2)
SIZE = SPEC.actions.size
PATIENCE = Patience(answers=2, leave=0.2, allowed=3.0, home=2.0, near=0.02)
GOALS = {"far": 0.6, "near": 0.3, "back": -0.3, "nowhere": 0.5}


class Reacher(fakes.ScriptedPolicy):
    """Goes to the place that its instruction names, says when it is there; "absent" moves nothing.

    "nowhere" is a place that it never says it is at.
    """

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        self.seen.append(observation)
        state = observation.state.astype(float)
        goal = GOALS.get(observation.instruction)
        if goal is None:
            return ActionChunk(
                observation.time, SPEC.dt, np.repeat(state[None], SPEC.chunk_length, 0), done=0.0
            )
        reach = 1.0 * SPEC.dt * np.arange(SPEC.chunk_length)[:, None]
        rows = state + np.clip(goal - state, -reach, reach)
        there = bool(abs(state[0] - goal) < 0.02) and observation.instruction != "nowhere"
        return ActionChunk(observation.time, SPEC.dt, rows + 1e-9 * reach, done=float(there))


class Places:
    """The skills of `Reacher`."""

    def read(self, text: str, before: str = "") -> Reading:
        if text == "all":
            each = ("near", "absent", "far")
            return Reading((Wish("all", each, ("", "", ""), tuple((one,) for one in each)),))
        if text == "one":
            return Reading((Wish("one", ("near", "far"), ("near", "far"), (("near",), ("far",))),))
        parts = text.split(", then ")
        if not all(part in (*GOALS, "absent") for part in parts):
            return Reading(problem=f"I do not know {text!r}")
        return Reading(tuple(Wish(part, probes=((part,),)) for part in parts))

    def correct(self, text: str, now: str) -> Reading:
        return self.read(text.removesuffix(" one"))

    def nearest(self, text: str, count: int = 3) -> list[str]:
        return ["near", "far"]

    def known(self) -> list[str]:
        return list(GOALS)


class Run:
    """An arm that is told things at given times. `say` is {time in s: text}."""

    def __init__(
        self,
        text: str = "",
        say: dict[float, str] | None = None,
        latency: float = 0.0,
        seconds: float = 12.0,
        speaks: skills.Skills | None = None,
        until: Callable[[Run], bool] = lambda run: False,
    ) -> None:
        self.clock = SimulatedClock(100.0)
        self.robot = DryRun(self.clock)
        self.policy = Reacher(SPEC)
        self.planner = Planner(SPEC, InlineLink(self.policy, latency, self.clock), period=1 / 30)
        self.words = Words(speaks or Places(), text, self.robot.spec, PATIENCE)
        self.times: list[float] = []
        self.commands: list[np.ndarray] = []
        self.answers: list[str] = []
        pending = sorted((say or {}).items())
        lasts = loop.lasting(self.clock, seconds)

        def over(now: float) -> bool:
            while pending and now - 100.0 >= pending[0][0] - 1e-9:
                self.answers.append(self.words.hear(pending.pop(0)[1], now))
            return lasts(now) or until(self)

        def on_tick(_: Observation, __: np.ndarray | None, command: np.ndarray) -> None:
            self.times.append(self.clock.now() - 100.0)
            self.commands.append(command)

        guard = Guard(self.robot.spec, Watch(patience=1.0))
        self.result = loop.run(
            self.robot, self.planner, Ticker(self.clock, 1 / 30), Budget(64), self.words, guard, over, on_tick
        )

    @property
    def plan(self) -> list[tuple[str, str]]:
        return [(step.text, step.state) for step in self.words.plan]

    @property
    def at(self) -> np.ndarray:
        """The first joint's commands."""
        return np.array(self.commands)[:, 0]

    def speeds(self) -> np.ndarray:
        return np.abs(np.diff(self.at)) * 30


@pytest.mark.parametrize("latency", [0.0, 0.12])
def test_steps_follow_one_another_and_each_is_ended_by_the_policy(latency: float) -> None:
    run = Run("far, then back", latency=latency)
    assert run.plan == [("far", "done"), ("back", "done")]
    assert max(run.at) == pytest.approx(0.6, abs=0.03)
    assert min(run.at) == pytest.approx(-0.3, abs=0.03)
    asked = [seen.instruction for seen in run.policy.seen]
    assert asked.index("back") > max(i for i, text in enumerate(asked) if text == "far")


def test_between_two_steps_the_arm_is_where_it_began() -> None:
    run = Run("far, then near")
    first = int(np.argmax(run.at > 0.55))
    assert min(run.at[first:]) == pytest.approx(0.0, abs=0.03)


def test_an_arm_that_has_nothing_to_do_waits_and_its_run_does_not_end() -> None:
    run = Run("near", say={6.0: "far"}, seconds=10.0)
    assert run.result.reason == "done"  # and not "stale", although the watchdog's patience is 1 s
    assert run.plan == [("far", "done")]
    states = [after for _, _, after, _ in run.result.states]
    assert "PARKING" not in states


@pytest.mark.parametrize("latency", [0.0, 0.1, 0.3])
def test_a_correction_turns_the_arm_and_nothing_of_the_old_words_is_played(latency: float) -> None:
    run = Run("far", say={0.4 + latency: "no, the back one"}, latency=latency)
    assert run.plan == [("far", "dropped"), ("back", "done")]
    said = 0.4 + latency
    turned = [t for t, speed in zip(run.times[1:], np.diff(run.at), strict=True) if speed < -1e-6]
    assert turned[0] - said <= latency + 0.2 + 2 / 30
    # Answers to what was asked before the word are not played, however late they come.
    assert run.result.void == (latency > 0)


def test_without_an_answer_to_the_new_words_the_old_motion_ends_in_time() -> None:
    run = Run("far", say={0.5: "no, the back one"}, latency=0.1, seconds=0.8)
    usual = 0.1
    cut = run.planner
    assert cut.chunk is not None
    # The same with a policy that falls silent at the word: it brakes after the usual latency.
    silent = Run("nowhere", latency=0.1, seconds=0.0)
    planner, clock = silent.planner, silent.clock
    for _ in range(20):
        clock.advance(1 / 30)
        planner.receive(clock.now())
        planner.submit(replace(fakes.observation(SPEC, clock.now()), instruction="far"))
    assert planner.target(clock.now()) is not None
    planner.renew(clock.now())
    assert planner.target(clock.now() + usual) is not None
    assert planner.target(clock.now() + usual + 0.15) is None


@pytest.mark.parametrize("word", ["stop", "wait"])
@pytest.mark.parametrize("latency", [0.0, 0.5])
def test_stop_brakes_at_the_limits_and_waits_for_no_model(word: str, latency: float) -> None:
    said = 0.8 + latency
    run = Run("far, then back", say={said: word}, latency=latency, seconds=said + 2.0)
    at = next(i for i, t in enumerate(run.times) if t >= said - 1e-9)
    limits = run.robot.spec
    longest = limits.max_velocity[0] / limits.max_acceleration[0] + 2 / 30
    moving = [t for t, speed in zip(run.times[at + 1 :], run.speeds()[at:], strict=True) if speed > 1e-9]
    assert not moving or moving[-1] - said <= longest
    assert (np.abs(np.diff(run.speeds())) * 30 <= limits.max_acceleration[0] + 1e-6).all()
    states = [state for _, state in run.plan]
    assert states == (["dropped", "dropped"] if word == "stop" else ["running", "waiting"])


def test_go_on_goes_on_with_what_was_begun() -> None:
    run = Run("far", say={0.3: "wait", 2.5: "go on"})
    assert run.plan == [("far", "done")]
    still = [s for t, s in zip(run.times[1:], run.speeds(), strict=True) if 0.8 < t < 2.4]
    assert max(still) == 0.0


def test_faster_and_slower_change_the_pace_and_not_the_limits() -> None:
    def arrival(word: str) -> float:
        run = Run("far", say={0.0: word} if word else {})
        assert run.plan == [("far", "done")]
        assert (run.speeds() <= run.robot.spec.max_velocity[0] + 1e-6).all()
        return run.times[int(np.argmax(run.at > 0.55))]

    usual = arrival("")
    assert arrival("slower") == pytest.approx(2 * usual, rel=0.25)
    assert arrival("faster") < 0.85 * usual


def test_the_pace_has_ends_and_says_so() -> None:
    words = Words(Places())
    said = [words.hear("faster", 0.0) for _ in range(3)]
    assert said[0] == "at 1.5 times the usual pace" and said[1] == said[2] and "all I can" in said[1]
    assert words.hear("normal speed", 0.0) == "at the usual pace" and words.pace == 1.0


def test_actions_that_are_steps_have_no_pace() -> None:
    robot = DryRun(SimulatedClock()).spec
    steps = replace(
        robot.actions, dimensions=tuple(replace(d, absolute=False) for d in robot.actions.dimensions)
    )
    words = Words(Places(), robot=replace(robot, actions=steps))
    assert "cannot change the pace" in words.hear("slower", 0.0) and words.pace == 1.0


@pytest.mark.parametrize("text", ["make me coffee", "absent", "absent, then far"])
def test_what_cannot_be_done_moves_nothing_and_is_answered_in_words(text: str) -> None:
    run = Run(text, seconds=3.0)
    np.testing.assert_array_equal(run.at, np.zeros_like(run.at))
    said = [line for _, line in run.words.log]
    assert any("I do not know" in line or "do not see" in line for line in said)
    if text == "make me coffee":
        assert run.plan == [] and "I know how to near; far" in said[-1]
    else:
        assert run.plan[0] == ("absent", "failed")


def test_a_second_try_then_an_honest_failure() -> None:
    run = Run("nowhere, then near", seconds=14.0)
    assert run.plan == [("nowhere", "failed"), ("near", "dropped")]
    said = [line for _, line in run.words.log]
    assert any("trying again" in line for line in said)
    assert said[-1].startswith("failed: nowhere: not done after 3 s, 2 times; left undone: near")
    # In between it goes back to where it began.
    top = int(np.argmax(run.at > 0.45))
    again = int(np.argmin(run.at[top:])) + top
    assert run.at[again] == pytest.approx(0.0, abs=0.03) and max(run.at[again:]) > 0.45


def test_after_a_failure_go_on_takes_up_what_was_left() -> None:
    run = Run("nowhere, then near", say={8.0: "go on"}, seconds=16.0)
    assert run.plan == [("near", "done")]
    assert run.answers == ["going on without it: near"]


def test_all_of_them_are_those_that_the_policy_sees() -> None:
    run = Run("all")
    assert run.plan == [("near", "done"), ("far", "done")]
    assert run.at[:4].max() < 1e-6  # nothing moves while it looks


def test_one_of_two_is_asked_about_and_an_answer_begins_it() -> None:
    run = Run("one", say={1.0: "the far one"})
    assert [line for _, line in run.words.log][1] == "failed: one: which one: near or far?"
    assert run.plan == [("far", "done")]


def test_more_is_put_after_the_plan_and_new_words_replace_it() -> None:
    more = Run("near", say={0.1: "then back"})
    assert more.plan == [("near", "done"), ("back", "done")]
    other = Run("near, then far", say={0.1: "back"})
    assert other.plan == [("back", "done")]


@pytest.mark.parametrize(
    ("word", "says"), [("undo that", "cannot undo"), ("no", "what do you want"), ("", "yes?")]
)
def test_words_that_change_nothing_else_are_answered(word: str, says: str) -> None:
    words = Words(Places(), "near")
    assert says in words.hear(word, 0.0)


def test_a_policy_that_cannot_tell_is_not_given_up() -> None:
    class Silent(Reacher):
        def infer(self, *args: object, **more: object) -> ActionChunk:
            return replace(super().infer(*args, **more), done=None)  # type: ignore[arg-type]

    clock = SimulatedClock()
    robot, policy = DryRun(clock), Silent(SPEC)
    words = Words(Plain(), "far then near", robot.spec, PATIENCE)
    planner = Planner(SPEC, InlineLink(policy, 0.0, clock))
    told: list[str] = []

    def until(now: float) -> bool:
        if now >= 8.0 and not told:
            told.append(words.hear("next", now))
        return now >= 10.0

    guard = Guard(robot.spec)
    loop.run(robot, planner, Ticker(clock, 1 / 30), Budget(64), words, guard, until)
    assert told == ["done, as you say: far"]
    assert [(s.text, s.state) for s in words.plan] == [("far", "done"), ("near", "running")]


def test_skills_are_found_by_the_policys_name_and_anything_else_is_plain() -> None:
    assert isinstance(skills.find("no such policy"), Plain)
    reading = Plain().read("open the drawer, then close it; wave")
    assert [wish.text for wish in reading.wishes] == ["open the drawer", "close it", "wave"]
    with pytest.raises(TaktError, match=r"takt\.skills"):
        skills.check("x", object())
