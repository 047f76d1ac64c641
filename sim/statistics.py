"""Numbers for reports: intervals of success and smoothness of motion."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of k successes in n trials (Wilson 1927); 95 % by default.

    Raises:
        ValueError: not 0 <= k <= n with n >= 1.
    """
    if not (n >= 1 and 0 <= k <= n):
        raise ValueError(f"{k} successes in {n} trials")
    p, zz = k / n, z * z / n
    centre = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * np.sqrt(p * (1 - p) / n + zz / (4 * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Two-sided exact p of paired outcomes: how likely so one-sided a difference is if neither is better
    (McNemar 1947, with the binomial distribution). 1 where the pairs do not differ.

    Raises:
        ValueError: they are not pairs.
    """
    only_a = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    only_b = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    n = only_a + only_b
    # Whole numbers up to here: 2 ** n does not fit into a float for long.
    tail = 2 * sum(comb(n, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, tail / 2**n)


def jerk(joints: np.ndarray, period: float) -> float:
    """Root mean square of the third derivative over time and joints.

    Args:
        joints: shape (T, A), one row a tick [rad].
        period: between rows [s].

    Returns:
        rad/s^3; 0 for fewer than four rows.
    """
    if len(joints) < 4:
        return 0.0
    return float(np.sqrt(np.mean((np.diff(joints.astype(float), 3, axis=0) / period**3) ** 2)))
