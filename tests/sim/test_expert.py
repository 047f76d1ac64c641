"""The scripted expert: it does what it is told, from anywhere, and remembers nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import rollouts
from sim.tabletop import expert, motion, rules, tasks
from sim.tabletop.meaning import VERBS, Task
from sim.tabletop.scene import SLOTS
from sim.tabletop.world import World
from tests.sim.tables import drawn, move, table, thing

LAW = settings(deadline=None, max_examples=60, derandomize=True)
SEEDS = range(20)
TICKS = 240  # 8 s
LASTS = 15  # 0.5 s

# Of SEEDS: how many are done without noise and how many with; how many may move what is not named.
EXPECTED = {
    "put": (20, 17, 0), "stack": (20, 15, 0), "push": (20, 15, 1), "touch": (20, 16, 0), "lift": (20, 17, 0)
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def step(world: World, target: np.ndarray) -> None:
    world.command(target)
    world.advance(rollouts.TICK_STEPS)


def play(world: World, seed: int, strength: float, verb: str) -> tuple[bool, bool]:
    """(success that lasts, reached within TICKS; something else moved)."""
    rng = np.random.default_rng(seed)
    world.reset(*tasks.draw(rng, verb=verb))
    noise, lasted = rollouts.Noise(rng, strength), 0
    for _ in range(TICKS):
        step(world, noise(expert.act(world)))
        lasted = lasted + 1 if world.success() else 0
        if lasted == LASTS:
            break
    return lasted == LASTS, world.moved(rules.MOVED, others=True)


@pytest.mark.parametrize("verb", VERBS)
def test_it_always_succeeds_and_moves_nothing_else(world: World, verb: str) -> None:
    least, _, most = EXPECTED[verb]
    outcomes = {seed: play(world, seed, 0.0, verb) for seed in SEEDS}
    assert sum(success for success, _ in outcomes.values()) >= least, outcomes
    assert sum(moved for _, moved in outcomes.values()) <= most, outcomes


@pytest.mark.parametrize("verb", VERBS)
def test_it_recovers_from_disturbances(world: World, verb: str) -> None:
    assert sum(play(world, seed, 1.0, verb)[0] for seed in SEEDS) >= EXPECTED[verb][1]


@pytest.mark.parametrize("words", ["red cube", "red cylinder", "red ball"])
def test_what_it_lifts_it_goes_on_holding(world: World, words: str) -> None:
    """At many places on the table and however it is turned: a grip that squeezes it out shows here."""
    for angle in np.linspace(-0.8, 0.8, 9):
        xy = (0.0388 + 0.2 * np.cos(angle), 0.2 * np.sin(angle))
        at = table({words: xy, "blue bowl": (0.15, -0.2 if angle > 0 else 0.2)}, yaw=np.array([angle, 0.0]))
        world.reset(at, Task("lift", thing(words)))
        done = []
        for _ in range(150):
            step(world, expert.act(world))
            done.append(world.success())
        assert True in done, angle
        assert all(done[done.index(True) :]), angle


@pytest.mark.parametrize("verb", ["put", "stack", "push"])
def test_after_success_it_goes_home_and_stays(world: World, verb: str) -> None:
    world.reset(*drawn(2, verb=verb))
    for _ in range(TICKS + 60):
        step(world, expert.act(world))
    assert world.success()
    np.testing.assert_allclose(world.joints()[:4], tasks.HOME[:4], atol=0.06)
    assert world.joints()[5] > 0.6


@pytest.mark.parametrize("verb", ["touch", "lift"])
def test_what_is_done_only_while_it_lasts_goes_on(world: World, verb: str) -> None:
    world.reset(*drawn(2, verb=verb))
    for _ in range(TICKS + 60):
        step(world, expert.act(world))
    before = world.joints()
    for _ in range(30):
        step(world, expert.act(world))
        assert world.success()
    np.testing.assert_allclose(world.joints(), before, atol=0.06)


@pytest.mark.parametrize("seed", range(8))
def test_where_nothing_can_be_done_it_goes_home_and_touches_nothing(world: World, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layout, task = tasks.draw(rng, verb=VERBS[seed % len(VERBS)])
    missing = None
    while missing is None:
        missing = tasks.absent(rng, layout, task)
    world.reset(layout, missing)
    for _ in range(120):
        step(world, expert.act(world))
    assert not world.moved(rules.STILL)
    assert not world.success()
    np.testing.assert_allclose(world.joints()[:4], tasks.HOME[:4], atol=0.06)


@pytest.mark.parametrize("ask", ["another", "nothing"])
def test_it_puts_down_what_it_holds_when_something_else_is_asked(world: World, ask: str) -> None:
    """In mid-air: "no, the blue one"."""
    at = table({"red cube": (0.22, 0.05), "blue cube": (0.22, -0.08), "white bowl": (0.18, 0.15)})
    world.reset(at, Task("lift", thing("red cube")))
    for _ in range(90):
        step(world, expert.act(world))
    assert world.success()
    red = world.held()
    assert red is not None and SLOTS[red] == "cube0"
    world.ask(Task("lift", thing("blue cube" if ask == "another" else "blue ball")))
    lowest = np.inf
    for _ in range(TICKS):
        step(world, expert.act(world))
        if world.held() == red:
            lowest = float(world.things()[red][2])
    assert lowest < 0.03, "it let go up in the air"
    assert world.success() is (ask == "another")
    assert world.held() != red


@pytest.mark.parametrize("seed", range(5))
def test_it_remembers_nothing_changes_nothing_and_keeps_its_speed(world: World, seed: int) -> None:
    rng = np.random.default_rng(seed)
    world.reset(*tasks.draw(rng, verb=VERBS[seed]))
    noise = rollouts.Noise(rng, 3.0)
    for _ in range(TICKS):
        state, highest, pose = world.save(), world.highest, world.joints().astype(float)
        target = expert.act(world)
        np.testing.assert_array_equal(expert.act(world), target)
        np.testing.assert_array_equal(world.save(), state)
        assert world.highest == highest
        change = np.abs(target - pose)
        assert (change[:4] <= motion.JOINT_SPEED * motion.TICK + 1e-9).all()
        assert change[4] <= 0.05 + 1e-9
        if target[5] != motion.SHUT:  # pressing on a thing asks for more than the jaws can do
            assert change[5] <= motion.JAW_SPEED * motion.TICK + 1e-9
        step(world, noise(target))


LOW = np.array([-1.8, -1.7, -1.6, -1.6, -2.5, -0.17])
HIGH = np.array([1.8, 1.7, 1.6, 1.6, 2.5, 1.7])
poses = st.tuples(*(st.floats(a, b) for a, b in zip(LOW, HIGH, strict=True))).map(np.array)
goals = st.tuples(st.floats(0.1, 0.35), st.floats(-0.25, 0.25), st.floats(0.0, 0.15)).map(np.array)


@LAW
@given(poses, goals, st.sampled_from([motion.OPEN, motion.SHUT]), st.floats(0.01, motion.SPEED))
def test_from_any_pose_motion_is_bounded_and_finite(
    q: np.ndarray, goal: np.ndarray, jaw: float, speed: float
) -> None:
    for wanted in (goal, None):
        target = motion.move(q, motion.Step(wanted, jaw, speed))
        assert np.isfinite(target).all()
        assert (np.abs(target - q)[:4] <= motion.JOINT_SPEED * motion.TICK + 1e-9).all()


@pytest.mark.parametrize("verb", VERBS)
def test_from_any_pose_there_is_a_decision(world: World, verb: str) -> None:
    """Wherever the arm and the things are, even inside each other."""
    layout, task = drawn(1, verb=verb)
    world.reset(layout, task)

    @LAW
    @given(poses, goals, goals)
    def law(q: np.ndarray, one: np.ndarray, two: np.ndarray) -> None:
        move(world, {0: one, 1: two}, q)
        step = expert.decide(world)
        assert step.jaw in (motion.OPEN, motion.SHUT)
        assert 0 < step.speed <= motion.SPEED
        assert step.goal is None or (step.goal.shape == (3,) and np.isfinite(step.goal).all())
        assert np.isfinite(expert.act(world)).all()

    law()


def test_the_hand_tilts_outwards_with_height() -> None:
    tilts = [motion.pitch(z) for z in np.linspace(0.0, 0.2, 30)]
    assert (np.diff(tilts) <= 0).all()
    assert 1.0 < tilts[-1] < tilts[0] <= np.pi / 2
