"""Whatever is asked, every command is finite and within every limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import so101
from runtime.safety import FIRST, LONGEST, Filter, Limits, limit, shrunk, start
from vla.contract import ActionSpace, Dimension, RobotSpec, TaktError

SPEC = so101.spec(())
LIMITS = Limits.of(SPEC)
SIZE = SPEC.actions.size

anything = st.floats(allow_nan=True, allow_infinity=True, width=32)
reasonable = st.floats(-3.0, 3.0)
rows = st.lists(st.one_of(anything, reasonable), min_size=SIZE, max_size=SIZE).map(np.array)
requests = st.lists(st.tuples(st.one_of(st.none(), rows), st.floats(1e-4, 0.5)), min_size=1, max_size=25)
poses = st.lists(st.floats(0.0, 1.0), min_size=SIZE, max_size=SIZE).map(
    lambda f: LIMITS.lower + np.array(f) * (LIMITS.upper - LIMITS.lower)
)


@settings(deadline=None)
@given(poses, requests, st.booleans())
def test_every_command_respects_every_limit(pose: np.ndarray, stream: list, follows: bool) -> None:
    """The law: finite, in range, |v| <= v_max, |dv| <= a_max dt; whether the arm follows or is stuck.

    Commands further apart than LONGEST count as that far apart.
    """
    state, now, measured = start(LIMITS, pose, 0.0), 0.0, pose
    before, velocity = state.position, np.zeros(SIZE)
    for target, dt in stream:
        now += dt
        dt = min(dt, LONGEST)
        command, state, _ = limit(LIMITS, state, target, measured, now)
        assert np.isfinite(command).all()
        assert (command >= LIMITS.lower).all()
        assert (command <= LIMITS.upper).all()
        moved = (command - before) / dt
        assert (np.abs(moved) <= LIMITS.velocity + 1e-9 / dt).all()
        assert (np.abs(moved - velocity) <= LIMITS.acceleration * dt + 1e-9 / dt).all()
        before, velocity, measured = command, moved, command if follows else measured


@settings(deadline=None)
@given(poses, requests, st.lists(st.floats(1e-4, 0.5), min_size=40, max_size=40))
def test_motion_ends_in_the_time_that_braking_takes(pose: np.ndarray, stream: list, ticks: list) -> None:
    """From whatever state, at the limits as well: v / a of counted time, and one tick."""
    state, now = start(LIMITS, pose, 0.0), 0.0
    for target, dt in stream:
        now += dt
        _, state, _ = limit(LIMITS, state, target, state.position, now)
    braked = 0.0
    for dt in ticks:
        now += dt
        before = state.position
        command, state, _ = limit(LIMITS, state, None, before, now)
        moving = command != before
        assert not (moving & (braked > LIMITS.velocity / LIMITS.acceleration + 1e-9)).any()
        braked += min(dt, LONGEST)


@settings(deadline=None)
@given(poses, st.integers(0, SIZE - 1), st.floats(-1.0, 1.0), rows, st.floats(1e-3, 0.1))
def test_the_first_command_is_near_the_pose_and_the_way_in_is_slow(
    pose: np.ndarray, joint: int, side: float, target: np.ndarray, dt: float
) -> None:
    """Outside by no more than the lead: never further out, inwards within the limits, and inside to stay."""
    pose = pose.copy()
    limits = LIMITS.upper if side > 0 else LIMITS.lower
    pose[joint] = limits[joint] + side * 0.99 * LIMITS.lead[joint]
    safety = Filter(LIMITS)
    before = safety(target, pose, 0.0)
    assert (np.abs(before - pose) <= FIRST).all()
    velocity = np.zeros(SIZE)
    for i in range(1, 60):
        command = safety(target, before, i * dt)
        moved = (command - before) / dt
        assert (command >= np.minimum(LIMITS.lower, before) - 1e-12).all()
        assert (command <= np.maximum(LIMITS.upper, before) + 1e-12).all()
        assert (np.abs(moved) <= LIMITS.velocity + 1e-9 / dt).all()
        assert (np.abs(moved - velocity) <= LIMITS.acceleration * dt + 1e-9 / dt).all()
        before, velocity = command, moved


@settings(deadline=None)
@given(poses, rows)
def test_a_hold_stops_and_stays(pose: np.ndarray, target: np.ndarray) -> None:
    state, now = start(LIMITS, pose, 0.0), 0.0
    for _ in range(5):
        now += 0.05
        command, state, _ = limit(LIMITS, state, target, state.position, now)
    seen = []
    for _ in range(12):
        now += 0.05
        command, state, _ = limit(LIMITS, state, None, state.position, now)
        seen.append(command)
    assert (np.abs(seen[0] - command) <= LIMITS.velocity**2 / (2 * LIMITS.acceleration) + 1e-9).all()
    np.testing.assert_array_equal(seen[-1], seen[-2])


@settings(deadline=None)
@given(poses, poses)
def test_a_step_is_approached_without_overshoot_and_reached(pose: np.ndarray, target: np.ndarray) -> None:
    state, now, gap = start(LIMITS, pose, 0.0), 0.0, np.abs(target - pose)
    for _ in range(120):
        now += 1 / 30
        command, state, _ = limit(LIMITS, state, target, state.position, now)
        assert (np.abs(target - command) <= gap + 1e-9).all()
        gap = np.abs(target - command)
    assert gap.max() < 1e-3


@given(st.floats(0.1, 1.0), st.floats(0.1, 2.0))
def test_a_gentle_motion_passes_unchanged(amplitude: float, frequency: float) -> None:
    safety = Filter(LIMITS)
    safety(np.zeros(SIZE), np.zeros(SIZE), 0.0)
    measured = np.zeros(SIZE)
    for i in range(1, 60):
        now = i / 30
        target = np.full(SIZE, 0.5 * amplitude * (1 - np.cos(frequency * now)))
        command = safety(target, measured, now)
        np.testing.assert_allclose(command, target, atol=1e-9)
        measured = command
    assert not safety.verdicts


def test_what_was_done_is_counted() -> None:
    safety = Filter(LIMITS)
    pose = np.zeros(SIZE)
    safety(None, pose, 0.0)
    for i, target in enumerate([np.full(SIZE, np.nan), np.zeros(SIZE - 1), np.full(SIZE, 9.0)]):
        safety(target, pose, 0.1 * (i + 1))
    assert safety.verdicts == {"rejected": 2, "position": 1, "lead": 1, "acceleration": 1}
    fast = Filter(LIMITS)
    for now, value in [(0.0, 0.0), (0.1, 0.34)]:
        fast(np.full(SIZE, value), pose, now)
    assert fast.verdicts == {"velocity": 1, "acceleration": 1}


def test_the_first_command_is_the_measured_pose() -> None:
    pose = np.full(SIZE, 0.3)
    np.testing.assert_array_equal(Filter(LIMITS)(np.ones(SIZE), pose, 5.0), pose)


@pytest.mark.parametrize("pose", [np.full(SIZE, np.nan), np.full(SIZE, 5.0)])
def test_it_refuses_to_start_from_nowhere(pose: np.ndarray) -> None:
    with pytest.raises(TaktError, match="outside its limits"):
        Filter(LIMITS)(None, pose, 0.0)


@pytest.mark.parametrize("values", [(), (1.0,), (0.0,) * SIZE, (float("inf"),) * SIZE])
@pytest.mark.parametrize("name", ["max_velocity", "max_acceleration", "max_lead"])
def test_a_missing_limit_refuses_to_start(name: str, values: tuple[float, ...]) -> None:
    with pytest.raises(TaktError, match="lacks a limit"):
        Limits.of(replace(SPEC, **{name: values}))


def test_relative_actions_are_clamped_and_held_at_zero() -> None:
    space = ActionSpace((Dimension("dx", "m", -0.1, 0.1, absolute=False),))
    safety = Filter(Limits.of(RobotSpec("r", ("x",), space, (), (1.0,), (1.0,), (1.0,))))
    measured = np.array([5.0])
    commands = [safety(t, measured, 0.1 * i) for i, t in enumerate([np.array([0.7]), np.array([0.05]), None])]
    assert [c.item() for c in commands] == [0.1, 0.05, 0.0]


def test_a_stall_does_not_let_a_leap_out() -> None:
    pose = (LIMITS.lower + LIMITS.upper) / 2
    command, _, _ = limit(LIMITS, start(LIMITS, pose, 0.0), LIMITS.upper, pose, 5.0)
    assert (np.abs(command - pose) <= LIMITS.velocity * LONGEST + 1e-9).all()


def test_a_margin_shortens_both_ends_of_absolute_ranges() -> None:
    short = Limits.of(SPEC, margin=0.02)
    cut = 0.02 * (LIMITS.upper - LIMITS.lower)
    np.testing.assert_allclose(short.lower, LIMITS.lower + cut)
    np.testing.assert_allclose(short.upper, LIMITS.upper - cut)
    step = ActionSpace((Dimension("dx", "m", -0.1, 0.1, absolute=False),))
    assert shrunk(step, 0.02) == step
    with pytest.raises(ValueError, match="margin"):
        shrunk(step, 0.5)
