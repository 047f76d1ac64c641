"""A windowed quantile is numpy's, and a spike is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.estimate import Quantile

latencies = st.floats(0.0, 10.0)
# (seconds since the sample before, latency)
histories = st.lists(st.tuples(st.floats(0.0, 3.0), latencies), min_size=1, max_size=60)
quantiles = st.floats(0.0, 1.0)


def fill(history: list[tuple[float, float]], window: float, count: int) -> tuple[Quantile, list[float]]:
    """The estimate after a history, and what its window holds."""
    estimate, now, samples = Quantile(window, count, warmup=0), 0.0, []
    for pause, seconds in history:
        now += pause
        estimate.put(now, seconds)
        samples.append((now, seconds))
    return estimate, [s for t, s in samples[-count:] if now - t <= window]


@given(histories, st.floats(0.1, 20.0), st.integers(1, 40), quantiles)
def test_it_is_numpys_quantile_of_the_window(
    history: list[tuple[float, float]], window: float, count: int, q: float
) -> None:
    estimate, kept = fill(history, window, count)
    value = estimate.value(q)
    assert value == pytest.approx(np.quantile(kept, q), abs=1e-9)
    assert min(kept) <= value <= max(kept) + 1e-12
    assert len(estimate) == len(kept)


@given(st.lists(latencies, min_size=2, max_size=30), quantiles, quantiles)
def test_a_higher_quantile_is_no_less(values: list[float], p: float, q: float) -> None:
    estimate, _ = fill([(0.0, v) for v in values], 1.0, 100)
    low, high = estimate.value(min(p, q)), estimate.value(max(p, q))
    assert low is not None and high is not None
    assert low <= high + 1e-12


@given(st.floats(10.0, 1e6), st.integers(1, 50))
def test_a_spike_is_forgotten_after_the_window_and_after_count(spike: float, count: int) -> None:
    by_age = Quantile(window=2.0, warmup=0)
    by_age.put(0.0, spike)
    by_age.put(1.0, 0.1)
    by_age.forget(2.5)
    assert by_age.value(1.0) == 0.1
    by_count = Quantile(window=1e9, count=count, warmup=0)
    by_count.put(0.0, spike)
    for i in range(count):
        by_count.put(0.001 * i, 0.1)
    assert by_count.value(1.0) == 0.1


def test_warm_up_never_enters_and_nothing_is_none() -> None:
    estimate = Quantile(warmup=2)
    for seconds in (9.0, 8.0):
        estimate.put(0.0, seconds)
        assert estimate.value(0.99) is None
    estimate.put(0.0, 0.1)
    assert estimate.value(0.99) == 0.1
    estimate.forget(100.0)
    assert estimate.value(0.99) is None


def test_impossible_windows_are_refused() -> None:
    with pytest.raises(ValueError):
        Quantile(window=0.0)
    with pytest.raises(ValueError):
        Quantile(count=0)
