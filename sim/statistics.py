"""Numbers for reports: intervals of success and smoothness of motion."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def mcnemar(one: Sequence[bool], two: Sequence[bool]) -> float:
    """The exact two-sided p of McNemar's test (1947) that two policies succeed as often, on the same trials.

    Raises:
        ValueError: there are not as many of the one as of the other.
    """
    pairs = list(zip(one, two, strict=True))
    lost, won = (sum(1 for pair in pairs if pair == order) for order in ((True, False), (False, True)))
    n = lost + won
    tail = sum(math.comb(n, i) for i in range(min(lost, won) + 1)) / 2**n
    return min(1.0, 2 * tail)


def paired(one: Sequence[bool], two: Sequence[bool], z: float = 1.959964) -> tuple[float, float, float]:
    """By how much the rate of success of `two` is above that of `one` on the same trials, with its interval.

    Newcombe (1998, method 10), which holds near 0 and 1 as well; 95 % by default.

    Raises:
        ValueError: there are not as many of the one as of the other, or none.
    """
    a, b = np.asarray(one, bool), np.asarray(two, bool)
    if a.shape != b.shape or not len(a):
        raise ValueError(f"{len(a)} trials and {len(b)}")
    n = len(a)
    p1, p2 = float(b.mean()), float(a.mean())
    both, first, second, none = (int((x & y).sum()) for x, y in ((b, a), (b, ~a), (~b, a), (~b, ~a)))
    product = (both + first) * (second + none) * (both + second) * (first + none)
    phi = (both * none - first * second) / math.sqrt(product) if product else 0.0
    if phi > 0:  # the continuity correction that the method has
        phi = max(both * none - first * second - n / 2, 0.0) / math.sqrt(product)
    (l1, u1), (l2, u2) = wilson(int(b.sum()), n, z), wilson(int(a.sum()), n, z)
    d = p1 - p2

    def half(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    return d, max(-1.0, d - half(p1 - l1, u2 - p2)), min(1.0, d + half(u1 - p1, p2 - l2))


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
