"""The safety filter: the last stage before a body. Pure functions of injected time.

    finite -> shape -> age -> position -> lead over the measured pose -> velocity -> acceleration

A request that is not finite is rejected whole; everything else is clamped and counted. Its age is the
planner's to know: a request that is too old does not arrive. What a register can hold is the driver's to
know, after this. This is not a certified safety function: the emergency stop is a power cut.

Why the limits cannot contradict each other. A state is kept from which the body can stop in time:

    v^2 / (2 a)  <=  distance to the limit in the direction of v                         (1)

The next velocity v' moves the command by v' dt, so (1) holds again when v' <= reach(distance, dt), the
root of v'^2 / (2 a) = distance - v' dt. Braking fully, v - a dt, always satisfies that, whatever dt is:
a velocity within both the acceleration and the position limit exists at every step. Later steps cover
no more than v'^2 / (2 a), because a falling line's right-hand sum is smaller than its integral.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from vla.contract import ActionSpace, Dimension, RobotSpec, TaktError

SLOWEST = 0.05  # of the velocity limits; standing still is what HOLD is for
LONGEST = 0.1  # s; commands further apart than this count as this far apart
FIRST = 0.05  # in the dimension's unit; how far the first command may lie from the measured pose


def shrunk(space: ActionSpace, margin: float) -> ActionSpace:
    """The space with the range of every absolute dimension shortened at both ends.

    Args:
        margin: the part of the range that is left out at each end, from 0 to below 0.5.
    """
    if not 0.0 <= margin < 0.5:
        raise ValueError(f"a margin from 0 to below 0.5, got {margin}")

    def short(d: Dimension) -> Dimension:
        cut = margin * (d.upper - d.lower)
        return replace(d, lower=d.lower + cut, upper=d.upper - cut) if d.absolute else d

    return ActionSpace(tuple(short(d) for d in space.dimensions))


@dataclass(frozen=True)
class Limits:
    """What a body may be told. All shape (A,), in each dimension's unit, per s and per s^2.

    Attributes:
        index: where the dimension stands in the state, -1 where it is not measured or relative.
        absolute: False for relative actions; these are clamped into [lower, upper] and nothing else.
        rest: where a dimension begins that is not measured.
    """

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    lead: np.ndarray
    index: np.ndarray
    absolute: np.ndarray
    rest: np.ndarray

    @staticmethod
    def of(spec: RobotSpec, margin: float = 0.0) -> Limits:
        """The limits in a robot's description, its ranges shortened by `margin`, see `shrunk`.

        Raises:
            TaktError: a limit is missing, not finite or not positive.
        """
        space = shrunk(spec.actions, margin)
        rates = [np.asarray(r, float) for r in (spec.max_velocity, spec.max_acceleration, spec.max_lead)]
        whole = all(r.shape == (space.size,) and np.isfinite(r).all() and (r > 0).all() for r in rates)
        ranges = np.isfinite([space.lower, space.upper]).all() and (space.lower <= space.upper).all()
        if not (whole and ranges):
            raise TaktError(f"robot {spec.name!r} lacks a limit: every dimension needs finite, positive ones")
        rest = np.asarray(spec.rest, float) if spec.rest else np.zeros(space.size)
        if rest.shape != (space.size,):
            raise TaktError(f"robot {spec.name!r}: rest has {len(rest)} values for {space.size} actions")
        velocity, acceleration, lead = rates
        known = [d.absolute and d.name in spec.state for d in space.dimensions]
        index = np.array([spec.state.index(n) if k else -1 for n, k in zip(space.names, known, strict=True)])
        return Limits(space.lower, space.upper, velocity, acceleration, lead, index, space.absolute, rest)

    def slowed(self, pace: float) -> Limits:
        """With `pace` of the velocity, from `SLOWEST` to 1; the lead stays, or a loaded arm would sink."""
        part = pace if pace >= SLOWEST else SLOWEST  # NaN is the slowest
        return replace(self, velocity=self.velocity * part) if part < 1.0 else self


@dataclass(frozen=True)
class Memory:
    """What the filter remembers: the last command, its velocity, the last target, and when (s)."""

    position: np.ndarray
    velocity: np.ndarray
    target: np.ndarray
    time: float


def start(limits: Limits, measured: np.ndarray, now: float) -> Memory:
    """At rest at the measured pose, so that the first command is blended in from there.

    A pose up to `FIRST` outside the position limits starts from the limit. One that is further out, as
    an arm that leans on its stop while its range is shortened, is where the commands begin: they come in
    from there at the pace of the other limits, and never go further out.

    Args:
        measured: the robot's state, shape (S,). Dimensions that are not measured start from `rest`.

    Raises:
        TaktError: the pose is not finite, or lies further outside the position limits than a command
            may run ahead of it.
    """
    pose = _pose(limits, measured)
    inside = np.clip(pose, limits.lower, limits.upper)
    outside = np.where(limits.index >= 0, np.abs(inside - pose), 0.0)
    if not (outside <= limits.lead).all():
        raise TaktError(f"the robot stands outside its limits at {pose.round(3)}: move it inside by hand")
    begin = np.where(outside > FIRST, pose, inside)
    return Memory(begin, np.zeros_like(pose), begin, now)


def limit(
    limits: Limits, state: Memory, target: np.ndarray | None, measured: np.ndarray, now: float
) -> tuple[np.ndarray, Memory, Counter[str]]:
    """One command that the body may be given.

    Args:
        target: shape (A,); None to hold: brake, then repeat the last command.
        measured: the robot's state, shape (S,).
        now: s; where it is not after the last call's, absolute dimensions stay where they are.

    Returns:
        command, shape (A,); the next state; what was rejected or clamped, by name.
    """
    verdicts: Counter[str] = Counter()
    admitted = _admit(limits, target, measured, verdicts)
    # After a stall the body gets a step's worth of motion, not all that the stall left out.
    dt = min(now - state.time, LONGEST)
    relative = np.zeros_like(state.position) if admitted is None else admitted
    if not dt > 0:
        return np.where(limits.absolute, state.position, relative), state, verdicts
    wanted = np.zeros_like(relative)
    if admitted is not None:
        wanted = _follow(limits, state, admitted, _lead(limits, admitted, measured, verdicts), dt)
    slow = _clamp(wanted, -limits.velocity, limits.velocity, "velocity", limits, verdicts)
    velocity = _clamp(slow, *_reachable(limits, state, dt), "acceleration", limits, verdicts)
    position = np.clip(state.position + velocity * dt, *_range(limits, state))
    after = Memory(position, velocity, position if admitted is None else admitted, now)
    return np.where(limits.absolute, position, relative), after, verdicts


def _pose(limits: Limits, measured: np.ndarray) -> np.ndarray:
    """The measured pose by dimension, shape (A,); `rest` where it is not measured."""
    pose = np.append(np.asarray(measured, float), 0.0)[limits.index]
    return np.where(limits.index >= 0, pose, limits.rest)


def usable(limits: Limits, target: np.ndarray) -> bool:
    """Whether a target has the body's shape and is finite."""
    row = np.asarray(target, float)
    return row.shape == limits.lower.shape and bool(np.isfinite(row).all())


def _admit(
    limits: Limits, target: np.ndarray | None, measured: np.ndarray, verdicts: Counter[str]
) -> np.ndarray | None:
    """Finite, shape, position: what is left of a target, None when it has to hold."""
    if target is None:
        return None
    if not usable(limits, target) or not np.isfinite(measured).all():
        verdicts["rejected"] += 1
        return None
    return _clamp(np.asarray(target, float), limits.lower, limits.upper, "position", None, verdicts)


def _lead(limits: Limits, target: np.ndarray, measured: np.ndarray, verdicts: Counter[str]) -> np.ndarray:
    """The target, no further from the measured pose than a command may run ahead of it."""
    pose = _pose(limits, measured)
    lead = np.where(limits.index >= 0, limits.lead, np.inf)
    return _clamp(target, pose - lead, pose + lead, "lead", limits, verdicts)


def _clamp(
    row: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    name: str,
    limits: Limits | None,
    verdicts: Counter[str],
) -> np.ndarray:
    """Clip and count; with `limits` given only absolute dimensions count, the others have no such limit."""
    clipped = np.minimum(np.maximum(row, low), high)  # np.clip takes three times as long
    outside = np.abs(clipped - row) > 1e-9
    if (outside if limits is None else outside & limits.absolute).any():
        verdicts[name] += 1
    return clipped


def _range(limits: Limits, state: Memory) -> tuple[np.ndarray, np.ndarray]:
    """The position limits; while a command is still outside them, no further out than it is."""
    return np.minimum(limits.lower, state.position), np.maximum(limits.upper, state.position)


def _reach(distance: np.ndarray, acceleration: np.ndarray, dt: float) -> np.ndarray:
    """The highest speed for the next `dt` s from which braking still ends within `distance`."""
    brake = acceleration * dt
    return np.sqrt(brake**2 + 2.0 * acceleration * np.maximum(distance, 0.0)) - brake


def _follow(limits: Limits, state: Memory, target: np.ndarray, goal: np.ndarray, dt: float) -> np.ndarray:
    """The velocity that meets the goal as it moves, without overshooting it when it stops.

    A target that itself respects the limits is met exactly: the gap is zero, the velocity its own. A goal
    that the lead has set moves with the body, not with the target; it counts as standing.
    """
    pace = np.minimum(np.maximum((target - state.target) / dt, -limits.velocity), limits.velocity)
    pace = np.where(goal == target, pace, 0.0)
    gap = goal - pace * dt - state.position
    return pace + np.sign(gap) * _reach(np.abs(gap), limits.acceleration, dt)


def _reachable(limits: Limits, state: Memory, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """The velocities within the acceleration limit from which the position limits are never crossed."""
    step = limits.acceleration * dt
    lower, upper = _range(limits, state)
    down = _reach(state.position - lower, limits.acceleration, dt)
    up = _reach(upper - state.position, limits.acceleration, dt)
    high = np.minimum(state.velocity + step, up)
    low = np.maximum(state.velocity - step, -down)
    return np.minimum(low, high), high


class Filter:
    """The limits of one run and what they did.

    Attributes:
        verdicts: how many commands were rejected or clamped, by name.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.verdicts: Counter[str] = Counter()
        self._state: Memory | None = None

    def __call__(
        self, target: np.ndarray | None, measured: np.ndarray, now: float, pace: float = 1.0
    ) -> np.ndarray:
        """The command for `now`, shape (A,); see `limit` and `Limits.slowed`."""
        state = self.start(measured, now)
        limits = self.limits if pace == 1.0 else self.limits.slowed(pace)
        command, self._state, verdicts = limit(limits, state, target, measured, now)
        if limits is not self.limits:
            verdicts["derated"] += 1
        self.verdicts.update(verdicts)
        return command

    def start(self, measured: np.ndarray, now: float) -> Memory:
        """What it remembers; at rest at the measured pose where it was not called before, see `start`."""
        if self._state is None:
            self._state = start(self.limits, measured, now)
        return self._state

    @property
    def still(self) -> bool:
        """Whether the last command stood still."""
        return self._state is None or not self._state.velocity.any()
