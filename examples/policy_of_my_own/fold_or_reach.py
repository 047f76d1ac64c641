"""A policy of one's own: it reads a word, and moves an arm of two joints there at a steady pace."""

from __future__ import annotations

import numpy as np

from vla.contract import ActionChunk, ActionSpace, CameraSpec, Dimension, Observation, PolicySpec, Prefix

JOINTS = ("shoulder", "elbow")
POSES = {"fold": (0.2, 1.5), "reach": (0.5, 0.1)}  # rad
ROWS, DT = 11, 0.1  # a chunk reaches one second ahead


class FoldOrReach:
    """Knows the words "fold" and "reach"; a trained model would look at the frames as well."""

    def __init__(self, speed: float) -> None:
        """`speed` in rad/s."""
        self._step = speed * DT
        # The names, units and cameras are compared with the robot's before anything moves.
        self.spec = PolicySpec(
            name="fold or reach",
            state=JOINTS,
            actions=ActionSpace(tuple(Dimension(joint, "rad", -2.0, 2.0) for joint in JOINTS)),
            cameras=(CameraSpec("top", 96, 96),),
            chunk_length=ROWS,
            dt=DT,
            replan=0.3,
        )

    def reset(self, seed: int, calls: int = 0) -> None:
        """(seed, calls) fix what is random, so that several robots can take turns; here nothing is."""

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """Row i is for `observation.time + i * DT`."""
        words = observation.instruction.split()
        goal = next((np.array(POSES[word]) for word in words if word in POSES), observation.state)
        reach = self._step * np.arange(ROWS)[:, None]
        way = np.clip(goal - observation.state, -reach, reach)
        return ActionChunk(observation.time, DT, observation.state + way)


def make(argument: str | None = None) -> FoldOrReach:
    """What `mine` or `mine:0.5` calls; the argument is the speed in rad/s."""
    return FoldOrReach(float(argument or 1.0))
