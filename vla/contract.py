"""What a policy is, what a robot is, and what passes between them.

numpy only, so that the robot side can import it anywhere. Read this file first: everything
else in the project composes the types below.

Time is data. Every observation carries the robot host's monotonic time in seconds; a chunk
answers an observation's time; rows are looked up by time and never by queue position.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

# From 1.29 on ONNX Runtime tells its vendor which models are run where, unless it is told otherwise before it
# is loaded; whatever here loads it has loaded this file first. What a robot does stays on its machine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class TaktError(Exception):
    """A user's mistake or a broken input: one line that says what is wrong and what to do."""


class SpecMismatch(TaktError):
    """The policy and the robot do not describe the same body."""


@dataclass(frozen=True)
class Dimension:
    """One component of a state or an action.

    Attributes:
        name: the joint's or axis' name, e.g. "shoulder_pan".
        unit: "rad", "m", "1" (a ratio) or "rad/s", "m/s".
        lower, upper: limits in that unit.
        absolute: True for a target (interpolates), False for a relative action (steps).
    """

    name: str
    unit: str
    lower: float
    upper: float
    absolute: bool = True


@dataclass(frozen=True)
class ActionSpace:
    """The named, bounded dimensions of a command. Shape of one action: (A,)."""

    dimensions: tuple[Dimension, ...]

    @property
    def size(self) -> int:
        return len(self.dimensions)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.dimensions)

    @property
    def lower(self) -> np.ndarray:
        """Shape (A,), float64, in each dimension's own unit."""
        return np.array([d.lower for d in self.dimensions])

    @property
    def upper(self) -> np.ndarray:
        """Shape (A,), float64, in each dimension's own unit."""
        return np.array([d.upper for d in self.dimensions])

    @property
    def absolute(self) -> np.ndarray:
        """Shape (A,), bool."""
        return np.array([d.absolute for d in self.dimensions], dtype=bool)

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(d) for d in self.dimensions]

    @staticmethod
    def from_json(rows: list[dict[str, Any]]) -> ActionSpace:
        return ActionSpace(tuple(Dimension(**row) for row in rows))


@dataclass(frozen=True)
class CameraSpec:
    """A camera's name and the size of its frames in pixels; frames are uint8 RGB (height, width, 3)."""

    name: str
    height: int
    width: int


# What a policy can do with the rows of `Prefix`: nothing; continue committed rows, as it was trained to
# (arXiv 2512.05964); be guided towards them while it denoises (arXiv 2506.07339).
JOININGS = ("none", "prefix", "guided")


@dataclass(frozen=True)
class PolicySpec:
    """What a policy takes and gives.

    Attributes:
        name: for people and logs.
        state: names of the state's components, in order; S of them.
        actions: the command space; A dimensions.
        cameras: the frames it wants.
        chunk_length: H, rows a chunk.
        dt: seconds between rows.
        replan: seconds of a chunk that are meant to be executed before the next one arrives.
        joining: how a new chunk is made to continue the running one, one of `JOININGS`.
        committed: rows that `Prefix` may commit at most; more than were trained are worth nothing.
    """

    name: str
    state: tuple[str, ...]
    actions: ActionSpace
    cameras: tuple[CameraSpec, ...]
    chunk_length: int
    dt: float
    replan: float
    joining: str = "none"
    committed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": list(self.state),
            "actions": self.actions.to_json(),
            "cameras": [asdict(c) for c in self.cameras],
            "chunk_length": self.chunk_length,
            "dt": self.dt,
            "replan": self.replan,
            "joining": self.joining,
            "committed": self.committed,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> PolicySpec:
        return PolicySpec(
            name=data["name"],
            state=tuple(data["state"]),
            actions=ActionSpace.from_json(data["actions"]),
            cameras=tuple(CameraSpec(**c) for c in data["cameras"]),
            chunk_length=int(data["chunk_length"]),
            dt=float(data["dt"]),
            replan=float(data["replan"]),
            joining=str(data.get("joining", "none")),
            committed=int(data.get("committed", 0)),
        )


@dataclass(frozen=True)
class RobotSpec:
    """What a body offers: its state, its command space, its cameras and its limits.

    Attributes:
        max_velocity, max_acceleration: shape (A,), in the dimension's unit per s and per s^2.
        max_lead: shape (A,); how far a command may run ahead of the measured pose.
        rest: shape (A,); what a dimension that is not measured holds before its first command, such as an
            open gripper; zeros by default.
    """

    name: str
    state: tuple[str, ...]
    actions: ActionSpace
    cameras: tuple[CameraSpec, ...]
    max_velocity: tuple[float, ...]
    max_acceleration: tuple[float, ...]
    max_lead: tuple[float, ...]
    rest: tuple[float, ...] = ()


@dataclass(frozen=True)
class Observation:
    """What a robot sees at one instant.

    Attributes:
        time: the robot host's monotonic time, s.
        state: shape (S,), float32, SI units.
        frames: camera name -> shape (h, w, 3), uint8 RGB.
        instruction: the words the policy is to obey.
        captured: camera name -> when its frame was taken, s, where the robot knows; it does not travel.
        faults: what is wrong with the body, each in words that name the part; it does not travel.
        blind: what is wrong with cameras, each in words that name one; it does not travel.
        pace: the part of its speed limits, above 0 to 1, that the body should be asked for now: less when it
            is hot or strained; it does not travel.
    """

    time: float
    state: np.ndarray
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    instruction: str = ""
    captured: Mapping[str, float] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    pace: float = 1.0


@dataclass(frozen=True)
class ActionChunk:
    """A plan: row i is the action for `time + i * dt`.

    Attributes:
        time: the time of the observation it answers, s.
        dt: seconds between rows.
        actions: shape (H, A), physical units.
        stages: seconds spent in each stage of inference, by name, in the order in which they ran.
        step_seconds: seconds of each denoising step; as many as were made.
        origin: when the first of the stages began, s, on the clock of the observation; None when unknown.
        done: the probability, as of the observation, that the task is done; None from a policy that cannot
            tell.
    """

    time: float
    dt: float
    actions: np.ndarray
    stages: dict[str, float] = field(default_factory=dict)
    step_seconds: tuple[float, ...] = ()
    origin: float | None = None
    done: float | None = None

    @property
    def end(self) -> float:
        """The time of the last row, s."""
        return self.time + (len(self.actions) - 1) * self.dt

    def at(self, now: float, absolute: np.ndarray) -> np.ndarray | None:
        """The action for `now`, shape (A,); None outside [time, end].

        Args:
            now: s, on the observation's clock.
            absolute: shape (A,), bool; absolute dimensions interpolate linearly between two
                rows, relative ones take the row at or before `now`.
        """
        at = (now - self.time) / self.dt
        # A tick computed as start + k * period may fall a rounding error outside the last row.
        if not -1e-6 <= at <= len(self.actions) - 1 + 1e-6:
            return None
        i = min(max(int(np.floor(at + 1e-6)), 0), len(self.actions) - 1)
        j = min(i + 1, len(self.actions) - 1)
        weight = min(max(at - i, 0.0), 1.0)
        between = self.actions[i] + weight * (self.actions[j] - self.actions[i])
        return np.where(absolute, between, self.actions[i])


@dataclass(frozen=True)
class Prefix:
    """Rows of the running plan that the next one has to continue (real-time chunking).

    Attributes:
        actions: shape (H, A), physical units; row i is for the asking observation's time + i * dt.
        weights: shape (H,), float32; 1 where the row is committed, that is executed whatever the policy
            answers, between 0 and 1 where the new plan should stay near it (guided), 0 where it is free.
    """

    actions: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Request:
    """One thing asked of a policy that several sessions share.

    Attributes:
        deadline: s from now within which the answer is wanted; None for unlimited.
        seed, call: fix the sampling noise, as `reset(seed)` and `call` inferences before would.
    """

    observation: Observation
    prefix: Prefix | None = None
    deadline: float | None = None
    seed: int = 0
    call: int = 0


@runtime_checkable
class Policy(Protocol):
    """Anything that turns an observation into a chunk: torch, ONNX Runtime, TensorRT, a remote server."""

    @property
    def spec(self) -> PolicySpec: ...

    def reset(self, seed: int) -> None:
        """Forget the episode; sampling noise starts anew from `seed`."""

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """A chunk that answers `observation`.

        Args:
            deadline: s from now; a policy that can makes fewer denoising steps to be there in time. It
                answers in any case, with its least at the worst. None for unlimited.
        """


@runtime_checkable
class SharedPolicy(Policy, Protocol):
    """A policy that several sessions take turns with: each request carries its own noise."""

    def infer_batch(self, requests: Sequence[Request]) -> list[ActionChunk]:
        """The answers, in the order of the requests; the earliest of their deadlines rules."""


@runtime_checkable
class Robot(Protocol):
    """Anything with a body. Four methods; `with robot:` leaves the hardware safe however it ends."""

    @property
    def spec(self) -> RobotSpec: ...

    def read(self) -> Observation:
        """State and the newest frames, without waiting for a camera; the instruction is left empty."""

    def write(self, command: np.ndarray) -> None:
        """Send one command, shape (A,), physical units."""

    def __enter__(self) -> Robot: ...

    def __exit__(self, *exc: object) -> None: ...


def check_match(policy: PolicySpec, robot: RobotSpec) -> None:
    """Compare once at start what the policy wants with what the robot offers.

    Raises:
        SpecMismatch: with both lists, when names, order or kinds differ or a camera is missing.
    """

    def refuse(what: str, wants: object, offers: object) -> None:
        raise SpecMismatch(
            f"policy {policy.name!r} and robot {robot.name!r} differ in {what}: "
            f"policy wants {wants}, robot offers {offers}"
        )

    if policy.state != robot.state:
        refuse("state", list(policy.state), list(robot.state))
    if policy.actions.names != robot.actions.names:
        refuse("actions", list(policy.actions.names), list(robot.actions.names))
    kinds = [[(d.unit, d.absolute) for d in s.actions.dimensions] for s in (policy, robot)]
    if kinds[0] != kinds[1]:
        refuse("action units", kinds[0], kinds[1])
    offered = {c.name for c in robot.cameras}
    if not {c.name for c in policy.cameras} <= offered:
        refuse("cameras", [c.name for c in policy.cameras], sorted(offered))
