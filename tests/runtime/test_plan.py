"""The laws of the plan: slower is never better, and what it promises holds on the real planner."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.plan import ask_after, delay_rows, steps_that_fit
from vla.contract import ActionChunk

seconds = st.floats(0.0, 2.0)
periods = st.floats(0.002, 0.2)


@given(seconds, seconds, seconds, seconds, periods)
def test_a_slower_answer_is_asked_for_no_later(
    replan: float, usable: float, latency: float, more: float, period: float
) -> None:
    at = ask_after(replan, usable, latency, period)
    assert 0.0 <= ask_after(replan, usable, latency + more, period) <= at <= max(replan, 0.0)
    assert at == 0.0 or at + period + latency <= usable + 1e-9


@given(st.floats(0.0, 1.9), st.floats(0.01, 0.5), st.floats(0.0, 1.0))
def test_the_rows_that_run_until_the_answer_are_committed(latency: float, dt: float, part: float) -> None:
    """Rows from the delay on may hold anything: no command before the answer reads them."""
    rows = np.zeros((300, 2))
    rows[delay_rows(latency, dt) :] = np.nan
    before = part * latency
    if latency > 0:
        command = ActionChunk(0.0, dt, rows).at(before, np.array([True, False]))
        assert command is not None
        assert np.isfinite(command).all()


@given(seconds, seconds, st.floats(0.0, 0.2), st.integers(1, 5), st.integers(0, 20))
def test_the_steps_fit_and_one_more_would_not(
    left: float, fixed: float, step: float, least: int, more: int
) -> None:
    most = least + more
    steps = steps_that_fit(left, fixed, step, least, most)
    assert steps == 0 or least <= steps <= most
    if steps:
        assert fixed + steps * step <= left + 1e-6
    if steps < most:
        assert fixed + max(least, steps + 1) * step > left - 1e-6
