"""An arm of numbers: an SO-101 without metal, to try everything around a robot."""

from __future__ import annotations

import numpy as np

from runtime import so101
from runtime.clock import Clock, MonotonicClock
from vla.contract import CameraSpec, Observation, RobotSpec

CAMERAS = (CameraSpec("front", 96, 96), CameraSpec("wrist", 96, 96))


class DryRun:
    """Joints that go where they are told, at the arm's speed; frames that show a test pattern.

    Attributes:
        joints: the pose, shape (6,), rad, as of the last read or write.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._spec = so101.spec(CAMERAS, name="dryrun")
        self.joints = np.zeros(self._spec.actions.size)
        self._goal = self.joints
        self._time = self._clock.now()
        self._patterns = {c.name: pattern(c, i) for i, c in enumerate(CAMERAS)}

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    def read(self) -> Observation:
        """The pose now; frames whose columns wander with the first joint."""
        self._move()
        shift = int(self.joints[0] * 10.0)
        frames = {name: np.roll(image, shift, axis=1) for name, image in self._patterns.items()}
        return Observation(self._time, self.joints.astype(np.float32), frames)

    def write(self, command: np.ndarray) -> None:
        """Joint targets, shape (6,), rad; those out of range are refused with a ValueError."""
        goal = np.asarray(command, float)
        space = self._spec.actions
        if goal.shape != (space.size,) or not ((goal >= space.lower) & (goal <= space.upper)).all():
            raise ValueError(f"a command within the joints' ranges, got {command}")
        self._move()
        self._goal = goal

    def __enter__(self) -> DryRun:
        return self

    def __exit__(self, *exc: object) -> None:
        self._move()
        self._goal = self.joints  # stands still

    def _move(self) -> None:
        now = self._clock.now()
        reach = np.array(self._spec.max_velocity) * (now - self._time)
        self.joints = self.joints + np.clip(self._goal - self.joints, -reach, reach)
        self._time = now


def pattern(camera: CameraSpec, hue: int) -> np.ndarray:
    """Eight bars and a ramp, shape (height, width, 3), uint8; `hue` turns the colours."""
    columns = np.arange(camera.width) * 8 // camera.width
    bars = (columns[:, None] >> np.arange(3)) & 1
    ramp = np.linspace(96, 255, camera.height)
    return np.roll(ramp[:, None, None] * bars[None], hue, axis=2).astype(np.uint8)


def make() -> DryRun:
    """The robot `dryrun`; it takes no options."""
    return DryRun()
