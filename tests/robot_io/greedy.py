"""A policy that wants more than any limit allows, for the robot of tests/robot_io/slide."""

from __future__ import annotations

import numpy as np

from vla.contract import ActionChunk, ActionSpace, CameraSpec, Dimension, Observation, PolicySpec, Prefix

ROWS, DT = 16, 0.05
NAMES = ("shoulder", "elbow.pos", "x.vel")
SPACE = ActionSpace(
    (
        Dimension(NAMES[0], "rad", -9.0, 9.0),
        Dimension(NAMES[1], "rad", -9.0, 9.0),
        Dimension(NAMES[2], "m/s", -9.0, 9.0, absolute=False),
    )
)


class Greedy:
    """Swings both joints by 5 rad, and drives at 3 m/s."""

    spec = PolicySpec("greedy", NAMES, SPACE, (CameraSpec("top", 24, 32),), ROWS, DT, 0.2)

    def reset(self, seed: int, calls: int = 0) -> None:
        return

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        assert observation.frames["top"].shape == (24, 32, 3)
        swing = 5.0 * np.sin(3.0 * (observation.time + DT * np.arange(ROWS)))
        return ActionChunk(observation.time, DT, np.stack([swing, -swing, np.full(ROWS, 3.0)], axis=1))


def make() -> Greedy:
    """The policy `greedy`, as an entry point of `takt.policies`."""
    return Greedy()
