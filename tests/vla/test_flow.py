"""The sampler: equal Euler steps from noise at 0 to an action at 1."""

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
