"""Scales are the least wrong of those tried, and smoothing helps where channels differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import qdq

LAW = settings(deadline=None, max_examples=40, derandomize=True)
KINDS = pytest.mark.parametrize("name", qdq.FORMATS)


def error(x: np.ndarray, w: np.ndarray, kind: qdq.Format, found: qdq.Scales) -> float:
    a, b = (x, w) if found.smooth is None else (x / found.smooth, w * found.smooth[:, None])
    of_w = qdq.weight_scales(b, kind, True)
    got = (kind.round(a / found.activation) * found.activation) @ (kind.round(b / of_w) * of_w)
    return float(np.square(got - x @ w).mean())


@KINDS
@LAW
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_rounding_goes_to_what_can_be_stored(name: str, seed: int, size: float) -> None:
    kind = qdq.FORMATS[name]
    x = (np.random.default_rng(seed).normal(size=64) * size).astype(np.float32)
    once = kind.round(x)
    np.testing.assert_array_equal(kind.round(once), once)
    np.testing.assert_array_equal(kind.store(once).astype(np.float32), once)
    assert np.abs(once).max() <= kind.top
    inside = np.abs(x) <= kind.top
    step = np.maximum(np.abs(x) / 8, 2**-7) if name == "fp8" else 1.0
    assert (np.abs(once - x) <= step / 2 + 1e-6)[inside].all()


@KINDS
@LAW
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 3.0]))
def test_the_scales_err_no_more_than_the_largest_value_would(name: str, seed: int, spread: float) -> None:
    kind, rng = qdq.FORMATS[name], np.random.default_rng(seed)
    x = (rng.normal(size=(40, 24)) * 10 ** (spread * rng.random(24))).astype(np.float32)
    w = rng.normal(size=(24, 16)).astype(np.float32)
    found = qdq.scales(x, w, kind)
    plain = qdq.Scales(float(np.abs(x).max()) / kind.top, None)
    assert error(x, w, kind, found) <= error(x, w, kind, plain) * 1.0001


def test_smoothing_is_for_activations_with_large_channels() -> None:
    kind, rng = qdq.FORMATS["int8"], np.random.default_rng(0)
    x, w = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((200, 64), (64, 32)))
    even = qdq.scales(x, w, kind)
    assert even.smooth is None
    x[:, 3] *= 100
    found = qdq.scales(x, w, kind)
    assert found.smooth is not None
    assert found.smooth[3] > 5 * np.median(found.smooth)
    plain = min(
        error(x, w, kind, qdq.Scales(share * float(np.abs(x).max()) / 127, None)) for share in qdq.SHARES
    )
    assert error(x, w, kind, found) < 0.2 * plain


@LAW
@given(st.integers(0, 2**32 - 1), st.sampled_from(qdq.ALPHAS))
def test_smoothing_leaves_the_product(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(20, 12)).astype(np.float32), rng.normal(size=(12, 8)).astype(np.float32)
    s = qdq.smoothing(x, w, alpha)
    np.testing.assert_allclose((x / s) @ (w * s[:, None]), x @ w, rtol=1e-3, atol=1e-4)
    # Moving everything to the weights leaves activations of one size.
    all_of_it = np.abs(x / qdq.smoothing(x, w, 1.0)).max(axis=0)
    np.testing.assert_allclose(all_of_it, 1.0, rtol=1e-4)
