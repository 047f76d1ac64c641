"""Episodes with the expert's label on every frame, in the columns of a demonstration data set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sim import demos, rollouts
from sim.tabletop import expert, tasks
from sim.tabletop.world import World
from tests import fakes

ROWS = 3  # rows of a short episode


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def started(world: World, seed: int, ticks: int = 0) -> rollouts.Arm:
    world.reset(tasks.sample(np.random.default_rng(seed)))
    arm = rollouts.Arm(world)
    for _ in range(ticks):
        arm.tick(expert.act(world))
    return arm


@pytest.mark.parametrize("ticks", [0, 20, 60, 110])
def test_labelling_leaves_the_world_as_it_was(world: World, ticks: int) -> None:
    arm = started(world, 1, ticks)
    world.command(world.data.ctrl + 0.01)  # a command under way counts too
    before, ctrl = world.save(), world.data.ctrl.copy()
    rollouts.label(arm)
    np.testing.assert_array_equal(world.save(), before)
    np.testing.assert_array_equal(world.data.ctrl, ctrl)


def test_a_label_is_a_function_of_the_state(world: World) -> None:
    arm = started(world, 2, 40)
    first = rollouts.label(arm)
    np.testing.assert_array_equal(rollouts.label(arm), first)
    assert (first.shape, first.dtype) == ((rollouts.ROWS, 6), np.float32)


def test_a_label_is_what_the_expert_does_from_there(world: World) -> None:
    arm = started(world, 3, 30)
    label = rollouts.label(arm)
    done = []
    for tick in range(rollouts.ROWS * rollouts.ROW_TICKS):
        target = expert.act(world)
        if tick % rollouts.ROW_TICKS == 0:
            done.append(target)
        arm.tick(target)
    np.testing.assert_allclose(label, done, atol=1e-4)


def test_a_label_goes_on_from_where_committed_rows_lead(world: World) -> None:
    arm = started(world, 3, 30)
    away = world.joints() + np.linspace(0, 1, 5)[:, None] * np.array([0.3, 0, 0, 0, 0, 0])
    label = rollouts.label(arm, away)
    np.testing.assert_allclose(label[:5], away, atol=1e-6)
    for tick in range(4 * rollouts.ROW_TICKS + 1):
        at = tick / rollouts.ROW_TICKS
        arm.tick(np.array([np.interp(at, range(5), away[:, j]) for j in range(6)]))
    for _ in range(rollouts.ROW_TICKS - 1):
        arm.tick(expert.act(world))
    np.testing.assert_allclose(label[5], expert.act(world), atol=1e-4)


def record(world: World, seed: int, strength: float = 1.0) -> rollouts.Episode:
    rng = np.random.default_rng(seed)
    layout = tasks.sample(rng)
    noise = rollouts.Noise(rng, strength)
    return rollouts.episode(world, layout, "put", rollouts.ExpertDriver(), noise, rows=ROWS)


def test_columns_are_those_of_the_data_set(world: World) -> None:
    columns = record(world, 0).columns
    features = demos.features()
    assert columns.keys() == features.keys()
    for name, feature in features.items():
        value = columns[name]
        assert len(value) == ROWS
        # Pixels are stored flat: (cameras, thing and place, (u, v, inside)).
        assert value[0].size == np.prod(feature.shape), name
        if name != "privileged.pixels":
            assert value.shape[1:] == feature.shape, name
        assert value.dtype == ("uint8" if feature.dtype == "image" else feature.dtype), name
    np.testing.assert_array_equal(columns["action"], columns["expert.chunk"][:, 0])


def test_an_episode_is_a_function_of_its_seed(world: World) -> None:
    first = record(world, 5).columns
    record(world, 6)
    for name, value in record(world, 5).columns.items():
        np.testing.assert_array_equal(value, first[name], err_msg=name)


def test_an_episode_ends_some_rows_after_success(world: World) -> None:
    rng = np.random.default_rng(4)
    noise = rollouts.Noise(rng, 0.0)
    done = rollouts.episode(world, tasks.sample(rng), "put", rollouts.ExpertDriver(), noise, rows=60, after=2)
    assert done.success
    length = len(done.columns["action"])
    assert 10 < length < 60
    # The named cube is in the bowl in the last rows and was not before.
    cube, bowl = done.columns["privileged.positions"][:, :3], done.columns["privileged.positions"][:, 3:]
    inside = [tasks.in_bowl(c, b) for c, b in zip(cube, bowl, strict=True)]
    assert inside[-1]
    assert not any(inside[: length // 2])


def test_noise_of_no_strength_is_none_and_noise_comes_in_bursts() -> None:
    target = np.arange(6.0)
    quiet = rollouts.Noise(np.random.default_rng(0), 0.0)
    assert all((quiet(target) == target).all() for _ in range(200))
    loud = rollouts.Noise(np.random.default_rng(0), 1.0)
    pushed = np.array([loud(target) - target for _ in range(2000)])
    moving = np.abs(pushed).max(axis=1) > 0
    assert 0.05 < moving.mean() < 0.6
    assert (pushed[:, 4] == 0).all()  # the roll is left alone
    # The same push lasts for some ticks.
    starts = np.flatnonzero(moving[1:] & ~moving[:-1]) + 1
    for start in starts[:20]:
        np.testing.assert_array_equal(pushed[start, :4], pushed[min(start + 3, len(pushed) - 1), :4])


@pytest.mark.parametrize(("share", "asked"), [(0.0, True), (1.0, False)])
def test_a_policy_drives_unless_the_expert_does(world: World, share: float, asked: bool) -> None:
    spec = fakes.arm_spec(chunk_length=rollouts.ROWS, dt=rollouts.DT)
    policy = fakes.ScriptedPolicy(spec, lambda o: np.tile(o.state, (rollouts.ROWS, 1)))
    rng = np.random.default_rng(0)
    layout = tasks.sample(rng)
    driver = rollouts.PolicyDriver(policy, rng, share)
    done = rollouts.episode(world, layout, "put", driver, rollouts.Noise(rng, 0.0), rows=6)
    states = done.columns["observation.state"]
    assert bool(policy.seen) is asked
    moved = np.abs(states[-1] - states[0]).max()
    assert moved < 0.05 if asked else moved > 0.1
    # Either way every frame carries the expert's label, which wants to move.
    assert np.abs(done.columns["expert.chunk"][0, -1] - states[0]).max() > 0.1
