"""Policies that are no networks: an arm that a person leads, and a motion that was recorded.

Both answer at once and in the control process (`planner.InlineLink`), so the loop, the guard and the
recorder treat them as they treat any policy. Neither begins with a leap: a robot that stands elsewhere is
first led to where the motion begins, at `PACE` of its speed limit.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

import numpy as np

from vla.contract import ActionChunk, Observation, PolicySpec, Prefix, RobotSpec, TaktError

PACE = 0.3  # of the robot's own velocity limit
NEAR = 0.05  # in a dimension's unit; what is nearer has been caught up with
STALE = 0.06  # s; a leader's joints older than that are followed no longer
LONGEST = 0.1  # s that a leader's last joints are followed when no newer ones come
SETTLE = 0.5  # s that a robot stands where a motion begins
MOST = 60.0  # s that a way to a motion's beginning may take


class Leader(Protocol):
    """An arm without torque, which a person moves."""

    def joints(self) -> tuple[float, np.ndarray]:
        """When its joints were read, s, monotonic, and where they are, shape (A,); without waiting long."""

    def __enter__(self) -> Leader: ...

    def __exit__(self, *exc: object) -> None: ...


def make_leader(name: str, **options: object) -> Leader:
    """The leader that an installed package offers under this name (entry points `takt.leaders`).

    Raises:
        TaktError: no such name; the line lists the valid ones.
    """
    found = {entry.name: entry for entry in entry_points(group="takt.leaders")}
    if name not in found:
        raise TaktError(f"no leader {name!r}; valid: {', '.join(sorted(found)) or 'none is installed'}")
    made: Leader = found[name].load()(**options)
    return made


class Led:
    """Targets are a leader's joints.

    Attributes:
        caught: whether the robot has come to where the leader is; from then on it follows at once.
    """

    def __init__(self, leader: Leader, robot: RobotSpec) -> None:
        self._leader = leader
        self._pace = PACE * np.array(robot.max_velocity)
        self._space = robot.actions
        self._at: tuple[float, np.ndarray] | None = None  # on the way to the leader
        self.caught = False
        self._spec = PolicySpec("leader", robot.state, robot.actions, (), 2, LONGEST, 0.0)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, seed: int) -> None:
        self._at, self.caught = None, False

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """Where the leader is now; a chunk that nobody may play while the leader is not heard."""
        time, joints = self._leader.joints()
        goal = np.clip(joints, self._space.lower, self._space.upper)
        if observation.time - time > STALE or not np.isfinite(joints).all():
            goal = np.full_like(goal, np.nan)
        elif not self.caught:
            goal = self._approach(observation, goal)
        return ActionChunk(observation.time, LONGEST, np.repeat(goal[None], 2, axis=0))

    def _approach(self, observation: Observation, goal: np.ndarray) -> np.ndarray:
        before, at = self._at or (observation.time, observation.state.astype(float))
        step = self._pace * min(observation.time - before, LONGEST)
        at = at + np.clip(goal - at, -step, step)
        self._at = observation.time, at
        self.caught = bool(np.abs(goal - observation.state).max() < NEAR)
        return at


class Replayed:
    """A motion played once, from where the robot is asked first.

    Attributes:
        begins: when its first row is due, s; None before it was asked.
    """

    def __init__(self, robot: RobotSpec, actions: np.ndarray, dt: float, policy: PolicySpec) -> None:
        """
        Args:
            actions: shape (N, A), `dt` s apart.
            policy: names and units of what was recorded; rates are this one's.
        """
        self._robot, self._actions, self._dt = robot, np.asarray(actions, float), dt
        self._chunk: ActionChunk | None = None
        self.begins: float | None = None
        rows = len(actions) + round((MOST + SETTLE) / dt)
        self._spec = PolicySpec("recorded", policy.state, policy.actions, (), rows, dt, np.inf)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    @property
    def ends(self) -> float:
        """When its last row is due, s; infinite before it was asked."""
        return np.inf if self.begins is None else self.begins + (len(self._actions) - 1) * self._dt

    def reset(self, seed: int) -> None:
        self._chunk, self.begins = None, None

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """The way there and the whole of it.

        Raises:
            TaktError: the robot is too far from where it begins.
        """
        if self._chunk is None:
            way = self._way(observation)
            self.begins = observation.time + len(way) * self._dt
            self._chunk = ActionChunk(observation.time, self._dt, np.concatenate([way, self._actions]))
        return self._chunk

    def _way(self, observation: Observation) -> np.ndarray:
        space, first = self._robot.actions, self._actions[0]
        known = dict(zip(self._robot.state, observation.state.astype(float), strict=True))
        start = np.array([known.get(name, goal) for name, goal in zip(space.names, first, strict=True)])
        if not space.absolute.all():
            return np.zeros((0, space.size))  # steps have no place to begin at
        seconds = float((np.abs(first - start) / (PACE * np.array(self._robot.max_velocity))).max())
        if not seconds <= MOST:
            raise TaktError(
                f"the robot is {seconds:.0f} s away from where the episode begins: move it nearer"
            )
        rows = max(1, int(np.ceil(seconds / self._dt)))
        way = start + np.linspace(0.0, 1.0, rows + 1)[:-1, None] * (first - start)
        return np.concatenate([way, np.repeat(first[None], round(SETTLE / self._dt), axis=0)])
