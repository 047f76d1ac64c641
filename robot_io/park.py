"""An arm goes to a pose by itself: slowly, within its limits, looking every cycle, and not at any price."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

import numpy as np

from runtime.clock import MonotonicClock, Ticker
from runtime.safety import Filter, Limits
from vla.contract import Observation, RobotSpec

PACE = 0.3  # of the robot's own velocity limit
RATE = 50.0  # cycles a second
NEAR = 0.06  # rad from the pose, which counts as there
STALE = 0.25  # s; with a state older than that it does not move on
PATIENCE = 3.0  # s beyond twice the time that the way takes


class Parkable(Protocol):
    """What has to be known of a robot to park it."""

    @property
    def spec(self) -> RobotSpec: ...

    def read(self) -> Observation: ...

    def write(self, command: np.ndarray) -> None: ...


def park(robot: Parkable, commanded: np.ndarray, pose: np.ndarray) -> str:
    """Lead a robot to a pose and let it come to rest; why it did not get there, "" when it did.

    Args:
        commanded: its last command, where it begins, shape (A,).
        pose: where it is to go, shape (A,); what lies outside its range counts as the range's end.
    """
    limits = _slow(robot.spec)
    goal = np.clip(pose, limits.lower, limits.upper)
    limiter = Filter(limits)
    begun = time.monotonic()
    way = float((np.abs(goal - commanded) / limits.velocity).max())
    last = begun + 2.0 * way + PATIENCE
    limiter.start(commanded, begun)
    for _, now in Ticker(MonotonicClock(), 1.0 / RATE):
        seen = robot.read()
        if seen.faults:
            return "; ".join(seen.faults)
        stale = now - seen.time > STALE
        command = limiter(None if stale else goal, seen.state, now)
        robot.write(command)
        away = np.abs(seen.state - goal)
        if not stale and limiter.still and np.abs(command - goal).max() < 1e-3 and away.max() < NEAR:
            return ""
        if now > last:
            joint = robot.spec.actions.names[int(away.argmax())]
            return f"{joint} does not get to where it was found"
    raise AssertionError("a ticker ends only when it is left")


def _slow(spec: RobotSpec) -> Limits:
    return Limits.of(replace(spec, max_velocity=tuple(PACE * v for v in spec.max_velocity)))
