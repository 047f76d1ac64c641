"""When a task counts as done: true where it is, false in every near miss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.robot import TabletopRobot
from sim.tabletop import kinematics, motion, rules, tasks
from sim.tabletop.meaning import Task, Thing
from sim.tabletop.places import SIDE_Y
from sim.tabletop.scene import BOWL_INNER, BOWL_RIM, CUBE_HALF, HALF, ZONE_HALF
from sim.tabletop.world import World
from tests.sim.tables import ASIDE, TICK, move, table, thing

LAW = settings(deadline=None, max_examples=150, derandomize=True)
FLOOR = 0.003  # of a bowl [m]
UP = np.array([0.0, 0.0, 1.0])
SHUT = 0.0  # the gripper's angle [rad]
WIDE = 1.6

TABLE = table(
    {
        "red cube": (0.20, 0.06),
        "green cylinder": (0.24, -0.02),
        "blue ball": (0.20, -0.09),
        "yellow bowl": (0.28, 0.10),
        "purple bowl": (0.28, -0.12),
    },
    zones={"white": (0.17, 0.0)},
)
CUBE, CYLINDER, BALL, YELLOW, PURPLE = range(5)


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def asked(world: World, verb: str, what: str, place: str = "", **how: str) -> World:
    task = Task(verb, thing(what), thing(place) if place else None, **how)
    world.reset(TABLE, task)
    assert not world.success(), "it begins done"
    return world


def number(what: str) -> int:
    return TABLE.things.index(thing(what))


def at(world: World, index: int) -> np.ndarray:
    return world.things()[TABLE.slots[index]]


def hand(tool: np.ndarray, jaw: float) -> np.ndarray:
    """Joints with the tool point there, shape (6,) [rad]."""
    pose = kinematics.solve(tool, motion.pitch(float(tool[2])))
    assert pose is not None
    return np.array([*pose, 0.0, jaw])


def tip_at(world: World, where: np.ndarray, jaw: float = SHUT) -> np.ndarray:
    """Joints with the finger tip there, found step by step, shape (6,) [rad]; the world is left so."""
    tool = where.copy()
    for _ in range(12):
        move(world, {}, hand(tool, jaw))
        tool = tool + where - world.tip()
    assert np.linalg.norm(world.tip() - where) < 5e-4
    return hand(tool, jaw)


# -- put


@pytest.mark.parametrize("what", ["red cube", "green cylinder", "blue ball"])
def test_put_is_in_the_named_bowl_and_let_go(shared: World, what: str) -> None:
    world, i = asked(shared, "put", what, "yellow bowl"), number(what)
    inside = at(world, YELLOW) + (FLOOR + HALF[TABLE.things[i].kind]) * UP
    move(world, {i: inside})
    assert world.success()
    move(world, {i: inside}, hand(inside + 0.003 * UP, SHUT))
    assert any(world.touching(TABLE.slots[i]))
    assert not world.success()
    move(world, {i: inside}, hand(inside + [0, 0, 0.06], WIDE))
    assert world.success(), "a hand above it is not holding it"
    # Not above the bowl, not on its rim, not beside it, not in the other one; nor another thing in it.
    misses = {
        "above": inside + 0.06 * UP,
        "rim": at(world, YELLOW) + [BOWL_INNER, 0, BOWL_RIM + CUBE_HALF],
        "beside": np.array([0.20, 0.14, HALF[TABLE.things[i].kind]]),
        "other": at(world, PURPLE) + (FLOOR + HALF[TABLE.things[i].kind]) * UP,
    }
    for name, miss in misses.items():
        move(world, {i: miss}, ASIDE)
        assert not world.success(), name
    move(world, {i: misses["beside"], (i + 1) % 3: inside})
    assert not world.success()


@LAW
@given(st.floats(0, 2 * np.pi), st.floats(0, 0.1), st.floats(0, 0.2))
def test_in_the_bowl_means_below_the_rim_and_inside_it(angle: float, away: float, height: float) -> None:
    bowl = np.array([0.2, 0.1, 0.0])
    cube = bowl + (away * np.cos(angle), away * np.sin(angle), height)
    inside = rules.in_bowl(cube, bowl)
    if away < BOWL_INNER - 2 * CUBE_HALF and height < BOWL_RIM:
        assert inside
    if away > BOWL_INNER or height > BOWL_RIM + CUBE_HALF:
        assert not inside


# -- stack


@pytest.mark.parametrize(("what", "base"), [("red cube", "green cylinder"), ("green cylinder", "red cube")])
def test_stack_is_on_top_and_let_go(shared: World, what: str, base: str) -> None:
    world, i, j = asked(shared, "stack", what, base), number(what), number(base)
    home, foot = at(world, i), at(world, j)
    rise = HALF[TABLE.things[i].kind] + HALF[TABLE.things[j].kind]
    top = foot + rise * UP
    move(world, {i: top})
    assert world.success()
    move(world, {i: top + [0.008, 0, 0]})
    assert world.success(), "it need not be over the very middle"
    for miss in (top + 0.012 * UP, top + [0.02, 0, 0], top - 0.012 * UP, foot + [0.05, 0, 0]):
        move(world, {i: miss})
        assert not world.success(), miss
    move(world, {i: top}, hand(top, SHUT))
    assert any(world.touching(TABLE.slots[i]))
    assert not world.success()
    # The other way round is another task.
    move(world, {i: home, j: home + rise * UP}, ASIDE)
    assert not world.success()


@LAW
@given(st.floats(0, 2 * np.pi), st.floats(0, 0.03), st.floats(0, 0.06))
def test_on_top_means_over_the_middle_and_resting(angle: float, away: float, height: float) -> None:
    base, rise = np.array([0.2, 0.1, 0.0125]), 0.025
    here = rules.on_top(base + [away * np.cos(angle), away * np.sin(angle), height], base, rise)
    if away < CUBE_HALF and abs(height - rise) < 0.005:
        assert here
    if away > 0.015 or abs(height - rise) > 0.007:
        assert not here


# -- push


@pytest.mark.parametrize("what", ["red cube", "green cylinder"])
def test_pushed_into_a_zone_is_well_inside_it_and_on_the_table(shared: World, what: str) -> None:
    world, i = asked(shared, "push", what, "white zone"), number(what)
    middle = np.array([*TABLE.zone_xy[0], HALF[TABLE.things[i].kind]])
    move(world, {i: middle})
    assert world.success()
    for corner in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        move(world, {i: middle + (ZONE_HALF - 0.008) * np.array([*corner, 0])})
        assert world.success(), corner
    for side in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        move(world, {i: middle + (ZONE_HALF + 0.002) * np.array([*side, 0])})
        assert not world.success(), side
    move(world, {i: middle + 0.02 * UP})
    assert not world.success(), "it stands on something"


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_pushed_to_a_side_is_past_its_line(shared: World, side: str, sign: int) -> None:
    world = asked(shared, "push", "red cube", side=side)
    for y, done in ((SIDE_Y + 0.003, True), (SIDE_Y - 0.003, False), (0.0, False), (-SIDE_Y - 0.003, False)):
        move(world, {CUBE: np.array([0.2, sign * y, CUBE_HALF])})
        assert world.success() is done, y


@pytest.mark.parametrize("place", ["white zone", ""])
def test_carrying_is_not_pushing(shared: World, place: str) -> None:
    """It has been off the table on its way, so it counts no more, wherever it is set down."""
    there = np.array([*TABLE.zone_xy[0], CUBE_HALF]) if place else np.array([0.2, 0.13, CUBE_HALF])
    how = {} if place else {"side": "left"}
    world = asked(shared, "push", "red cube", place, **how)
    for height, counts in ((0.012, True), (rules.PUSHED + 0.015, False)):
        world.reset(TABLE, world.task)  # type: ignore[arg-type]
        move(world, {CUBE: at(world, CUBE) + height * UP})
        world.advance(1)
        assert world.highest == pytest.approx(height, abs=0.002)
        assert not world.success()
        move(world, {CUBE: there})
        assert world.success() is counts
    # ... until something is asked anew.
    world.ask(world.task)  # type: ignore[arg-type]
    assert world.highest == 0.0
    assert world.success()


# -- touch


@pytest.mark.parametrize("what", ["red cube", "green cylinder", "blue ball"])
def test_touch_is_the_shut_finger_tip_at_the_top(shared: World, what: str) -> None:
    world, i = asked(shared, "touch", what), number(what)
    home = at(world, i)
    top = home + HALF[TABLE.things[i].kind] * UP
    tip_at(world, top + 0.006 * UP)
    assert world.success()
    for miss in (0.03 * UP, [0.018, 0, 0.006], [0, 0.018, 0.006], [-0.018, 0, 0.006]):
        tip_at(world, top + miss)
        assert not world.success(), miss
    near = tip_at(world, top + 0.006 * UP)
    near[5] = rules.SHUT_BELOW + 0.05
    move(world, {}, near)
    assert not world.success(), "with open jaws it might be about to take it"
    # Another thing under the finger is not this one.
    other = (i + 1) % 3
    tip_at(world, at(world, other) + (HALF[TABLE.things[other].kind] + 0.006) * UP)
    assert not world.success()


def test_a_touch_that_shoves_does_not_count(shared: World) -> None:
    world = asked(shared, "touch", "red cube")
    home = at(world, CUBE)
    for shoved, counts in ((rules.MOVED - 0.004, True), (rules.MOVED + 0.004, False)):
        there = home + [0, shoved, 0]
        move(world, {CUBE: there})
        tip_at(world, there + (CUBE_HALF + 0.006) * UP)
        assert world.success() is counts


# -- lift


def test_lifted_is_high_and_held(shared: World) -> None:
    world = asked(shared, "lift", "red cube")
    home = at(world, CUBE)

    def raised(height: float, held: bool) -> bool:
        there = home + height * UP
        move(world, {CUBE: there}, hand(there + 0.004 * UP, SHUT) if held else ASIDE)
        assert any(world.touching(TABLE.slots[CUBE])) is held
        return world.success()

    assert raised(rules.LIFTED + 0.004, held=True)
    assert not raised(rules.LIFTED - 0.004, held=True)
    assert not raised(rules.LIFTED + 0.004, held=False), "thrown or standing on something"
    # Another thing in the hand is not this one.
    there = at(world, BALL) + 0.08 * UP
    move(world, {CUBE: home, BALL: there}, hand(there, SHUT))
    assert not world.success()


# -- what is not there


MISSING = (
    Task("put", Thing("white", "cube"), Thing("yellow", "bowl")),
    Task("put", Thing("red", "cube"), Thing("white", "bowl")),
    Task("stack", Thing("red", "cube"), Thing("green", "cube")),
    Task("push", Thing("red", "cube"), Thing("green", "zone")),
    Task("push", Thing("green", "cube"), side="left"),
    Task("touch", Thing("green", "cube")),
    Task("lift", Thing("red", "ball")),
)


@pytest.mark.parametrize("task", MISSING, ids=str)
def test_what_names_something_absent_is_never_done(shared: World, task: Task) -> None:
    shared.reset(TABLE, task)
    assert not shared.possible()
    home = at(shared, CUBE)
    bowl = at(shared, YELLOW) + (FLOOR + CUBE_HALF) * UP
    base = at(shared, CYLINDER) + (CUBE_HALF + HALF["cylinder"]) * UP
    left = np.array([0.2, 0.14, CUBE_HALF])
    for there in (home, bowl, base, left, np.array([*TABLE.zone_xy[0], CUBE_HALF]), home + 0.08 * UP):
        move(shared, {CUBE: there}, hand(there + 0.004 * UP, SHUT) if there[2] > 0.05 else ASIDE)
        assert not shared.success()
    tip_at(shared, home + (CUBE_HALF + 0.006) * UP)
    assert not shared.success()


@pytest.mark.parametrize("relation", ["leftmost", "nearest"])
def test_two_that_fit_are_as_good_as_none(shared: World, relation: str) -> None:
    """Where words do not tell two things apart, neither is meant; where they do, one is."""
    pair = table({"red cube": (0.2, 0.10), "red cube+": (0.27, -0.05)})
    shared.reset(pair, Task("touch", thing("red cube")))
    assert not shared.possible()
    shared.reset(pair, Task("touch", thing("red cube"), relation=relation))
    assert shared.possible()
    assert shared.slot("thing") == pair.slots[0]


@pytest.mark.parametrize("index", range(5))
def test_moved_means_farther_than_the_limit_since_it_was_asked(shared: World, index: int) -> None:
    shared.reset(TABLE, MISSING[0])
    home = at(shared, index)
    for direction in ([1, 0, 0], [0, -1, 0], [0, 0, 1]):
        for limit in (rules.STILL, rules.MOVED):
            move(shared, {index: home + 0.9 * limit * np.array(direction)})
            assert not shared.moved(limit)
            move(shared, {index: home + 1.1 * limit * np.array(direction)})
            assert shared.moved(limit)
    shared.ask(MISSING[0])
    assert not shared.moved(rules.STILL)
    move(shared, {index: home})
    assert shared.moved(rules.STILL)


def test_things_that_are_left_alone_stay_within_the_limit(shared: World) -> None:
    """STILL is wider than what physics does by itself: an arm that waits is never blamed."""
    for seed in range(4):
        shared.reset(*tasks.draw(np.random.default_rng(seed)))
        for _ in range(60):
            shared.advance(TICK)
        shift = np.linalg.norm(shared.things() - shared.start, axis=1)
        assert shift.max() < rules.STILL / 3
    assert rules.STILL < rules.MOVED


def test_a_robot_lays_the_table_and_asks(shared: World) -> None:
    robot = TabletopRobot(shared, clock=None)  # type: ignore[arg-type]
    robot.reset(TABLE, MISSING[-1])
    assert shared.task == MISSING[-1]
    assert shared.layout is TABLE
