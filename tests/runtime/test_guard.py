"""The guard: what is noticed, what follows, and what the arm does meanwhile."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from runtime import so101
from runtime.guard import Guard
from runtime.states import RULES, Event, Flag, State
from runtime.watchdogs import Watch, Watchdogs
from tests import fakes
from vla.contract import Observation, TaktError

SPEC = so101.spec(fakes.CAMERAS)
SIZE = SPEC.actions.size
TICK = 1 / 30
HALF = np.full(SIZE, 0.5)


def seen(now: float, pose: np.ndarray | float = 0.0, **changes: object) -> Observation:
    return replace(Observation(now, np.broadcast_to(pose, SIZE).astype(np.float32)), **changes)


def moving(ticks: int = 10) -> tuple[Guard, float, np.ndarray]:
    """A guard whose arm is on its way to 0.5 rad; the time and the command of its last tick."""
    guard, now, command = Guard(SPEC), 0.0, np.zeros(SIZE)
    for i in range(ticks):
        now = i * TICK
        command = guard(HALF, seen(now, command), now)
    assert guard.status.state is State.RUNNING
    return guard, now, command


def test_a_run_begins_at_the_measured_pose_and_says_so() -> None:
    guard = Guard(SPEC)
    np.testing.assert_array_equal(guard(HALF, seen(0.0, 0.25), 0.0), np.full(SIZE, 0.25))
    led = [(before, after) for _, before, after, _ in guard.history]
    assert led == [
        (State.OFF, State.CONNECTED),
        (State.CONNECTED, State.ARMED),
        (State.ARMED, State.RUNNING),
    ]
    assert [reasons for *_, reasons in guard.history] == [("connect",), ("arm",), ("start",)]


def test_without_an_action_it_holds_and_goes_on_by_itself() -> None:
    guard, now, command = moving()
    for i in range(1, 8):
        held = guard(None, seen(now + i * TICK, command), now + i * TICK)
    assert guard.status.state is State.HOLD and guard.status.reasons == ("no action",)
    again = guard(None, seen(now + 8 * TICK, command), now + 8 * TICK)
    np.testing.assert_array_equal(again, held)  # the last command, wherever the arm has sunk to
    guard(HALF, seen(now + 9 * TICK, held), now + 9 * TICK)
    assert guard.status.state is State.RUNNING and guard.status.reasons == ("no action: over",)


@pytest.mark.parametrize("row", [np.full(SIZE, np.nan), np.full(SIZE, np.inf), np.zeros(SIZE - 1)])
def test_an_unusable_row_is_no_action_and_counted(row: np.ndarray) -> None:
    guard, now, command = moving()
    guard(row, seen(now + TICK, command), now + TICK)
    assert guard.status.reasons == ("no action",)
    assert guard.verdicts["rejected"] == 1


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"captured": {"front": -0.201, "wrist": 0.0}}, Flag.CAMERA_STALE),
        ({"captured": {"front": float("nan")}}, Flag.CAMERA_STALE),
        ({"captured": {"front": 10.0}}, Flag.CAMERA_STALE),
        ({"time": -0.061}, Flag.STATE_STALE),
        ({"time": 5.0}, Flag.STATE_STALE),
        ({"time": float("nan")}, Flag.STATE_STALE),
        ({"state": np.full(SIZE, np.nan, np.float32)}, Flag.STATE_INVALID),
    ],
)
def test_what_is_read_has_to_be_recent_and_finite(changes: dict, flag: Flag) -> None:
    dogs = Watchdogs(Watch())
    assert dogs(True, seen(0.0), 0.0, 0.0, 0, True) == frozenset()
    assert dogs(True, seen(0.0, **changes), 0.0, 0.0, 0, True) == {flag}
    assert dogs.fresh(seen(0.0), 0.0) and not dogs.fresh(seen(0.0, **changes), 0.0)


def test_what_is_just_in_age_passes() -> None:
    observation = seen(-0.059, captured={"front": -0.199, "wrist": -0.1})
    assert Watchdogs(Watch())(True, observation, 0.0, 0.0, 0, True) == frozenset()


def overruns(skips: list[int], lateness: float = 0.0) -> list[bool]:
    """Whether each tick finds the loop behind; `skips` ticks are left out before each."""
    dogs, now, skipped, found = Watchdogs(Watch()), 0.0, 0, []
    for skip in skips:
        skipped += skip
        now += (1 + skip) * TICK
        found.append(Flag.OVERRUNS in dogs(True, seen(now), now, lateness, skipped, True))
    return found


def test_a_few_short_overruns_are_borne() -> None:
    assert not any(overruns(([1] + [0] * 5) * 20))  # 4.3 a second


def test_many_overruns_hold_until_a_second_is_quiet() -> None:
    found = overruns([0] + [1] * 6 + [0] * 40)
    assert found[:6] == [False] * 6 and found[6]
    assert sum(found) == pytest.approx(31, abs=1)
    assert not found[-1]


def test_one_long_overrun_is_enough() -> None:
    assert not any(overruns([0, 2, 0]))  # 100 ms
    assert overruns([0, 3, 0])[1:] == [True, True]
    assert overruns([0, 0], lateness=0.11)[1]


def test_a_link_that_is_down_stops_nothing_that_is_in_age() -> None:
    guard, now, command = moving()
    after = guard(HALF, seen(now + TICK, command), now + TICK, link_up=False)
    assert guard.status.state is State.RUNNING and Flag.LINK_DOWN in guard.status.flags
    assert (after != command).any()


def test_a_policy_that_stays_away_ends_the_run_at_rest() -> None:
    guard, now, command = moving()
    while guard.status.state is not State.OFF:
        now += TICK
        command = guard(None, seen(now, command), now)
        assert now < 6.0
    assert [s for _, _, s, _ in guard.history][-3:] == [State.HOLD, State.PARKING, State.OFF]
    assert guard.status.over
    still = guard(HALF, seen(now + TICK, command), now + TICK)
    np.testing.assert_array_equal(still, command)


@pytest.mark.parametrize("flag", [Flag.INTERRUPTED, Flag.ROBOT_FAULT, Flag.EMERGENCY])
def test_what_is_told_brakes_and_lasts(flag: Flag) -> None:
    guard, now, command = moving(4)
    guard.tell(flag)
    for _ in range(10):
        now += TICK
        before, command = command, guard(HALF, seen(now, command), now)
    assert guard.status.state in (RULES[flag].state, State.OFF)
    np.testing.assert_array_equal(command, before)


def test_an_operator_clears_a_fault_and_starts_anew() -> None:
    guard, now, command = moving()
    guard.tell(Flag.ROBOT_FAULT)
    for event, state in [
        (None, State.FAULT),
        (Event.START, State.FAULT),
        (Event.CLEAR, State.ARMED),
        (None, State.ARMED),
        (Event.START, State.RUNNING),
    ]:
        now += TICK
        if event:
            guard.tell(event)
        command = guard(HALF, seen(now, command), now)
        assert guard.status.state is state


def test_a_state_that_is_not_finite_is_a_fault() -> None:
    guard, now, _ = moving()
    after = guard(HALF, seen(now + TICK, np.nan), now + TICK)
    assert guard.status.state is State.FAULT and np.isfinite(after).all()


def test_a_fault_that_the_body_reports_is_latched_and_recorded_with_its_part() -> None:
    guard, now, command = moving()
    wrong = replace(seen(now + TICK, command), faults=("elbow (id 3): overload",))
    assert not guard.fresh(wrong, now + TICK)
    command = guard(HALF, wrong, now + TICK)
    guard(HALF, seen(now + 2 * TICK, command), now + 2 * TICK)
    assert guard.status.state is State.FAULT
    assert guard.history[-1][2:] == (State.FAULT, ("robot fault", "elbow (id 3): overload"))


def test_it_starts_from_no_pose_but_a_known_one() -> None:
    guard = Guard(SPEC)
    with pytest.raises(TaktError, match="outside its limits"):
        guard(HALF, seen(0.0, np.nan), 0.0)
    assert guard.status.state is State.OFF


def test_the_metals_profile_is_tighter_everywhere() -> None:
    metal, loose = Guard(so101.spec((), profile=so101.METAL)).limits, Guard(SPEC).limits
    for name in ("velocity", "acceleration", "lead", "upper"):
        assert (getattr(metal, name) < getattr(loose, name)).all()
    np.testing.assert_allclose(metal.upper - metal.lower, 0.96 * (loose.upper - loose.lower))


def test_history_is_bounded() -> None:
    guard, now = Guard(SPEC), 0.0
    for i in range(2000):
        now += TICK
        guard(None if i % 2 else HALF * 0, seen(now), now)
    assert len(guard.history) == 256


@pytest.mark.parametrize("profile", [so101.METAL, so101.SIMULATION], ids=["metal", "simulation"])
@pytest.mark.parametrize("phase", [0.0, 0.4, 0.9])
def test_at_full_speed_an_arm_whose_camera_falls_silent_stands_soon(
    profile: so101.Profile, phase: float
) -> None:
    """It is slowed while frames grow old, so that what is left to brake at the end is little."""
    spec = so101.spec(fakes.CAMERAS, profile=profile)
    guard, captured, last = Guard(spec), 0.0, -1.0
    start = np.array([-1.0] * 5 + [0.0])
    commands = [start]
    for i in range(60):
        now = i * TICK
        if i <= 14:
            captured = now - phase * TICK
        target = start + now * np.array(spec.max_velocity)
        command = guard(target, seen(now, commands[-1], captured={"front": captured}), now)
        if np.abs(command - commands[-1]).max() > 1e-9:
            last = now
        commands.append(command)
        if i == 14:
            speed = np.abs(commands[-1] - commands[-2]) / TICK
            assert (speed > 0.8 * np.array(spec.max_velocity))[:5].all(), f"not as fast as it may be: {speed}"
    assert last - captured <= 0.3 + TICK, last - captured


def test_frames_of_a_usual_age_slow_nothing() -> None:
    dogs = Watchdogs(Watch())
    ages = np.arange(0.0, 0.25, 0.01)
    paces = [dogs.pace(seen(1.0, captured={"front": 1.0, "wrist": 1.0 - age}), 1.0) for age in ages]
    assert all(pace == 1.0 for pace, age in zip(paces, ages, strict=True) if age < 0.1)
    assert all(a >= b for a, b in itertools.pairwise(paces)) and paces[-1] == 0.0
    assert dogs.pace(seen(1.0), 1.0) == 1.0
