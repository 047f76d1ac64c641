"""A scripted expert that is a function of the state, not a script: it has no memory.

So it can be asked anywhere: after a slip, a push, or from where a half-trained policy has driven
the arm (DAgger, Ross et al. 2011, arXiv 1011.0686). It looks at joint angles and at the true
positions of the named cube and bowl, decides where the tool should go next, and moves there at a
bounded speed through the closed-form kinematics.
"""

from __future__ import annotations

import numpy as np

from sim.tabletop import kinematics, tasks
from sim.tabletop.scene import BOWL_INNER
from sim.tabletop.world import World

OPEN, SHUT = 0.75, -0.05  # gripper targets [rad]
GRASP_Z, HOVER_Z, CARRY_Z, DROP_Z = 0.013, 0.060, 0.085, 0.066  # tool heights [m]
SPEED = 0.20  # of the tool [m/s]
GAIN = 7.0  # slows down near the goal: speed <= GAIN * distance [1/s]
TICK = 1 / 30  # the period it is asked at [s]
JAW_SPEED = 3.0  # [rad/s]
JOINT_SPEED = 1.6  # [rad/s]
SIDE = 0.004  # the cube is taken this far outwards of the tool point, towards the moving jaw [m]


def pitch(z: float) -> float:
    """Approach below the horizontal [rad]: nearly straight down at the table, outwards when high."""
    return float(np.radians(np.interp(z, (0.012, 0.12), (82.0, 62.0))))


def act(world: World) -> np.ndarray:
    """The next joint targets, shape (6,) [rad]."""
    q = world.joints().astype(float)
    cube, bowl = world.named()
    goal, jaw = decide(q, cube, bowl)
    return move(q, goal, jaw)


def decide(q: np.ndarray, cube: np.ndarray, bowl: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Where the tool should go, shape (3,) [m] or None for home, and the gripper's target [rad]."""
    at = kinematics.tool(q)[0]
    outwards = (cube[:2] - (kinematics.PAN_X, 0.0)) / np.hypot(cube[0] - kinematics.PAN_X, cube[1])
    grip = np.array([*(cube[:2] - SIDE * outwards), max(cube[2], GRASP_Z)])
    held = q[5] < 0.42 and np.linalg.norm(at - cube) < 0.024
    over = np.hypot(*(at[:2] - bowl[:2])) < 0.014
    if not held and tasks.in_bowl(cube, bowl):
        return _leave(at, bowl)
    if held:
        return _carry(q, at, bowl, over)
    return _reach(q, at, grip)


def _leave(at: np.ndarray, bowl: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Rise out of the bowl, then go home."""
    if at[2] < CARRY_Z - 0.01 and np.hypot(*(at[:2] - bowl[:2])) < BOWL_INNER + 0.02:
        return np.array([at[0], at[1], CARRY_Z + 0.01]), OPEN
    return None, OPEN


def _carry(q: np.ndarray, at: np.ndarray, bowl: np.ndarray, over: bool) -> tuple[np.ndarray, float]:
    if over and at[2] < DROP_Z + 0.008:
        return np.array([*bowl[:2], DROP_Z]), OPEN
    if over:
        return np.array([*bowl[:2], DROP_Z]), SHUT
    if q[5] > 0.30:  # still closing: lift when the cube is held
        return at, SHUT
    # Sideways only as fast as the height allows, so that the cube clears every rim on its way.
    gate = float(np.clip((at[2] - 0.045) / (CARRY_Z - 0.055), 0.0, 1.0))
    if np.hypot(*(at[:2] - bowl[:2])) < 0.04:
        gate = 1.0 if at[2] > DROP_Z - 0.01 else gate
        return np.array([*(at[:2] + gate * (bowl[:2] - at[:2])), max(DROP_Z, min(at[2], CARRY_Z))]), SHUT
    return np.array([*(at[:2] + gate * (bowl[:2] - at[:2])), CARRY_Z]), SHUT


def _reach(q: np.ndarray, at: np.ndarray, grip: np.ndarray) -> tuple[np.ndarray, float]:
    """Over the cube, down along a funnel, close."""
    off = float(np.hypot(*(at[:2] - grip[:2])))
    if off < 0.009 and at[2] < grip[2] + 0.006:
        return grip, SHUT
    if q[5] < 0.55:  # open the jaws before coming down, without pushing the cube
        height = max(at[2], HOVER_Z) if off > 0.02 else max(at[2], min(HOVER_Z, grip[2] + 0.02))
        return np.array([*grip[:2], height]), OPEN
    funnel = float(np.clip((off - 0.006) / 0.03, 0.0, 1.0))
    height = grip[2] + funnel * (HOVER_Z - grip[2])
    low = at[2] < HOVER_Z - 0.015 and off > 0.035
    xy = at[:2] if low else grip[:2]  # when low and far, rise first: nothing is swept aside
    return np.array([*xy, height]), OPEN


def move(q: np.ndarray, goal: np.ndarray | None, jaw: float) -> np.ndarray:
    """One tick of bounded motion from joint angles `q` towards a tool goal; shape (6,) [rad]."""
    target = q.copy()
    target[5] = q[5] + np.clip(jaw - q[5], -JAW_SPEED * TICK, JAW_SPEED * TICK)
    if jaw == SHUT and q[5] < 0.42:
        target[5] = SHUT  # press, do not merely touch
    target[4] = np.clip(-q[4], -0.05, 0.05) + q[4]
    solution = None if goal is None or _folded(q) else _towards(kinematics.tool(q)[0], goal)
    # Scaled as a whole: clipping joint by joint would bend the path.
    change = (tasks.HOME[:4] if solution is None else solution) - q[:4]
    target[:4] = q[:4] + change * min(1.0, JOINT_SPEED * TICK / max(float(np.abs(change).max()), 1e-9))
    return target


def _folded(q: np.ndarray) -> bool:
    """Whether the hand is so close to the base, or so high, that straight paths lead nowhere: home first."""
    at = kinematics.tool(q)[0]
    rho = (at[0] - kinematics.PAN_X) * np.cos(q[0]) - at[1] * np.sin(q[0])
    return bool(rho < 0.095 or at[2] > 0.17)


def _towards(at: np.ndarray, goal: np.ndarray) -> np.ndarray | None:
    """Joint angles one bounded step from `at` towards `goal`, around the pan axis and not across it."""
    here, there = kinematics.cylindrical(at), kinematics.cylindrical(goal)
    away = there - here
    distance = float(np.linalg.norm(away * (1.0, here[0], 1.0)))
    step = min(SPEED, GAIN * distance) * TICK
    point = kinematics.cartesian(here + away * (step / max(distance, 1e-9)))
    return kinematics.solve(point, pitch(float(point[2])))
