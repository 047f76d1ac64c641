"""A simulator in another process behind the `Robot` seam.

Physics follows the clock in whole control steps of the environment: each read, and each look at success,
first lets it go on to the present. A relative action is a step: it reaches the environment in exactly one
control step, and where none follows the body holds, which is zero for relative dimensions and the last
value for absolute ones. Frames are rendered when somebody looks at them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import floor
from typing import Any

import numpy as np

from runtime.clock import Clock
from sim.foreign.process import Host
from vla.contract import ActionSpace, CameraSpec, Dimension, Observation, RobotSpec

# What an environment is told need not spare gears: in the dimension's unit per s, and per s^2. The filter's
# arithmetic stays exact to 1e-7 of a range of 1 between these.
FREE, FREER = 1e9, 1e12


def spec(
    name: str,
    state: Iterable[str],
    actions: Iterable[Dimension],
    cameras: Iterable[CameraSpec] = (),
    rest: Iterable[float] = (),
) -> RobotSpec:
    """A body whose environment has limits of its own; `rest` as in `RobotSpec`."""
    space = ActionSpace(tuple(actions))
    every = (1.0,) * space.size
    return RobotSpec(
        name, tuple(state), space, tuple(cameras),
        max_velocity=tuple(FREE * e for e in every),
        max_acceleration=tuple(FREER * e for e in every),
        max_lead=tuple(FREE * e for e in every),
        rest=tuple(rest),
    )  # fmt: skip


class Frames(Mapping[str, np.ndarray]):
    """The cameras' frames at one instant, rendered when they are looked at (most ticks nobody does)."""

    def __init__(self, host: Host, cameras: Iterable[CameraSpec]) -> None:
        self._host, self._cameras = host, {c.name: c for c in cameras}
        self._seen: dict[str, np.ndarray] = {}

    def __getitem__(self, camera: str) -> np.ndarray:
        wanted = self._cameras[camera]
        if camera not in self._seen:
            sizes = {camera: [wanted.height, wanted.width]}
            _, frames = self._host.ask("frames", sizes=sizes)
            self._seen[camera] = frames[camera]
        return self._seen[camera]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)


class ForeignRobot:
    """A body in a simulator that another Python environment runs.

    Attributes:
        clock: what physics follows.
        success, over: as of the last control step: whether the task is done, and whether the environment
            has ended the episode.
        taken: control steps of this episode.
    """

    def __init__(self, host: Host, spec: RobotSpec, clock: Clock, rate: float) -> None:
        """
        Args:
            rate: control steps a second.
        """
        self.host, self.clock, self.rate = host, clock, rate
        self._spec = spec
        self._cameras = spec.cameras
        self.success = self.over = False
        self.taken = 0
        self._limit, self._ends = 0, True
        self._state = np.zeros(len(spec.state), np.float32)
        self._begun: float | None = None
        self._command, self._fresh = np.zeros(spec.actions.size), False

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def world(self) -> ForeignRobot:
        """What a rule of success is asked with."""
        return self

    @property
    def versions(self) -> dict[str, str]:
        """Of the simulator's Python and packages."""
        return self.host.versions

    def fit(self, cameras: Iterable[CameraSpec]) -> None:
        """Render these cameras alone, at the sizes that a policy was trained with."""
        self._cameras = tuple(cameras)
        kept = {c.name: c for c in self._cameras}
        self._spec = replace(self._spec, cameras=tuple(kept.get(c.name, c) for c in self._spec.cameras))

    def reset(self, request: dict[str, Any], steps: int, ends: bool = True) -> dict[str, Any]:
        """Begin an episode; its time starts at the next read.

        Args:
            request: what the world's `reset` takes.
            steps: control steps that it lasts at most.
            ends: whether the first success ends it.

        Returns:
            what the world says of it.
        """
        said, arrays = self.host.ask("reset", **{"with": request})
        self._state = self._checked(arrays["state"])
        self.success = self.over = False
        self.taken, self._limit, self._ends, self._begun = 0, steps, ends, None
        self._still()
        return said

    def catch_up(self) -> None:
        """Let physics go on to the present."""
        now = self.clock.now()
        if self._begun is None:
            self._begun = now
        due = min(floor((now - self._begun) * self.rate + 1e-6), self._limit) - self.taken
        if due <= 0 or self.over or (self.success and self._ends):
            return
        held = np.where(self._spec.actions.absolute, self._command, 0.0)
        actions = np.array([self._command if i == 0 and self._fresh else held for i in range(due)])
        said, arrays = self.host.ask("step", {"actions": actions}, ends=self._ends)
        self._fresh = False
        self._state = self._checked(arrays["state"])
        self.success, self.over = said["success"], said["over"]
        self.taken += due

    def read(self) -> Observation:
        self.catch_up()
        return Observation(self.clock.now(), self._state, Frames(self.host, self._cameras))

    def write(self, command: np.ndarray) -> None:
        self._command, self._fresh = np.array(command, np.float64), True

    def expert(self) -> np.ndarray:
        """What the environment's scripted expert would do now, shape (A,)."""
        return self.host.ask("expert")[1]["action"]

    def places(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What the simulator alone knows: where things are, (K, 4), and where cameras see them, (K, 3)."""
        _, arrays = self.host.ask("places")
        return arrays.pop(""), arrays

    def _still(self) -> None:
        self._command = np.array(self._spec.rest or np.zeros(self._spec.actions.size), np.float64)
        self._fresh = False

    def _checked(self, state: np.ndarray) -> np.ndarray:
        if state.shape != (len(self._spec.state),):
            raise ValueError(f"the simulator's state is {state.shape}, not ({len(self._spec.state)},)")
        return state

    def __enter__(self) -> ForeignRobot:
        return self

    def __exit__(self, *exc: object) -> None:
        self.host.close()
