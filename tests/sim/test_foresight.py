"""The simulator as a judge of candidate chunks, and a body whose commands are disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from runtime.clock import SimulatedClock
from runtime.think import Judge
from sim import expert, foresight, rollouts
from sim.disturbed import Disturbed
from sim.robot import TabletopRobot
from sim.tabletop import expert as scripted
from sim.tabletop.meaning import VERBS
from sim.tabletop.suite import SUITE
from sim.tabletop.world import World
from tests.sim.tables import drawn
from vla.contract import Request, TaktError

NOTHING = np.zeros(12, bool)


@pytest.fixture(scope="module")
def robot() -> Iterator[TabletopRobot]:
    with SUITE.robot(SimulatedClock()) as made:
        yield made


SPEC = replace(expert.spec(SUITE), dt=rollouts.DT, chunk_length=rollouts.ROWS)


def judged(robot: TabletopRobot, judge: Judge, chunks: list[np.ndarray]) -> np.ndarray:
    return judge(np.array(chunks), Request(robot.read()), NOTHING, dict)


def under_way(robot: TabletopRobot, seed: int, ticks: int) -> tuple[np.ndarray, np.ndarray]:
    """A table at work; the expert's chunk from there, and one that stands still."""
    robot.reset(*drawn(seed, verb=VERBS[seed % len(VERBS)]))
    arm = rollouts.Arm(robot.world)
    for _ in range(ticks):
        arm.tick(scripted.act(robot.world))
    still = np.repeat(robot.world.data.ctrl[None], rollouts.ROWS, axis=0)
    return rollouts.label(arm), still


@pytest.mark.parametrize("judge", ["refuse", "world"])
def test_judging_leaves_the_world_as_it_was(robot: TabletopRobot, judge: str) -> None:
    expert_chunk, still = under_way(robot, 3, 25)
    world: World = robot.world
    before, ctrl, highest = world.save(), world.data.ctrl.copy(), world.highest
    judged(robot, foresight.of(SUITE, robot, judge, SPEC), [expert_chunk, still])
    np.testing.assert_array_equal(world.save(), before)
    np.testing.assert_array_equal(world.data.ctrl, ctrl)
    assert world.highest == highest


@pytest.mark.parametrize("seed", range(10))
def test_getting_on_is_liked_better_than_standing_still(robot: TabletopRobot, seed: int) -> None:
    expert_chunk, still = under_way(robot, seed, 15)
    costs = judged(robot, foresight.of(SUITE, robot, "world", SPEC), [still, expert_chunk])
    assert costs[1] < costs[0] < foresight.REFUSED / 2


def sweep(robot: TabletopRobot) -> np.ndarray:
    """Low over the table from one side to the other, the jaws open."""
    rows = np.repeat(robot.world.joints()[None].astype(float), rollouts.ROWS, axis=0)
    rows[:, 0] += np.linspace(0, 1.2, rollouts.ROWS)
    return rows


def test_what_runs_into_others_is_refused(robot: TabletopRobot) -> None:
    """The arm stands in the middle of the table among things, low; a sweep takes one of them along."""
    refused = 0
    for seed in range(12):
        expert_chunk, still = under_way(robot, seed, 30)
        costs = judged(robot, foresight.of(SUITE, robot, "refuse", SPEC), [still, sweep(robot), expert_chunk])
        assert costs[0] < foresight.REFUSED and costs[2] < foresight.REFUSED
        refused += costs[1] >= foresight.REFUSED
    assert refused >= 2


def test_what_drops_its_load_is_refused(robot: TabletopRobot) -> None:
    """Carried by the expert, let go of in the air."""
    robot.reset(*drawn(0, verb="put"))
    arm = rollouts.Arm(robot.world)
    slot = robot.world.slot("thing")
    for _ in range(200):
        arm.tick(scripted.act(robot.world))
        if robot.world.held() == slot and robot.world.things()[slot, 2] > 0.06:
            break
    assert robot.world.held() == slot
    keep = np.repeat(robot.world.data.ctrl[None], rollouts.ROWS, axis=0)
    let_go = keep.copy()
    let_go[:, 5] = 1.0
    held, dropped = judged(robot, foresight.of(SUITE, robot, "refuse", SPEC), [keep, let_go])
    assert held < foresight.REFUSED <= dropped


def test_other_suites_cannot_be_played_forward() -> None:
    with pytest.raises(TaktError, match="suite tabletop alone"):
        foresight.check(object())


class Still:
    """A body that takes what it is told."""

    spec = SPEC

    def __init__(self) -> None:
        self.got: list[np.ndarray] = []

    def write(self, command: np.ndarray) -> None:
        self.got.append(command)


def disturbed(seed: int, strength: float, command: float) -> np.ndarray:
    body = Still()
    robot = Disturbed(body, seed, strength)
    for _ in range(300):
        robot.write(np.full(6, command))
    return np.array(body.got) - command


def test_bursts_are_a_function_of_the_seed_and_not_of_what_is_commanded() -> None:
    one, two = disturbed(1, 1.0, 0.0)[:, :4], disturbed(1, 1.0, 0.2)[:, :4]
    np.testing.assert_allclose(one, two, atol=1e-12)
    assert np.abs(one).max() > 0 and (one == 0).all(1).any()
    assert not np.allclose(one, disturbed(2, 1.0, 0.0)[:, :4])
    assert not disturbed(1, 0.0, 0.1).any()
