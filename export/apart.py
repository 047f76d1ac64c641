"""How far two answers of a graph are from each other; numpy alone, for boards without torch."""

from __future__ import annotations

import numpy as np

HIDES = 1e30  # what hides a token in a mask (vla/layers.py) is that far away, and no scale for the rest


def apart(got: np.ndarray, wanted: np.ndarray, least: float, scale: float | None = None) -> float:
    """The largest difference, relative to the largest value wanted; infinite where not the same is hidden or
    a value is not finite.

    Args:
        least: the smallest value that counts as the largest. scale: to be divided by instead of it.
    """
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    hidden = np.abs(wanted) > HIDES
    if not np.array_equal(hidden, np.abs(got) > HIDES):
        return float("inf")
    got, wanted = np.where(hidden, 0, got), np.where(hidden, 0, wanted)
    far = float(np.abs(got - wanted).max()) / (scale or max(float(np.abs(wanted).max()), least))
    return far if np.isfinite(far) else float("inf")  # NaN is below nothing and above nothing
