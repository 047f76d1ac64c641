"""Chunks are looked up by time, specs survive JSON, and a mismatch shows both lists."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import so101
from tests import fakes
from vla.contract import (
    ActionChunk,
    ActionSpace,
    CameraSpec,
    Dimension,
    PolicySpec,
    SpecMismatch,
    TaktError,
    check_match,
)

LAW = settings(deadline=None, max_examples=60, derandomize=True)
SPEC = fakes.arm_spec()
ROBOT = so101.spec(fakes.CAMERAS)

seeds = st.integers(0, 2**32 - 1)
times = st.floats(0.0, 1e5)
periods = st.floats(0.005, 0.5)
rows = st.integers(1, 20)


def chunk(seed: int, time: float, dt: float, length: int) -> tuple[ActionChunk, np.ndarray]:
    """A random chunk of three dimensions, the last of them relative."""
    actions = np.random.default_rng(seed).normal(size=(length, 3))
    return ActionChunk(time, dt, actions), np.array([True, True, False])


@LAW
@given(seeds, times, periods, rows)
def test_at_the_time_of_a_row_stands_the_row(seed: int, time: float, dt: float, length: int) -> None:
    plan, absolute = chunk(seed, time, dt, length)
    for i, row in enumerate(plan.actions):
        # A clock of 1e5 s resolves 1e-11 s, and a row is at most a few rad from the next.
        np.testing.assert_allclose(plan.at(time + i * dt, absolute), row, atol=1e-6)
    np.testing.assert_allclose(plan.at(plan.end, absolute), plan.actions[-1], atol=1e-6)


@LAW
@given(seeds, times, periods, st.integers(2, 20), st.floats(0.001, 0.999), st.data())
def test_between_rows_absolute_interpolates_and_relative_steps(
    seed: int, time: float, dt: float, length: int, weight: float, data: st.DataObject
) -> None:
    plan, absolute = chunk(seed, time, dt, length)
    i = data.draw(st.integers(0, length - 2))
    here, there = plan.actions[i], plan.actions[i + 1]
    got = plan.at(time + (i + weight) * dt, absolute)
    assert got is not None
    np.testing.assert_allclose(got[:2], ((1 - weight) * here + weight * there)[:2], atol=1e-6)
    assert got[2] == here[2]
    # Monotone, so nothing overshoots: what is said lies between the two rows, in their order.
    path = np.array([plan.at(time + (i + w) * dt, absolute) for w in np.linspace(0.01, 0.99, 7)])[:, :2]
    assert (np.diff(path, axis=0) * np.sign(there - here)[:2] >= -1e-9).all()
    assert (path >= np.minimum(here, there)[:2] - 1e-9).all()
    assert (path <= np.maximum(here, there)[:2] + 1e-9).all()


@LAW
@given(seeds, times, periods, rows, st.floats(1e-3, 1e3))
def test_outside_its_rows_a_chunk_says_nothing(
    seed: int, time: float, dt: float, length: int, away: float
) -> None:
    plan, absolute = chunk(seed, time, dt, length)
    assert plan.at(time - away * dt, absolute) is None
    assert plan.at(plan.end + away * dt, absolute) is None


def test_a_rounding_error_outside_is_inside() -> None:
    plan, absolute = chunk(0, 10.0, 0.1, 4)
    for edge, row in ((10.0 - 1e-9, 0), (plan.end + 1e-9, -1)):
        np.testing.assert_allclose(plan.at(edge, absolute), plan.actions[row], atol=1e-6)


@LAW
@given(st.text(), periods, periods, st.integers(1, 100), st.lists(st.text(), max_size=8), st.data())
def test_a_spec_survives_json(
    name: str, dt: float, replan: float, length: int, state: list[str], data: st.DataObject
) -> None:
    limit = st.floats(allow_nan=False, allow_infinity=False)
    dimensions = st.builds(
        Dimension, st.text(), st.sampled_from(["rad", "m", "1"]), limit, limit, st.booleans()
    )
    cameras = st.builds(CameraSpec, st.text(), st.integers(1, 4096), st.integers(1, 4096))
    spec = PolicySpec(
        name=name,
        state=tuple(state),
        actions=ActionSpace(tuple(data.draw(st.lists(dimensions, max_size=8)))),
        cameras=tuple(data.draw(st.lists(cameras, max_size=4))),
        chunk_length=length,
        dt=dt,
        replan=replan,
    )
    assert PolicySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_space_describes_itself_in_columns() -> None:
    space = ActionSpace((Dimension("a", "rad", -1.0, 2.0), Dimension("b", "m", 0.0, 0.5, absolute=False)))
    assert (space.size, space.names) == (2, ("a", "b"))
    np.testing.assert_array_equal(space.lower, [-1.0, 0.0])
    np.testing.assert_array_equal(space.upper, [2.0, 0.5])
    np.testing.assert_array_equal(space.absolute, [True, False])


def test_what_fits_is_accepted_and_spare_cameras_do_no_harm() -> None:
    check_match(SPEC, ROBOT)
    check_match(replace(SPEC, cameras=SPEC.cameras[:1]), ROBOT)


FIRST = SPEC.actions.dimensions[0]
OTHERS = SPEC.actions.dimensions[1:]


@pytest.mark.parametrize(
    ("change", "what", "theirs", "ours"),
    [
        ({"state": ("a", "b")}, "state", "['a', 'b']", str(list(ROBOT.state))),
        ({"state": SPEC.state[::-1]}, "state", str(list(SPEC.state[::-1])), str(list(ROBOT.state))),
        (
            {"actions": ActionSpace(OTHERS)},
            "actions",
            str([d.name for d in OTHERS]),
            str(list(ROBOT.actions.names)),
        ),
        (
            {"actions": ActionSpace((replace(FIRST, unit="m"), *OTHERS))},
            "action units",
            "('m', True)",
            "('rad', True)",
        ),
        (
            {"actions": ActionSpace((replace(FIRST, absolute=False), *OTHERS))},
            "action units",
            "('rad', False)",
            "('rad', True)",
        ),
        ({"cameras": (CameraSpec("top", 8, 8),)}, "cameras", "['top']", "['front', 'wrist']"),
    ],
)
def test_a_mismatch_shows_both_lists(change: dict, what: str, theirs: str, ours: str) -> None:
    with pytest.raises(SpecMismatch) as caught:
        check_match(replace(SPEC, **change), ROBOT)
    said = str(caught.value)
    assert f"differ in {what}:" in said
    assert theirs in said
    assert ours in said
    assert said.index(theirs) < said.rindex(ours)
    assert "\n" not in said
    assert isinstance(caught.value, TaktError)
