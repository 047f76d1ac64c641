"""The sampler: equal Euler steps from noise at 0 to an action at 1, ended early; weights and guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla import flow

LAW = settings(deadline=None, max_examples=40, derandomize=True)
SHAPE = (2, 5, 3)
KEPT, MASK = np.zeros(SHAPE), np.zeros(SHAPE[:2])

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(1, 32)
rows = st.integers(1, 50).flatmap(  # (H, d, overlap)
    lambda h: st.integers(0, h).flatmap(lambda d: st.tuples(st.just(h), st.just(d), st.integers(d, h)))
)


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise and a target."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=SHAPE), rng.normal(size=SHAPE)


@LAW
@given(seeds, counts)
def test_a_straight_field_reaches_its_target_in_any_number_of_steps(seed: int, steps: int) -> None:
    noise, target = draw(seed)

    def constant(memory: Any, x: np.ndarray, t: float, dt: float, *_: np.ndarray) -> tuple:
        x = x + dt * (target - noise)
        return x, x

    def towards(memory: Any, x: np.ndarray, t: float, dt: float, *_: np.ndarray) -> tuple:
        x = x + dt * (target - x) / (1 - t)  # the field of a model that predicts the clean action
        return x, x

    for step in (constant, towards):
        np.testing.assert_allclose(flow.euler(step, None, noise, steps, KEPT, MASK), target, atol=1e-9)


@LAW
@given(counts)
def test_steps_are_equal_and_cover_zero_to_one(steps: int) -> None:
    seen: list[tuple[float, float]] = []
    memory, kept, mask = object(), KEPT, MASK

    def step(m: Any, x: int, t: float, dt: float, k: np.ndarray, keep: np.ndarray) -> tuple[int, str]:
        assert m is memory
        assert k is kept
        assert keep is mask
        seen.append((t, dt))
        return x + 1, f"physical {x + 1}"

    # What comes back is the last step's physical actions, not x.
    assert flow.euler(step, memory, 0, steps, kept, mask) == f"physical {steps}"
    assert len(seen) == steps
    ends = [t + dt for t, dt in seen]
    np.testing.assert_allclose([t for t, _ in seen], [0.0, *ends[:-1]], atol=1e-12)
    assert ends[-1] == pytest.approx(1.0)
    assert len({dt for _, dt in seen}) == 1


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        flow.euler(lambda *_: (0, 0), None, 0, steps, KEPT, MASK)


# -- ended early


def curved(memory: Any, x: np.ndarray, t: float, dt: float, *_: np.ndarray) -> tuple:
    """A field that bends, so that the number of steps shows in the answer."""
    x = x + dt * (np.sin(3 * x) + t)
    return x, 2 * x


@LAW
@given(seeds, counts)
def test_a_pace_that_never_stops_changes_nothing(seed: int, steps: int) -> None:
    noise, _ = draw(seed)
    plain = flow.euler(curved, None, noise, steps, KEPT, MASK)
    np.testing.assert_array_equal(flow.euler(curved, None, noise, steps, KEPT, MASK, lambda: True), plain)


@LAW
@given(seeds, counts, st.integers(0, 40))
def test_ending_early_gives_the_clean_estimate(seed: int, steps: int, stop: int) -> None:
    noise, _ = draw(seed)
    asked = iter(range(100))
    got = flow.euler(curved, None, noise, steps, KEPT, MASK, lambda: next(asked) < stop)
    x, made = noise, min(stop, steps - 1)
    for i in range(made):
        x = curved(None, x, i / steps, 1 / steps)[0]
    t = made / steps
    np.testing.assert_allclose(got, 2 * (x + (1 - t) * (np.sin(3 * x) + t)), atol=1e-12)


@LAW
@given(counts, st.integers(0, 40))
def test_however_it_ends_the_flow_arrives_at_one(steps: int, stop: int) -> None:
    asked = iter(range(100))
    seen = []

    def step(m: Any, x: float, t: float, dt: float, *_: np.ndarray) -> tuple[float, float]:
        assert t == pytest.approx(x)
        seen.append(dt)
        return x + dt, x + dt

    assert flow.euler(step, None, 0.0, steps, KEPT, MASK, lambda: next(asked) < stop) == pytest.approx(1.0)
    assert len(seen) == min(stop + 1, steps)


# -- weights


@LAW
@given(rows)
def test_weights_are_one_on_the_committed_rows_and_fall_to_zero(case: tuple[int, int, int]) -> None:
    length, committed, overlap = case
    w = flow.weights(length, committed, overlap)
    assert (w.shape, w.dtype) == ((length,), np.float32)
    assert (w[:committed] == 1).all()
    assert ((w[committed:overlap] > 0) & (w[committed:overlap] < 1)).all()
    assert (w[overlap:] == 0).all()
    assert (np.diff(w) <= 0).all()


@LAW
@given(rows)
def test_without_more_known_rows_weights_are_the_hard_ones(case: tuple[int, int, int]) -> None:
    length, committed, _ = case
    np.testing.assert_array_equal(flow.weights(length, committed, committed), flow.hard(length, committed))


def test_weights_are_the_papers() -> None:
    # H = 12, d = 2, s = 4: c = (8 - i) / 7 on rows 2 to 7.
    c = (8 - np.arange(2, 8)) / 7
    np.testing.assert_allclose(flow.weights(12, 2, 8)[2:8], c * (np.e**c - 1) / (np.e - 1), rtol=1e-6)


@pytest.mark.parametrize("case", [(8, 3, 2), (8, 3, 9), (8, -1, 2)])
def test_rows_out_of_order_are_refused(case: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="committed <= overlap"):
        flow.weights(*case)


# -- guidance


@LAW
@given(st.floats(0, 1), st.floats(0.1, 100))
def test_guidance_is_finite_and_at_most_beta(tau: float, beta: float) -> None:
    g = flow.guidance(tau, beta)
    assert min(beta, 2.0) - 1e-9 <= g <= beta
    assert g == pytest.approx(flow.guidance(1 - tau, beta), rel=1e-3)


def test_guidance_is_the_papers() -> None:
    assert flow.guidance(0.0, 5.0) == flow.guidance(1.0, 5.0) == 5.0
    for tau in (0.3, 0.5, 0.75):
        paper = (1 - tau) / tau * (tau**2 + (1 - tau) ** 2) / (1 - tau) ** 2
        assert flow.guidance(tau, 1e9) == pytest.approx(paper)
