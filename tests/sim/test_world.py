"""The world is a function of its layout and its commands, and its cameras see what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from sim.gl import mujoco
from sim.robot import CAMERAS
from sim.tabletop import expert, kinematics, rules, scene, tasks
from sim.tabletop.meaning import COLOURS, VERBS, Task
from sim.tabletop.scene import SLOTS
from sim.tabletop.world import PEOPLE, ROLES, SIZE, World
from tests.sim.tables import TICK, drawn, move, table, thing


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """One compiled model and its renderers for all tests; every test resets it."""
    world = World()
    yield world
    world.close()


def sampled(seed: int) -> tuple[tasks.Layout, Task]:
    """A table for each verb in turn."""
    return drawn(seed, verb=VERBS[seed % len(VERBS)])


Segments = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def segments(shared: World) -> Iterator[Segments]:
    """The number of the geom at every pixel of a camera, -1 for none; shape (SIZE, SIZE)."""
    renderer = mujoco.Renderer(shared.model, SIZE, SIZE)
    renderer.enable_segmentation_rendering()

    def seen(camera: str) -> np.ndarray:
        renderer.update_scene(shared.data, camera)
        kinds = renderer.render()
        return np.where(kinds[..., 1] == mujoco.mjtObj.mjOBJ_GEOM, kinds[..., 0], -1)

    yield seen
    renderer.close()


# Nothing hides another.
TABLE = table(
    {
        "red cube": (0.20, 0.10),
        "green ball": (0.27, 0.02),
        "blue cylinder": (0.22, -0.08),
        "yellow bowl": (0.30, 0.12),
        "purple bowl": (0.30, -0.12),
    },
    zones={"green": (0.17, 0.0), "blue": (0.13, -0.11)},
)
PUT = Task("put", thing("red cube"), thing("yellow bowl"))


def wander(world: World, ticks: int, seed: int) -> list[np.ndarray]:
    """Random joint targets near home; the states after each."""
    rng = np.random.default_rng(seed)
    states = []
    for _ in range(ticks):
        world.command(tasks.HOME + rng.normal(0, 0.4, 6))
        world.advance(TICK)
        states.append(world.save())
    return states


def look(world: World) -> list[np.ndarray]:
    return [world.frame(camera) for camera in CAMERAS]


# -- determinism


@pytest.mark.parametrize("seed", range(4))
def test_a_reset_forgets_whatever_came_before(shared: World, seed: int) -> None:
    fresh = World()
    try:
        fresh.reset(*sampled(seed))
        state, frames = fresh.save(), look(fresh)
        later = wander(fresh, 5, seed)
    finally:
        fresh.close()
    for before in range(5):  # with zones and without, few things and many
        shared.reset(*sampled(50 + 7 * seed + before))
        wander(shared, 12, seed + 1)
        look(shared)
        shared.reset(*sampled(seed))
        np.testing.assert_array_equal(shared.save(), state)
        for ours, theirs in zip(look(shared), frames, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(wander(shared, 5, seed), later, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_kept_goes_on_exactly_as_it_did(shared: World, seed: int) -> None:
    shared.reset(*sampled(seed))
    wander(shared, 10, seed)
    shared.keep()
    first = wander(shared, 15, seed + 1)
    wander(shared, 7, seed + 2)
    shared.put_back()
    for ours, theirs in zip(wander(shared, 15, seed + 1), first, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_restored_state_looks_and_measures_the_same(shared: World) -> None:
    shared.reset(*sampled(4))
    wander(shared, 10, 0)
    state = shared.save()
    shared.restore(state)
    joints, tool, things, frames = shared.joints(), shared.tool(), shared.things(), look(shared)
    wander(shared, 10, 1)
    shared.restore(state)
    np.testing.assert_array_equal(shared.joints(), joints)
    np.testing.assert_array_equal(shared.tool(), tool)
    np.testing.assert_array_equal(shared.things(), things)
    for ours, theirs in zip(look(shared), frames, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_looking_does_not_touch(shared: World) -> None:
    shared.reset(*sampled(5))
    state = shared.save()
    look(shared)
    shared.frame(PEOPLE, 48, 64)
    shared.project("front", np.zeros(3))
    shared.success()
    shared.held()
    shared.now()
    np.testing.assert_array_equal(shared.save(), state)


@pytest.mark.parametrize("seed", range(5))
def test_everything_rests_after_a_reset(shared: World, seed: int) -> None:
    shared.reset(*sampled(seed))
    before = shared.things()
    shared.advance(10 * TICK)
    assert np.abs(shared.things() - before).max() < 1e-3
    assert not shared.success()
    assert not shared.moved(rules.STILL)


@pytest.mark.parametrize("seed", range(4))
def test_things_stand_where_the_layout_says(shared: World, seed: int) -> None:
    layout, task = sampled(seed)
    shared.reset(layout, task)
    here = shared.things()[list(layout.slots)]
    np.testing.assert_allclose(here[:, :2], layout.xy, atol=1e-3)
    np.testing.assert_allclose(here[:, 2], [scene.HALF[t.kind] for t in layout.things], atol=1e-3)
    np.testing.assert_array_equal(shared.now().xy, here[:, :2])
    np.testing.assert_array_equal(shared.start, shared.things())


# -- what plays a role


def test_roles_are_what_the_task_names(shared: World) -> None:
    pair = table(
        {
            "red cube": (0.20, 0.10),
            "red cube+": (0.27, -0.05),
            "blue ball": (0.15, 0.0),
            "white bowl": (0.2, -0.1),
        },
        zones={"green": (0.26, 0.12)},
    )
    asked = {
        Task("put", thing("blue ball"), thing("white bowl")): (2, 3, None),
        Task("lift", thing("red cube"), relation="leftmost"): (0, None, None),
        Task("lift", thing("red cube"), relation="farthest"): (1, None, None),
        Task("touch", thing("red cube"), relation="behind", landmark=thing("blue ball")): (None, None, 2),
        Task("lift", thing("white ball")): (None, None, None),
        Task("put", thing("blue ball"), thing("red bowl")): (2, None, None),
    }
    for task, wanted in asked.items():
        shared.reset(pair, task)
        for role, index in zip(ROLES, wanted, strict=True):
            assert shared.slot(role) == (None if index is None else pair.slots[index]), (task, role)
            named = shared.named(role)
            if index is None:
                assert named is None
            else:
                assert named is not None
                np.testing.assert_array_equal(named, shared.things()[pair.slots[index]])
        assert shared.possible() == (wanted[0] is not None and (task.place is None or wanted[1] is not None))


def test_a_zone_has_a_place_and_no_slot(shared: World) -> None:
    for colour, at in zip(TABLE.zones, TABLE.zone_xy, strict=True):
        shared.reset(TABLE, Task("push", thing("red cube"), thing(f"{colour} zone")))
        assert shared.slot("place") is None
        np.testing.assert_array_equal(shared.named("place"), [*at, 0.0])
    shared.reset(TABLE, Task("push", thing("red cube"), thing("red zone")))
    assert shared.named("place") is None
    assert not shared.possible()


def test_what_is_meant_stays_meant_when_it_is_moved(shared: World) -> None:
    """The leftmost one is the one that was leftmost when it was asked, until something else is asked."""
    pair = table({"red cube": (0.20, 0.10), "red cube+": (0.27, -0.05)})
    task = Task("lift", thing("red cube"), relation="leftmost")
    shared.reset(pair, task)
    move(shared, {0: np.array([0.2, -0.15, scene.CUBE_HALF])})
    assert shared.slot("thing") == pair.slots[0]
    shared.ask(task)
    assert shared.slot("thing") == pair.slots[1]


def test_asking_moves_nothing_and_begins_anew(shared: World) -> None:
    shared.reset(TABLE, PUT)
    move(shared, {1: np.array([0.15, 0.12, 0.10])})
    shared.advance(TICK)
    assert shared.moved(rules.MOVED)
    state = shared.save()
    shared.ask(Task("lift", thing("green ball")))
    np.testing.assert_array_equal(shared.save(), state)
    assert not shared.moved(1e-9)
    assert shared.highest == 0.0


def test_what_is_held_is_between_both_jaws(shared: World) -> None:
    layout, task = drawn(3, verb="lift")
    shared.reset(layout, task)
    assert shared.held() is None
    for _ in range(120):
        shared.command(expert.act(shared))
        shared.advance(TICK)
    assert shared.success()
    slot = shared.held()
    assert slot is not None and slot == shared.slot("thing")
    assert shared.touching(slot) == (True, True)
    assert all(shared.touching(other) == (False, False) for other in layout.slots if other != slot)
    shared.command(np.array([*shared.joints()[:5], 1.5]))
    shared.advance(40 * TICK)
    assert shared.held() is None


def test_the_highest_is_kept_and_put_back(shared: World) -> None:
    shared.reset(TABLE, PUT)
    lifted = np.array([0.20, 0.10, scene.CUBE_HALF + 0.05])
    move(shared, {0: lifted})
    shared.advance(1)
    shared.keep()
    highest = shared.highest
    assert highest == pytest.approx(0.05, abs=2e-3)
    move(shared, {0: lifted + [0, 0, 0.05]})
    shared.advance(1)
    assert shared.highest > highest + 0.04
    shared.advance(100)
    assert shared.highest > highest + 0.04, "it does not sink"
    shared.put_back()
    assert shared.highest == highest


# -- what the cameras see


def hue(rgb: np.ndarray) -> np.ndarray:
    """A colour without its brightness or its share of grey."""
    rgb = rgb.astype(float) - rgb.min()
    return rgb / max(float(np.linalg.norm(rgb)), 1e-9)


def pixel(frame: np.ndarray, uv: np.ndarray) -> np.ndarray:
    column, row = ((uv[:2] + 1) / 2 * SIZE).astype(int)
    return frame[row, column]


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_a_projection_lands_on_the_things_colour(shared: World, camera: str) -> None:
    at = TABLE
    if camera == "wrist":  # from above the middle of the table
        pose = kinematics.solve(np.array([0.22, 0.0, 0.12]), 1.3)
        assert pose is not None
        at = replace(TABLE, arm=np.array([*pose, 0.0, 0.9]))
    shared.reset(at, PUT)
    frame, seen = shared.frame(camera), 0
    points = [*shared.things()[list(at.slots)], *np.c_[at.zone_xy, np.zeros(len(at.zones))]]
    for name, point in zip([*(t.colour for t in at.things), *at.zones], points, strict=True):
        uv = shared.project(camera, point)
        if uv[2] == 0.0:
            continue
        seen += 1
        likeness = {c: float(hue(np.array(rgb)) @ hue(pixel(frame, uv))) for c, rgb in COLOURS.items()}
        assert max(likeness, key=likeness.__getitem__) == name, (name, uv, pixel(frame, uv))
    assert seen == 7 if camera == "front" else seen >= 3


def test_a_projection_agrees_with_the_renderers_own_segments(shared: World, segments: Segments) -> None:
    shared.reset(TABLE, PUT)
    shown = segments("front")
    for slot in TABLE.slots:
        mine, point = np.isin(shown, shared._geoms[slot]), shared.things()[slot]
        rows, columns = np.nonzero(mine)
        u, v, inside = shared.project("front", point)
        assert inside == 1.0
        middle = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / SIZE * 2 - 1
        # A thing is as wide as a few pixels, and a bowl's origin lies at its foot.
        assert np.abs(middle - (u, v)).max() < 0.12


def test_behind_a_camera_is_not_inside(shared: World) -> None:
    shared.reset(TABLE, PUT)
    eye = shared.data.camera("front")
    forwards = -eye.xmat.reshape(3, 3)[:, 2]
    assert shared.project("front", eye.xpos + 0.3 * forwards)[2] == 1.0
    assert shared.project("front", eye.xpos - 0.3 * forwards)[2] == 0.0
    np.testing.assert_allclose(shared.project("front", eye.xpos + 0.3 * forwards)[:2], 0.0, atol=1e-9)


def test_frames_have_the_size_that_was_asked_for(shared: World) -> None:
    shared.reset(TABLE, PUT)
    for camera in CAMERAS:
        assert shared.frame(camera).shape == (SIZE, SIZE, 3)
        assert shared.frame(camera).dtype == np.uint8
    assert shared.frame(PEOPLE, 48, 64).shape == (48, 64, 3)


@pytest.mark.parametrize("camera", range(2))
def test_a_camera_that_stands_off_is_seen_and_projected_so(
    shared: World, segments: Segments, camera: int
) -> None:
    """Where the layout moves a camera, its frames and its projections move together, and only its."""
    off = np.zeros((2, 6))
    off[camera] = [0.01, -0.01, 0.01, 0.02, -0.03, 0.02]
    shared.reset(TABLE, PUT)
    points = dict(zip(CAMERAS, (shared.named("thing"), shared.tool()), strict=True))  # in sight of each
    plain = [shared.project(*seen) for seen in points.items()], look(shared)  # type: ignore[arg-type]
    shared.reset(replace(TABLE, cameras=off), PUT)
    moved = [shared.project(*seen) for seen in points.items()], look(shared)  # type: ignore[arg-type]
    for i in range(2):
        assert np.array_equal(plain[0][i], moved[0][i]) is (i != camera)
        assert np.array_equal(plain[1][i], moved[1][i]) is (i != camera)
    if CAMERAS[camera] == "front":
        shown = segments("front")
        for slot in TABLE.slots:
            rows, columns = np.nonzero(np.isin(shown, shared._geoms[slot]))
            middle = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / SIZE * 2 - 1
            assert np.abs(middle - shared.project("front", shared.things()[slot])[:2]).max() < 0.12


def test_paint_is_seen_and_not_felt(shared: World) -> None:
    """Two tables that differ in their zones are one and the same to physics."""
    bare = replace(TABLE, zones=(), zone_xy=np.zeros((0, 2)))
    states, frames = [], []
    for at in (TABLE, bare):
        shared.reset(at, PUT)
        frames.append(shared.frame("front"))
        states.append(wander(shared, 10, 0))
    np.testing.assert_array_equal(states[0], states[1])
    assert (frames[0] != frames[1]).any(axis=2).mean() > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_in_the_scene_stays_put_and_unseen(shared: World, segments: Segments, seed: int) -> None:
    at = table({"red cube": (0.20, 0.06), "yellow bowl": (0.27, -0.05)}, arm=tasks.HOME.copy())
    away = [slot for slot in range(len(SLOTS)) if slot not in at.slots]
    zones = [shared.model.geom(f"zone{i}").id for i in range(scene.ZONES)]
    geoms = np.concatenate([*(shared._geoms[i] for i in away), zones])
    shared.reset(*sampled(seed))  # another table, whose things are to vanish
    shared.reset(at, PUT)
    start = shared.things()[away]
    for _ in range(3):
        wander(shared, 6, seed)
        for camera in (*CAMERAS, PEOPLE):
            assert not np.isin(segments(camera), geoms).any(), camera
    np.testing.assert_allclose(shared.things()[away], start, atol=1e-6)
    # ... even where the arm looks up from the table.
    shared.command(np.array([0.0, -1.7, -0.5, -1.2, 0.0, 0.5]))
    shared.advance(60 * TICK)
    for camera in CAMERAS:
        assert not np.isin(segments(camera), geoms).any(), camera


# -- success, of which rules have tests of their own


def test_success_comes_with_letting_go_and_not_before(shared: World) -> None:
    shared.reset(*drawn(3, verb="put"))
    slot = shared.slot("thing")
    assert slot is not None
    touched = False
    for _ in range(200):
        shared.command(expert.act(shared))
        shared.advance(TICK)
        touched |= any(shared.touching(slot))
        assert not (shared.success() and any(shared.touching(slot)))
        if shared.success():
            break
    assert touched
    assert shared.success()


def test_pushing_another_thing_is_noticed(shared: World) -> None:
    shared.reset(TABLE, PUT)
    assert not shared.moved(rules.MOVED, others=True)
    for index, other in ((0, False), (1, True), (2, True), (3, False), (4, True)):
        state = shared.save()
        shared.data.qpos[shared._qpos[TABLE.slots[index]]] += rules.MOVED + 0.005
        mujoco.mj_forward(shared.model, shared.data)
        assert shared.moved(rules.MOVED, others=True) is other
        assert shared.moved(rules.MOVED)
        shared.restore(state)
