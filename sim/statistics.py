"""Numbers for reports: intervals of success and smoothness of motion."""

from __future__ import annotations

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
