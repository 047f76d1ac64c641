"""The world is a function of its layout and its commands, and its cameras see what is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sim.gl import mujoco
from sim.robot import CAMERAS
from sim.tabletop import expert, kinematics, scene, tasks
from sim.tabletop.world import PEOPLE, SIZE, World

TICK = 8  # physics steps


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """One compiled model and its renderers for all tests; every test resets it."""
    world = World()
    yield world
    world.close()


def sampled(seed: int, **how: object) -> tasks.Layout:
    return tasks.sample(np.random.default_rng(seed), **how)  # type: ignore[arg-type]


def layout(**changes: object) -> tasks.Layout:
    """A table on which nothing hides another: the arm to one side, a plain light."""
    plain = {
        "cubes": ("red", "green", "blue"), "bowls": ("yellow", "purple"),
        "cube_xy": np.array([[0.20, 0.10], [0.27, 0.02], [0.22, -0.08]]), "cube_yaw": np.zeros(3),
        "bowl_xy": np.array([[0.30, 0.12], [0.30, -0.12]]), "cube": 0, "bowl": 0, "arm": tasks.HOME.copy(),
        "table": np.array([0.76, 0.70, 0.62]), "light": np.full(3, 0.6),
        "light_at": np.array([0.5, 0.4, 1.0]), "tint": np.ones(scene.CUBES + scene.BOWLS),
    }  # fmt: skip
    plain["arm"][0] = 1.5
    return tasks.Layout(**{**plain, **changes})  # type: ignore[arg-type]


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


@pytest.mark.parametrize("seed", range(3))
def test_a_reset_forgets_whatever_came_before(shared: World, seed: int) -> None:
    fresh = World()
    try:
        fresh.reset(sampled(seed))
        state, frames = fresh.save(), look(fresh)
        later = wander(fresh, 5, seed)
    finally:
        fresh.close()
    for before in (sampled(seed + 50), sampled(seed + 60, swap=True), sampled(seed, things=(1, 1))):
        shared.reset(before)
        wander(shared, 12, seed + 1)
        look(shared)
        shared.reset(sampled(seed))
        np.testing.assert_array_equal(shared.save(), state)
        for ours, theirs in zip(look(shared), frames, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(wander(shared, 5, seed), later, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_kept_goes_on_exactly_as_it_did(shared: World, seed: int) -> None:
    shared.reset(sampled(seed))
    wander(shared, 10, seed)
    shared.keep()
    first = wander(shared, 15, seed + 1)
    wander(shared, 7, seed + 2)
    shared.put_back()
    for ours, theirs in zip(wander(shared, 15, seed + 1), first, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_restored_state_looks_and_measures_the_same(shared: World) -> None:
    shared.reset(sampled(4))
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
    shared.reset(sampled(5))
    state = shared.save()
    look(shared)
    shared.frame(PEOPLE, 48, 64)
    shared.project("front", np.zeros(3))
    shared.success()
    np.testing.assert_array_equal(shared.save(), state)


@pytest.mark.parametrize("seed", range(4))
def test_everything_rests_after_a_reset(shared: World, seed: int) -> None:
    shared.reset(sampled(seed))
    before = shared.things()
    shared.advance(10 * TICK)
    assert np.abs(shared.things() - before).max() < 1e-3
    assert not shared.success()
    assert not shared.others_moved()


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
    at = layout()
    if camera == "wrist":  # from above the middle of the table
        pose = kinematics.solve(np.array([0.22, 0.0, 0.12]), 1.3)
        assert pose is not None
        at = layout(arm=np.array([*pose, 0.0, 0.9]))
    shared.reset(at)
    frame, seen = shared.frame(camera), 0
    for name, point in zip([*at.cubes, *at.bowls], shared.things(), strict=True):
        uv = shared.project(camera, point)
        if uv[2] == 0.0:
            continue
        seen += 1
        likeness = {c: float(hue(np.array(rgb)) @ hue(pixel(frame, uv))) for c, rgb in scene.COLOURS.items()}
        assert max(likeness, key=likeness.__getitem__) == name, (name, uv, pixel(frame, uv))
    assert seen == 5 if camera == "front" else seen >= 2


def test_a_projection_agrees_with_the_renderers_own_segments(shared: World) -> None:
    shared.reset(layout())
    shown = segments(shared, "front")
    for i, point in enumerate(shared.things()):
        mine = np.isin(shown, shared._geoms[i])
        rows, columns = np.nonzero(mine)
        u, v, inside = shared.project("front", point)
        assert inside == 1.0
        middle = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / SIZE * 2 - 1
        # A thing is as wide as a few pixels, and a bowl's origin lies at its foot.
        assert np.abs(middle - (u, v)).max() < 0.12


def segments(world: World, camera: str, side: int = SIZE) -> np.ndarray:
    """The number of the geom at every pixel, -1 for none; shape (side, side)."""
    renderer = mujoco.Renderer(world.model, side, side)
    try:
        renderer.enable_segmentation_rendering()
        renderer.update_scene(world.data, camera)
        kinds = renderer.render()
    finally:
        renderer.close()
    return np.where(kinds[..., 1] == mujoco.mjtObj.mjOBJ_GEOM, kinds[..., 0], -1)


def test_behind_a_camera_is_not_inside(shared: World) -> None:
    shared.reset(layout())
    eye = shared.data.camera("front")
    forwards = -eye.xmat.reshape(3, 3)[:, 2]
    assert shared.project("front", eye.xpos + 0.3 * forwards)[2] == 1.0
    assert shared.project("front", eye.xpos - 0.3 * forwards)[2] == 0.0
    np.testing.assert_allclose(shared.project("front", eye.xpos + 0.3 * forwards)[:2], 0.0, atol=1e-9)


def test_frames_have_the_size_that_was_asked_for(shared: World) -> None:
    shared.reset(layout())
    for camera in CAMERAS:
        assert shared.frame(camera).shape == (SIZE, SIZE, 3)
        assert shared.frame(camera).dtype == np.uint8
    assert shared.frame(PEOPLE, 48, 64).shape == (48, 64, 3)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_in_the_scene_stays_put_and_unseen(shared: World, seed: int) -> None:
    at = sampled(seed, things=(1, 1))
    away = np.array([1, 2, 4])  # the second and third cube, the second bowl
    geoms = np.concatenate([shared._geoms[i] for i in away])
    shared.reset(at)
    start = shared.things()[away]
    for _ in range(3):
        wander(shared, 6, seed)
        for camera in (*CAMERAS, PEOPLE):
            assert not np.isin(segments(shared, camera), geoms).any(), camera
    np.testing.assert_allclose(shared.things()[away], start, atol=1e-6)
    # ... even where the arm looks up from the table.
    shared.command(np.array([0.0, -1.7, -0.5, -1.2, 0.0, 0.5]))
    shared.advance(60 * TICK)
    for camera in CAMERAS:
        assert not np.isin(segments(shared, camera), geoms).any(), camera


# -- success


def pose(world: World, arm: np.ndarray, cube: np.ndarray) -> None:
    """Put the arm and the named cube somewhere, without physics."""
    assert world.layout is not None
    world.data.qpos[world._arm] = arm
    at = world._qpos[world.layout.cube]
    world.data.qpos[at : at + 3] = cube
    mujoco.mj_forward(world.model, world.data)


def test_success_is_the_cube_in_the_bowl_and_let_go(shared: World) -> None:
    shared.reset(layout())
    _, bowl = shared.named()
    inside = bowl + (0.0, 0.0, 0.003 + scene.CUBE_HALF)
    over = kinematics.solve(inside + (0, 0, 0.004), expert.pitch(0.02))
    assert over is not None
    home = shared.layout.arm  # type: ignore[union-attr]
    pose(shared, home, inside)
    assert shared.success()
    pose(shared, np.array([*over, 0.0, 0.0]), inside)
    assert shared.touched()
    assert not shared.success()
    pose(shared, np.array([*over, 0.0, 1.6]), inside + (0.012, 0.0, 0.0))
    assert not shared.touched()
    assert shared.success()
    # Not above the bowl, not beside it, not in the other one.
    pose(shared, home, inside + (0, 0, 0.06))
    assert not shared.success()
    pose(shared, home, np.array([0.2, 0.1, scene.CUBE_HALF]))
    assert not shared.success()
    pose(shared, home, shared.things()[scene.CUBES + 1] + (0.0, 0.0, 0.003 + scene.CUBE_HALF))
    assert not shared.success()


def test_success_comes_with_letting_go_and_not_before(shared: World) -> None:
    shared.reset(sampled(3))
    touched = False
    for _ in range(200):
        shared.command(expert.act(shared))
        shared.advance(TICK)
        touched |= shared.touched()
        assert not (shared.success() and shared.touched())
        if shared.success():
            break
    assert touched
    assert shared.success()


def test_pushing_another_thing_is_noticed(shared: World) -> None:
    shared.reset(layout())
    assert not shared.others_moved()
    for index, moved in ((0, False), (1, True), (4, True)):  # the named cube, another, the other bowl
        state = shared.save()
        shared.data.qpos[shared._qpos[index]] += tasks.MOVED + 0.005
        mujoco.mj_forward(shared.model, shared.data)
        assert shared.others_moved() is moved
        shared.restore(state)
