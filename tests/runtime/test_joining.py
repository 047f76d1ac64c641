"""How a new chunk continues the running one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import joining
from tests import fakes
from vla.contract import ActionChunk, TaktError

SPEC = replace(fakes.arm_spec(chunk_length=12, dt=0.1, replan=0.2), joining="prefix", committed=8)
SIZE = SPEC.actions.size


def line(time: float, offset: float = 0.0) -> ActionChunk:
    """A chunk whose row for t is t + offset in every dimension."""
    rows = time + SPEC.dt * np.arange(SPEC.chunk_length) + offset
    return ActionChunk(time, SPEC.dt, np.repeat(rows[:, None], SIZE, axis=1))


@pytest.mark.parametrize("name", joining.JOININGS)
def test_every_joining_plays_a_single_chunk_by_time(name: str) -> None:
    join = joining.make(name, SPEC)
    assert join.row(0.0) is None
    assert join.take(line(5.0), 5.0)
    for now in (5.0, 5.33, 6.1):
        np.testing.assert_allclose(join.row(now), now, atol=1e-9)
    assert join.row(6.2) is None


@pytest.mark.parametrize("name", joining.JOININGS)
def test_every_joining_refuses_what_is_older_or_over(name: str) -> None:
    join = joining.make(name, SPEC)
    assert join.take(line(5.0), 5.0)
    assert not join.take(line(4.5), 5.0)
    if name != "hold":  # which plays an answer from its first row, however late it is
        assert not join.take(line(5.5), 7.0)


def test_hold_plays_an_answer_from_its_first_row() -> None:
    join = joining.make("hold", SPEC)
    join.take(line(5.0), 5.4)
    np.testing.assert_allclose(join.row(5.4), 5.0)
    np.testing.assert_allclose(join.row(5.9), 5.5)


def test_hold_knows_how_old_what_it_plays_is() -> None:
    join = joining.make("hold", SPEC)
    assert join.take(line(5.0), 5.4)
    assert join.age(5.6) == pytest.approx(0.6)
    assert not join.take(line(4.9), 5.7)  # of an older observation, although it came later


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(0.0, 0.5))
def test_an_ensemble_lies_between_its_chunks(offsets: list[float], after: float) -> None:
    join = joining.make("ensemble", SPEC)
    for i, offset in enumerate(offsets):
        join.take(line(0.05 * i, offset), 0.05 * i)
    now = 0.05 * (len(offsets) - 1) + after
    row = join.row(now)
    assert row is not None
    assert (row >= now + min(offsets) - 1e-9).all() and (row <= now + max(offsets) + 1e-9).all()


def test_an_ensemble_weighs_the_oldest_most_as_in_act() -> None:
    join = joining.Ensemble(SPEC, decay=0.5)
    join.take(line(0.0, 0.0), 0.0)
    join.take(line(0.1, 1.0), 0.1)
    w = np.exp(-0.5)
    np.testing.assert_allclose(join.row(0.2), 0.2 + w / (1 + w))


@given(st.floats(0.001, 2.0), st.floats(0.0, 1.05))
def test_what_is_committed_is_what_will_be_played(latency: float, asked: float) -> None:
    """Every row that runs until the answer is there is committed, as the running chunk has it."""
    join = joining.make("rtc", replace(SPEC, committed=12))
    join.take(line(0.0), 0.0)
    prefix = join.prefix(asked, latency)
    assert prefix is not None
    assert prefix.actions.shape == (12, SIZE) and prefix.weights.shape == (12,)
    committed = int(prefix.weights.sum())
    assert set(prefix.weights) <= {0.0, 1.0}
    assert (np.diff(prefix.weights) <= 0).all()
    for i in range(committed):
        np.testing.assert_allclose(prefix.actions[i], asked + i * SPEC.dt, atol=1e-5)
    # Until the answer, or the end of the running chunk: between rows it interpolates, so one more.
    last = min(asked + latency, 1.1)
    assert asked + (committed - 1) * SPEC.dt >= last - SPEC.dt - 1e-6
    if asked + latency < 1.0 - SPEC.dt:
        assert asked + (committed - 1) * SPEC.dt >= last - 1e-6


def test_no_more_rows_are_committed_than_were_trained() -> None:
    join = joining.make("rtc", replace(SPEC, committed=3))
    join.take(line(0.0), 0.0)
    prefix = join.prefix(0.1, 0.8)
    assert prefix is not None
    assert prefix.weights.tolist() == [1.0] * 3 + [0.0] * 9


def test_a_guided_policy_gets_soft_weights_over_what_is_known() -> None:
    join = joining.make("rtc", replace(SPEC, joining="guided", committed=0))
    join.take(line(0.0), 0.0)
    prefix = join.prefix(0.3, 0.2)
    assert prefix is not None
    known = 9  # rows for 0.3 .. 1.1
    assert (prefix.weights[:4] == 1).all()
    assert (np.abs(prefix.weights[4:known] - 0.5) < 0.5).all()
    assert (prefix.weights[known:] == 0).all()


@pytest.mark.parametrize("name", ["naive", "hold", "ensemble"])
def test_only_rtc_tells_the_policy(name: str) -> None:
    join = joining.make(name, SPEC)
    join.take(line(0.0), 0.0)
    assert join.prefix(0.2, 0.2) is None


def test_nothing_is_committed_without_latency_or_plan() -> None:
    join = joining.make("rtc", SPEC)
    assert join.prefix(0.0, 0.5) is None
    join.take(line(0.0), 0.0)
    assert join.prefix(0.2, 0.0) is None
    assert join.prefix(3.0, 0.2) is None


def test_names_are_checked() -> None:
    assert joining.make(None, SPEC).name == "rtc"
    assert joining.make(None, replace(SPEC, joining="none")).name == "naive"
    with pytest.raises(TaktError, match="valid: naive, hold, ensemble, rtc"):
        joining.make("nice", SPEC)
    with pytest.raises(TaktError, match="cannot continue a chunk"):
        joining.make("rtc", replace(SPEC, joining="none"))
