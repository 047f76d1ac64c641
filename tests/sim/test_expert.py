"""The scripted expert: it does what it is told, from anywhere, and remembers nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import rollouts
from sim.tabletop import expert, tasks
from sim.tabletop.world import World

LAW = settings(deadline=None, max_examples=60, derandomize=True)
SEEDS = range(20)
TICKS = 180  # 6 s


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def play(world: World, seed: int, strength: float) -> tuple[bool, bool]:
    """(success within TICKS, something else moved)."""
    rng = np.random.default_rng(seed)
    world.reset(tasks.sample(rng))
    noise = rollouts.Noise(rng, strength)
    for _ in range(TICKS):
        world.command(noise(expert.act(world)))
        world.advance(rollouts.TICK_STEPS)
        if world.success():
            # What was let go must stay where it is.
            world.advance(rollouts.TICK_STEPS * 15)
            return world.success(), world.others_moved()
    return False, world.others_moved()


def test_it_always_succeeds_and_moves_nothing_else(world: World) -> None:
    outcomes = {seed: play(world, seed, 0.0) for seed in SEEDS}
    assert [seed for seed, (success, _) in outcomes.items() if not success] == []
    assert [seed for seed, (_, moved) in outcomes.items() if moved] == []


def test_it_recovers_from_disturbances(world: World) -> None:
    assert sum(play(world, seed, 1.0)[0] for seed in SEEDS) >= 17


def test_after_success_it_goes_home_and_stays(world: World) -> None:
    world.reset(tasks.sample(np.random.default_rng(2)))
    for _ in range(TICKS + 60):
        world.command(expert.act(world))
        world.advance(rollouts.TICK_STEPS)
    assert world.success()
    np.testing.assert_allclose(world.joints()[:4], tasks.HOME[:4], atol=0.06)
    assert world.joints()[5] > 0.6


@pytest.mark.parametrize("seed", range(3))
def test_it_remembers_nothing_changes_nothing_and_keeps_its_speed(world: World, seed: int) -> None:
    rng = np.random.default_rng(seed)
    world.reset(tasks.sample(rng))
    noise = rollouts.Noise(rng, 3.0)
    for _ in range(TICKS):
        state, pose = world.save(), world.joints().astype(float)
        target = expert.act(world)
        np.testing.assert_array_equal(expert.act(world), target)
        np.testing.assert_array_equal(world.save(), state)
        change = np.abs(target - pose)
        assert (change[:4] <= expert.JOINT_SPEED * expert.TICK + 1e-9).all()
        assert change[4] <= 0.05 + 1e-9
        if target[5] != expert.SHUT:  # pressing on a cube asks for more than the jaws can do
            assert change[5] <= expert.JAW_SPEED * expert.TICK + 1e-9
        world.command(noise(target))
        world.advance(rollouts.TICK_STEPS)


LOW = np.array([-1.8, -1.7, -1.6, -1.6, -2.5, -0.17])
HIGH = np.array([1.8, 1.7, 1.6, 1.6, 2.5, 1.7])
poses = st.tuples(*(st.floats(a, b) for a, b in zip(LOW, HIGH, strict=True))).map(np.array)
goals = st.tuples(st.floats(0.1, 0.35), st.floats(-0.25, 0.25), st.floats(0.0, 0.15)).map(np.array)


@LAW
@given(poses, goals, st.sampled_from([expert.OPEN, expert.SHUT]))
def test_from_any_pose_motion_is_bounded_and_finite(q: np.ndarray, goal: np.ndarray, jaw: float) -> None:
    for wanted in (goal, None):
        target = expert.move(q, wanted, jaw)
        assert np.isfinite(target).all()
        assert (np.abs(target - q)[:4] <= expert.JOINT_SPEED * expert.TICK + 1e-9).all()


@LAW
@given(poses, goals, goals)
def test_from_any_pose_there_is_a_decision(q: np.ndarray, cube: np.ndarray, bowl: np.ndarray) -> None:
    goal, jaw = expert.decide(q, cube, bowl)
    assert jaw in (expert.OPEN, expert.SHUT)
    assert goal is None or (goal.shape == (3,) and np.isfinite(goal).all())


def test_the_hand_tilts_outwards_with_height() -> None:
    tilts = [expert.pitch(z) for z in np.linspace(0.0, 0.2, 30)]
    assert (np.diff(tilts) <= 0).all()
    assert 1.0 < tilts[-1] < tilts[0] <= np.pi / 2
