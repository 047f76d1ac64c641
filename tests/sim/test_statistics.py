"""Intervals against scipy's, smoothness against calculus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from sim.statistics import jerk, mcnemar, wilson

LAW = settings(deadline=None, max_examples=80, derandomize=True)
counts = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
lengths = st.integers(4, 40)


@LAW
@given(counts)
def test_wilson_is_scipys(count: tuple[int, int]) -> None:
    k, n = count
    theirs = binomtest(k, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(wilson(k, n), theirs, atol=1e-6)


@LAW
@given(counts)
def test_an_interval_holds_the_rate_and_lies_in_0_to_1(count: tuple[int, int]) -> None:
    k, n = count
    low, high = wilson(k, n)
    assert 0.0 <= low <= k / n + 1e-12
    assert k / n - 1e-12 <= high <= 1.0
    # Failures mirror successes, and ten times the trials tell more.
    np.testing.assert_allclose(wilson(n - k, n), (1 - high, 1 - low), atol=1e-9)
    more = wilson(10 * k, 10 * n)
    assert more[1] - more[0] < high - low


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 5), (6, 5), (0, -1)])
def test_counts_that_cannot_be_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="trials"):
        wilson(k, n)


@LAW
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300), st.integers(0, 9))
def test_mcnemar_is_scipys_and_sees_only_pairs_that_differ(
    pairs: list[tuple[bool, bool]], equal: int
) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    only_a, only_b = sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)
    wanted = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(wanted, rel=1e-9)
    assert mcnemar(b, a) == mcnemar(a, b)
    assert mcnemar(a + [True] * equal + [False], b + [True] * equal + [False]) == mcnemar(a, b)


def test_mcnemar_of_many_pairs_does_not_overflow_and_wants_pairs() -> None:
    many = 3000
    assert mcnemar([True] * many + [False] * many, [False] * many + [True] * many) == 1.0
    assert mcnemar([True] * many, [False] * many) < 1e-300
    with pytest.raises(ValueError, match="zip"):
        mcnemar([True], [True, False])


@LAW
@given(st.integers(0, 2**32 - 1), lengths, st.floats(0.01, 1.0))
def test_a_parabola_has_no_jerk_and_a_cubic_has_its_own(seed: int, length: int, period: float) -> None:
    a, b, c, d = np.random.default_rng(seed).normal(size=(4, 6))
    t = np.arange(length)[:, None] * period
    scale = length * period
    # The third difference loses digits to the position's size: a tolerance in rad over s^3.
    loose = 1e-11 * (1 + scale**3) / period**3
    assert jerk(a + b * t + c * t**2, period) == pytest.approx(0.0, abs=loose)
    expected = 6 * np.sqrt(np.mean(d**2))
    assert jerk(a + b * t + c * t**2 + d * t**3, period) == pytest.approx(expected, rel=1e-6, abs=loose)


@LAW
@given(st.integers(0, 2**32 - 1), lengths, st.floats(0.01, 1.0), st.floats(0.1, 10.0))
def test_jerk_scales(seed: int, length: int, period: float, factor: float) -> None:
    joints = np.random.default_rng(seed).normal(size=(length, 6))
    base = jerk(joints, period)
    assume(base > 0)
    assert jerk(factor * joints, period) == pytest.approx(factor * base, rel=1e-9)
    assert jerk(joints, factor * period) == pytest.approx(base / factor**3, rel=1e-9)
    assert jerk(joints[::-1], period) == pytest.approx(base, rel=1e-9)
    assert jerk(joints + 5.0, period) == pytest.approx(base, rel=1e-9)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_too_few_rows_have_no_jerk(length: int) -> None:
    assert jerk(np.ones((length, 6)), 0.1) == 0.0
