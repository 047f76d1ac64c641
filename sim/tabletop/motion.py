"""One tick of bounded motion for the scripted expert, through the closed-form kinematics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.tabletop import kinematics, tasks

OPEN, SHUT = 0.75, -0.05  # gripper targets [rad]
SPEED = 0.20  # of the tool [m/s]
GAIN = 7.0  # slows down near the goal: speed <= GAIN * distance [1/s]
TICK = 1 / 30  # the period it is asked at [s]
JAW_SPEED = 3.0  # [rad/s]
JOINT_SPEED = 1.6  # [rad/s]
PRESS_BELOW = 0.62  # a jaw that shuts presses below this angle, and does not merely touch [rad]


@dataclass(frozen=True)
class Step:
    """What the expert wants next.

    Attributes:
        goal: where the tool should go, shape (3,) [m]; None for home.
        jaw: the gripper's target [rad].
        speed: of the tool, at the most [m/s].
    """

    goal: np.ndarray | None
    jaw: float
    speed: float = SPEED


def move(q: np.ndarray, step: Step) -> np.ndarray:
    """Joint targets one tick on from joint angles `q`; shape (6,) [rad]."""
    target = q.copy()
    roll, jaw = float(q[4]), float(q[5])
    target[5] = jaw + min(max(step.jaw - jaw, -JAW_SPEED * TICK), JAW_SPEED * TICK)
    if step.jaw == SHUT and jaw < PRESS_BELOW:
        target[5] = SHUT
    target[4] = roll + min(max(-roll, -0.05), 0.05)
    at = kinematics.tool(q)[0]
    solution = None if step.goal is None or folded(q, at) else _towards(at, step.goal, step.speed)
    # Scaled as a whole: clipping joint by joint would bend the path.
    change = (tasks.HOME[:4] if solution is None else solution) - q[:4]
    target[:4] = q[:4] + change * min(1.0, JOINT_SPEED * TICK / max(float(np.abs(change).max()), 1e-9))
    return target


def pitch(z: float) -> float:
    """Approach below the horizontal [rad]: nearly straight down at the table, outwards when high."""
    return float(np.radians(np.interp(z, (0.012, 0.12), (82.0, 62.0))))


def folded(q: np.ndarray, at: np.ndarray) -> bool:
    """Whether the hand is so close to the base, or so high, that straight paths lead nowhere: home first.

    Args:
        at: the tool point of joint angles `q`, shape (3,) [m].
    """
    x, y, z = at.tolist()
    rho = (x - kinematics.PAN_X) * math.cos(q[0]) - y * math.sin(q[0])
    return bool(rho < 0.095 or z > 0.17)


def _towards(at: np.ndarray, goal: np.ndarray, speed: float) -> np.ndarray | None:
    """Joint angles one bounded step from `at` towards `goal`, around the pan axis and not across it."""
    here, there = kinematics.cylindrical(at), kinematics.cylindrical(goal)
    away = there - here
    out, around, up = away.tolist()
    distance = math.hypot(out, around * float(here[0]), up)
    step = min(speed, GAIN * distance) * TICK
    point = kinematics.cartesian(here + away * (step / max(distance, 1e-9)))
    return kinematics.solve(point, pitch(float(point[2])))
