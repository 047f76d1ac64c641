"""The beat: on the grid, in phase, never bunched."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import MonotonicClock, SimulatedClock, Ticker

periods = st.floats(0.001, 1.0)
works = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=30)


def ticks_of(period: float, work: list[float], start: float = 0.0) -> tuple[list[float], Ticker]:
    """The scheduled times when tick i computes for work[i] periods."""
    clock = SimulatedClock(start)
    ticker = Ticker(clock, period)
    times = []
    for seconds, (scheduled, now) in zip(work, ticker, strict=False):
        assert now >= scheduled
        times.append(scheduled)
        clock.advance(seconds * period)
    return times, ticker


@given(periods, works, st.floats(0.0, 1e6))
def test_ticks_stay_on_the_grid_and_apart(period: float, work: list[float], start: float) -> None:
    times, _ = ticks_of(period, work, start)
    steps = [(t - start) / period for t in times]
    assert all(abs(s - round(s)) < 1e-3 for s in steps)
    assert all(b - a > 0.999 for a, b in pairwise(steps))


@given(periods, works)
def test_ticks_run_and_skipped_fill_the_grid(period: float, work: list[float]) -> None:
    times, ticker = ticks_of(period, work)
    assert len(times) + ticker.skipped == round(times[-1] / period) + 1


@given(periods, st.integers(1, 200))
def test_a_loop_that_keeps_up_skips_nothing(period: float, count: int) -> None:
    _, ticker = ticks_of(period, [0.5] * count)
    assert ticker.skipped == 0


def test_real_ticks_never_come_early() -> None:
    ticker = Ticker(MonotonicClock(), 0.002)
    assert all(now >= scheduled for scheduled, now in islice(ticker, 50))


def test_time_runs_forwards() -> None:
    with pytest.raises(ValueError):
        SimulatedClock().advance(-1.0)
    with pytest.raises(ValueError):
        Ticker(SimulatedClock(), 0.0)


class _Sleepy(SimulatedClock):
    """Wakes late by the amounts in a list, then on time."""

    def __init__(self, late: list[float]) -> None:
        super().__init__()
        self._late = iter(late)

    def sleep_until(self, t: float) -> None:
        if t > self.now():
            super().sleep_until(t + next(self._late, 0.0))


@given(st.lists(st.floats(0.0, 0.5), max_size=40))
def test_however_late_a_sleep_wakes_no_tick_comes_bunched_and_none_is_lost(late: list[float]) -> None:
    ticker = Ticker(_Sleepy(late), 0.1)
    ticks = list(islice(ticker, 20))
    nows = [now for _, now in ticks]
    assert all(b - a >= 0.05 - 1e-9 for a, b in pairwise(nows))
    steps = round((ticks[-1][0] - ticks[0][0]) / 0.1)
    assert steps == len(ticks) - 1 + ticker.skipped


def test_the_machines_own_clock_skips_nothing_at_the_start() -> None:
    ticker = Ticker(MonotonicClock(), 0.05)
    assert next(iter(ticker))[0] >= 0
    assert ticker.skipped == 0
