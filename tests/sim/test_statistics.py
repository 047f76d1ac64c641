"""Intervals against scipy's, smoothness against calculus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from sim.statistics import jerk, mcnemar, paired, wilson

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


# -- two policies on the same trials

TRIALS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@LAW
@given(TRIALS)
def test_mcnemar_is_a_sign_test_of_the_pairs_that_differ(trials: list[tuple[bool, bool]]) -> None:
    one, two = zip(*trials, strict=True)
    lost, won = (sum(pair == order for pair in trials) for order in ((True, False), (False, True)))
    wanted = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar(one, two) == pytest.approx(wanted)
    assert mcnemar(one, two) == mcnemar(two, one)


@LAW
@given(TRIALS)
def test_a_paired_interval_holds_the_difference_and_turns_with_it(trials: list[tuple[bool, bool]]) -> None:
    one, two = zip(*trials, strict=True)
    difference, low, high = paired(one, two)
    assert difference == pytest.approx(np.mean(two) - np.mean(one))
    assert -1 <= low <= difference + 1e-9
    assert difference - 1e-9 <= high <= 1
    assert paired(two, one) == pytest.approx((-difference, -high, -low))


def test_a_paired_interval_covers_the_truth() -> None:
    """Of two policies that succeed together more often than not: 95 % of the intervals, or nearly."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        common = rng.random(80) < 0.7
        one, two = (np.where(rng.random(80) < 0.8, common, rng.random(80) < p) for p in (0.8, 0.6))
        _, low, high = paired(one, two)
        hits += low <= 0.2 * (0.6 - 0.8) <= high
    assert 0.93 < hits / 2000 < 0.98


def test_a_thing_compared_with_itself_differs_by_nothing() -> None:
    same = [True] * 30 + [False] * 10
    difference, low, high = paired(same, same)
    assert difference == 0
    assert low < 0 < high
    assert mcnemar(same, same) == 1


def test_mcnemar_of_many_trials_does_not_overflow() -> None:
    many = 3000
    assert mcnemar([True] * many + [False] * many, [False] * many + [True] * many) == 1.0
    assert mcnemar([True] * many, [False] * many) < 1e-300


def test_unequal_trials_are_refused() -> None:
    for one, two in (([True], []), ([], [])):
        with pytest.raises(ValueError):
            paired(one, two)
    with pytest.raises(ValueError):
        mcnemar([True], [])
