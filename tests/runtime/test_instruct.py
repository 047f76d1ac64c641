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
    assert asked[:2] == ["far", "back"]  # both are looked for before anything moves
    rest = asked[2:]
    assert rest.index("back") > max(i for i, text in enumerate(rest) if text == "far")


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
    run = Run("far", say={0.4 + latency: "no, back"}, latency=latency)
    assert run.plan == [("far", "dropped"), ("back", "done")]
    said, silent = 0.4 + latency, Run("far", latency=latency)
    differs = [t for t, one, two in zip(run.times, run.at, silent.at, strict=True) if abs(one - two) > 1e-9]
    assert said <= differs[0] + 1e-9 and differs[0] - said <= latency + 2 / 30
    lowest = run.times[int(np.argmin(run.at))]
    rest = [v for t, v in zip(run.times[1:], np.diff(run.at), strict=True) if differs[0] + 0.5 <= t < lowest]
    assert rest and np.mean(np.array(rest) < 0) > 0.6 and sum(rest) < 0


def moved_to(place: float, time: float) -> ActionChunk:
    return ActionChunk(time, SPEC.dt, np.full((SPEC.chunk_length, SIZE), place), done=0.0)


class Post:
    """A link whose answers are put in by hand."""

    lost, link_up = 0, True

    def __init__(self) -> None:
        self.asked: list[Observation] = []
        self.answers: list[ActionChunk] = []

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        self.asked.append(observation)
        return True

    def poll(self) -> list[ActionChunk]:
        answers, self.answers = self.answers, []
        return answers


def test_an_answer_to_the_words_before_is_not_played_even_when_it_comes_last() -> None:
    post = Post()
    planner = Planner(SPEC, post, period=0.1)
    assert planner.submit(fakes.observation(SPEC, 0.0))
    planner.renew(0.1)
    # It asks anew at once, although a request is in flight.
    assert planner.due(0.1) and planner.submit(fakes.observation(SPEC, 0.1))
    post.answers = [moved_to(2.0, 0.1)]
    np.testing.assert_allclose(planner.target(0.2), 2.0)
    post.answers = [moved_to(1.0, 0.0)]
    np.testing.assert_allclose(planner.target(0.3), 2.0)
    assert planner.void == 1 and planner.answer is not None and planner.answer.time == 0.1
    # One made of the very observation of the old request could not be told from it, and is not asked for.
    planner.renew(0.3)
    assert not planner.due(0.1)


def test_without_an_answer_to_the_new_words_the_old_plan_ends_in_time() -> None:
    post = Post()
    planner = Planner(SPEC, post, period=0.1, warm_up=0)
    for i in range(4):  # answers usually take 0.2 s
        planner.submit(fakes.observation(SPEC, i * 0.3))
        post.answers = [moved_to(1.0, i * 0.3)]
        assert planner.target(i * 0.3 + 0.2) is not None
    planner.renew(1.2)
    assert planner.target(1.3) is not None
    assert planner.target(1.2 + 0.2 + 2 * 0.1 + 0.01) is None
    planner.drop()
    assert planner.target(1.3) is None


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


@pytest.mark.parametrize("text", ["make me coffee", "absent", "absent, then far", "far, then absent"])
def test_what_cannot_be_done_moves_nothing_and_is_answered_in_words(text: str) -> None:
    run = Run(text, seconds=3.0)
    np.testing.assert_array_equal(run.at, np.zeros_like(run.at))
    said = [line for _, line in run.words.log]
    assert any("I do not know" in line or "do not see" in line for line in said)
    if text == "absent, then far":
        assert run.plan[1] == ("far", "dropped")
    if text == "make me coffee":
        assert run.plan == [] and "I know how to near; far" in said[-1]
    else:
        assert ("absent", "failed") in run.plan


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
