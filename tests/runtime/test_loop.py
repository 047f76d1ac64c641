"""The tick over simulated time: every behaviour is deterministic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_io.dryrun import DryRun
from runtime import loop
from runtime.budget import Budget
from runtime.clock import SimulatedClock, Ticker
from runtime.guard import Guard
from runtime.planner import InlineLink, Planner
from runtime.watchdogs import Watch
from tests import fakes
from vla.contract import Observation, Robot, check_match

SPEC = fakes.arm_spec()
SIZE = SPEC.actions.size


def sweep(seen: Observation) -> np.ndarray:
    """From the measured pose towards 0.5 rad, at 0.5 rad/s."""
    reach = 0.5 * SPEC.dt * np.arange(SPEC.chunk_length)[:, None]
    return seen.state + np.clip(0.5 - seen.state, -reach, reach)


def play(latency: float, seconds: float = 4.0, patience: float = 5.0, work: float = 0.0) -> tuple:
    """A run of the dry arm; every tick computes for `work` s of simulated time."""
    clock = SimulatedClock(100.0)
    robot, budget = DryRun(clock), Budget()
    policy = fakes.ScriptedPolicy(SPEC, sweep)
    planner = Planner(SPEC, InlineLink(policy, latency, clock))
    commands: list[np.ndarray] = []

    def on_tick(_: Observation, __: np.ndarray | None, command: np.ndarray) -> None:
        commands.append(command)
        clock.advance(work)

    until = loop.lasting(clock, seconds)
    guard = Guard(robot.spec, Watch(patience=patience))
    with robot:
        result = loop.run(robot, planner, Ticker(clock, 1 / 30), budget, "put", guard, until, on_tick)
    return result, np.array(commands), robot, policy, budget


def test_the_dry_arm_is_a_robot_that_fits() -> None:
    robot = DryRun(SimulatedClock())
    assert isinstance(robot, Robot)
    check_match(SPEC, robot.spec)


@pytest.mark.parametrize("latency", [0.0, 0.1, 0.3])
def test_the_arm_arrives_and_obeys_the_words(latency: float) -> None:
    result, commands, robot, policy, _ = play(latency)
    assert result.reason == "done"
    np.testing.assert_allclose(robot.joints, 0.5, atol=0.02)
    assert {seen.instruction for seen in policy.seen} == {"put"}
    assert result.ticks == len(commands) == 120


def test_runs_repeat_exactly() -> None:
    first, second = play(0.12), play(0.12)
    np.testing.assert_array_equal(first[1], second[1])
    assert first[0] == second[0]


@settings(deadline=None, max_examples=20)
@given(st.floats(0.0, 2.0))
def test_whatever_the_latency_commands_stay_within_limits(latency: float) -> None:
    _, commands, robot, _, _ = play(latency, seconds=2.0)
    speeds = np.abs(np.diff(commands, axis=0)) * 30
    assert (speeds <= np.array(robot.spec.max_velocity) + 1e-6).all()


def test_a_policy_that_is_too_slow_holds_then_stops() -> None:
    result, commands, _, _, _ = play(latency=10.0, seconds=60.0, patience=1.0)
    assert result.reason == "stale"
    assert result.held == result.ticks
    assert result.ticks == pytest.approx(30, abs=2)
    np.testing.assert_array_equal(commands, np.zeros_like(commands))


def test_ticks_that_overrun_are_skipped_and_counted() -> None:
    result, _, _, _, budget = play(latency=0.0, seconds=2.0, work=0.05)
    assert result.skipped == pytest.approx(result.ticks, abs=2)
    assert budget.to_json()["lateness"]["max"] == pytest.approx(0.0, abs=1e-6)


def test_the_budget_sees_simulated_latency_end_to_end() -> None:
    _, _, _, _, budget = play(latency=0.1)
    assert budget.to_json()["chunk"]["p50"] == pytest.approx(100.0, abs=1e-3)
    assert {"capture", "send", "receive", "filter", "write", "tick"} <= set(budget.to_json())


def test_errors_surface_and_the_robot_is_left() -> None:
    clock = SimulatedClock()
    left = []

    class Watched(DryRun):
        def __exit__(self, *exc: object) -> None:
            left.append(exc[0])

    def fail(_: Observation) -> np.ndarray:
        raise ZeroDivisionError

    planner = Planner(SPEC, InlineLink(fakes.ScriptedPolicy(SPEC, fail), 0.0, clock))
    robot = Watched(clock)
    guard = Guard(robot.spec)
    with pytest.raises(ZeroDivisionError), robot:
        loop.run(robot, planner, Ticker(clock, 0.1), Budget(), "", guard, loop.lasting(clock, 1.0))
    assert left == [ZeroDivisionError]


@pytest.mark.parametrize("press", [5, 40, 77])
def test_an_interrupted_arm_brakes_and_stands_before_the_run_ends(press: int) -> None:
    clock = SimulatedClock()
    robot, commands = DryRun(clock), []
    planner = Planner(SPEC, InlineLink(fakes.ScriptedPolicy(SPEC, sweep), 0.05, clock))

    def on_tick(_: Observation, __: np.ndarray | None, command: np.ndarray) -> None:
        commands.append(command)

    with robot:
        result = loop.run(
            robot, planner, Ticker(clock, 1 / 30), Budget(), "put", Guard(robot.spec),
            lambda now: False, on_tick, interrupted=lambda: len(commands) >= press,
        )  # fmt: skip
    assert result.reason == "interrupted"
    assert [s[2] for s in result.states[-2:]] == ["PARKING", "OFF"]
    np.testing.assert_array_equal(commands[-1], commands[-2])
    brakes = np.max(np.array(robot.spec.max_velocity) / np.array(robot.spec.max_acceleration))
    assert len(commands) - press <= brakes * 30 + 2


def test_settling_ends_as_done_and_at_rest() -> None:
    clock = SimulatedClock()
    robot = DryRun(clock)
    planner = Planner(SPEC, InlineLink(fakes.ScriptedPolicy(SPEC, sweep), 0.05, clock))
    guard = Guard(robot.spec)
    until = loop.lasting(clock, 0.5)
    with robot:
        result = loop.run(robot, planner, Ticker(clock, 1 / 30), Budget(), "", guard, until, settle=True)
    assert result.reason == "done"
    assert guard.still


def test_a_state_that_is_not_finite_ends_the_run_as_a_fault() -> None:
    class Broken(DryRun):
        reads = 0

        def read(self) -> Observation:
            self.reads += 1
            seen = super().read()
            return replace(seen, state=seen.state * np.nan) if self.reads > 30 else seen

    clock = SimulatedClock()
    robot = Broken(clock)
    planner = Planner(SPEC, InlineLink(fakes.ScriptedPolicy(SPEC, sweep), 0.05, clock))
    guard, until = Guard(robot.spec), loop.lasting(clock, 10.0)
    with robot:
        result = loop.run(robot, planner, Ticker(clock, 1 / 30), Budget(), "", guard, until)
    assert result.reason == "fault"
    assert result.states[-1][2:] == ("FAULT", ["state not finite"])
    assert result.ticks < 60


def test_a_stale_observation_is_not_sent_to_the_policy() -> None:
    class Frozen(DryRun):
        def read(self) -> Observation:
            seen = super().read()
            return replace(seen, captured={"front": seen.time - 0.3 if 1.0 < seen.time < 2.0 else seen.time})

    clock = SimulatedClock()
    robot, policy = Frozen(clock), fakes.ScriptedPolicy(SPEC, sweep)
    planner = Planner(SPEC, InlineLink(policy, 0.05, clock))
    guard, until = Guard(robot.spec), loop.lasting(clock, 4.0)
    with robot:
        result = loop.run(robot, planner, Ticker(clock, 1 / 30), Budget(), "", guard, until)
    assert not [o.time for o in policy.seen if 1.0 < o.time < 2.0]
    assert [s[1:3] for s in result.states[-2:]] == [("RUNNING", "HOLD"), ("HOLD", "RUNNING")]
