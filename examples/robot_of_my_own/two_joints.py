"""A robot of one's own: an arm of two joints in a plane, made of numbers, with one camera."""

from __future__ import annotations

import time

import numpy as np

from vla.contract import ActionSpace, CameraSpec, Dimension, Observation, RobotSpec

JOINTS = ("shoulder", "elbow")
SIZE = 96  # pixels
SPEC = RobotSpec(
    name="two joints",
    state=JOINTS,
    actions=ActionSpace(tuple(Dimension(joint, "rad", -2.0, 2.0) for joint in JOINTS)),
    cameras=(CameraSpec("top", SIZE, SIZE),),
    # Without limits nothing moves: rad/s, rad/s^2, and how far a command may run ahead of the pose, rad.
    max_velocity=(2.0, 2.0),
    max_acceleration=(10.0, 10.0),
    max_lead=(0.2, 0.2),
)


class TwoJoints:
    """Joints that are where they were told to be; metal would talk to its bus in `read` and `write`."""

    spec = SPEC

    def __init__(self) -> None:
        self._joints = np.zeros(2)

    def read(self) -> Observation:
        """Called every tick, so it must not wait: give the newest frame, and say when it was taken."""
        now = time.monotonic()
        return Observation(
            now, self._joints.astype(np.float32), {"top": picture(self._joints)}, captured={"top": now}
        )

    def write(self, command: np.ndarray) -> None:
        """Shape (2,), rad; the guard has seen to the limits."""
        self._joints = np.array(command)

    def __enter__(self) -> TwoJoints:
        return self  # metal: switch the torque on, where the arm stands

    def __exit__(self, *exc: object) -> None:
        pass  # metal: come here however the run ends, and leave the arm safe: standing, not falling


def picture(joints: np.ndarray) -> np.ndarray:
    """The arm's elbow and tip as dots, shape (SIZE, SIZE, 3), uint8."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    tip = np.zeros(2)
    for colour, angle in enumerate(np.cumsum(joints)):
        tip += 20 * np.array([np.cos(angle), np.sin(angle)])
        x, y = np.round(SIZE / 2 + tip).astype(int)
        image[y - 2 : y + 3, x - 2 : x + 3, colour] = 255
    return image


def make() -> TwoJoints:
    """What `--robot mine` calls."""
    return TwoJoints()
