"""A body whose commands are disturbed, as a function of the seed: bursts push joints off their way."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.rollouts import Noise
from vla.contract import Observation, RobotSpec


class Disturbed:
    """A robot of the tabletop behind `rollouts.Noise`; entered and left by its owner."""

    def __init__(self, robot: Any, seed: int, strength: float) -> None:
        """`strength`: 1 is that of demonstrations."""
        self._robot = robot
        # Of its own, so that which bursts there are does not depend on what is commanded.
        self._noise = Noise(np.random.default_rng([seed, 0xD157]), strength)

    @property
    def spec(self) -> RobotSpec:
        return self._robot.spec

    def read(self) -> Observation:
        return self._robot.read()

    def write(self, command: np.ndarray) -> None:
        self._robot.write(self._noise(command))

    def __enter__(self) -> Disturbed:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
