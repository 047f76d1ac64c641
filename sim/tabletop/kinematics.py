"""Closed-form kinematics of the SO-101's first four joints, for the scripted expert.

Pan turns a vertical plane; lift, elbow and flex are three parallel hinges in it. Lengths are
read off the frames in arm.py at the zero pose; a test holds them against MuJoCo.
In the plane, rho is the distance from the pan axis [m], z the height above the table [m].
"""

from __future__ import annotations

import math

import numpy as np

PAN_X = 0.03884  # the pan axis stands here on the x axis of the base [m]
LIFT = (0.0304, 0.1166)  # the lift hinge in the plane (rho, z) [m]
_UPPER = (0.028, 0.11257)  # lift -> elbow at the zero pose [m]
_LOWER = (0.1349, 0.0052)  # elbow -> flex at the zero pose [m]
_HAND = (0.1591, 0.01198)  # flex -> tool point at the zero pose, wrist_roll = 0 [m]
_SIDE = 0.00076  # the tool point lies this far beside the plane [m]

LOWER = np.array([-1.91986, -1.74533, -1.69, -1.65806])
UPPER = np.array([1.91986, 1.74533, 1.69, 1.65806])

_LEAST, _MOST = LOWER.tolist(), UPPER.tolist()
_L1, _A1 = float(np.hypot(*_UPPER)), float(np.arctan2(_UPPER[1], _UPPER[0]))
_L2, _A2 = float(np.hypot(*_LOWER)), float(np.arctan2(_LOWER[1], _LOWER[0]))


def _turn(v: tuple[float, float], down: float) -> tuple[float, float]:
    """Rotate a vector of the plane downwards (from +rho towards -z) by `down` rad."""
    c, s = math.cos(down), math.sin(down)
    return v[0] * c + v[1] * s, -v[0] * s + v[1] * c


def tool(q: np.ndarray) -> tuple[np.ndarray, float]:
    """Forward kinematics with wrist_roll = 0.

    Args:
        q: shape (>=4,), pan, lift, elbow, flex [rad].

    Returns:
        the tool point, shape (3,) [m], and the pitch of the approach direction below the
        horizontal [rad]; pi/2 points straight down.
    """
    # Plain floats: the expert asks this a thousand times for each frame's label.
    pan, lift, elbow, flex = q[:4].tolist()
    pitch = lift + elbow + flex
    parts = [_turn(_UPPER, lift), _turn(_LOWER, lift + elbow), _turn(_HAND, pitch)]
    rho = LIFT[0] + sum(p[0] for p in parts)
    z = LIFT[1] + sum(p[1] for p in parts)
    c, s = math.cos(pan), math.sin(pan)
    return np.array([PAN_X + rho * c - _SIDE * s, -rho * s - _SIDE * c, z]), pitch


def cylindrical(point: np.ndarray) -> np.ndarray:
    """(rho, angle, z) about the pan axis, shape (3,), of a point (x, y, z) [m, rad, m]."""
    x, y, z = point.tolist()
    return np.array([math.hypot(x - PAN_X, y), math.atan2(y, x - PAN_X), z])


def cartesian(point: np.ndarray) -> np.ndarray:
    """The inverse of `cylindrical`."""
    rho, angle, z = point.tolist()
    return np.array([PAN_X + rho * math.cos(angle), rho * math.sin(angle), z])


def _planar(rho: float, z: float, pitch: float) -> tuple[float, float, float] | None:
    """lift, elbow, flex for a tool point in the plane, elbow up; None where out of reach."""
    hand = _turn(_HAND, pitch)
    x, y = rho - hand[0] - LIFT[0], z - hand[1] - LIFT[1]
    reach2 = x * x + y * y
    cosine = (reach2 - _L1**2 - _L2**2) / (2 * _L1 * _L2)
    if abs(cosine) > 1:
        return None
    bend = math.acos(cosine)  # how far link 2 turns downwards from link 1
    first = math.atan2(y, x) + math.atan2(_L2 * math.sin(bend), _L1 + _L2 * math.cos(bend))
    lift = _A1 - first
    elbow = bend - _A1 + _A2
    return lift, elbow, pitch - lift - elbow


def solve(point: np.ndarray, pitch: float) -> np.ndarray | None:
    """pan, lift, elbow, flex that bring the tool point to `point`, or None out of reach.

    Args:
        point: shape (3,) [m], in the base's frame.
        pitch: wanted approach below the horizontal [rad]; the nearest feasible pitch within
            0.7 rad of it, in steps of 0.02, is taken.

    Returns:
        shape (4,) [rad], inside the joints' ranges.
    """
    x, y, z = point.tolist()
    dx = x - PAN_X
    rho = math.sqrt(max(dx * dx + y * y - _SIDE**2, 0.0))
    pan = math.atan2(-y, dx) - math.atan2(_SIDE, rho)
    for k in range(71):
        offset = 0.02 * ((k + 1) // 2) * (1 if k % 2 else -1)
        angles = _planar(rho, z, pitch + offset)
        if angles is not None:
            q = (pan, *angles)
            if all(a <= b <= c for a, b, c in zip(_LEAST, q, _MOST, strict=True)):
                return np.array(q)
    return None
