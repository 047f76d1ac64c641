"""`--policy expert`: a suite's scripted expert as a policy, one row a chunk, computed from the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vla.contract import ActionChunk, Observation, Policy, PolicySpec, Prefix, RobotSpec, TaktError

NAME = "expert"


class Expert:
    """Says what to do now, and nothing about later: an answer that comes late is of no use.

    It looks at the simulator instead of the observation, and at no frame.
    """

    def __init__(self, robot: RobotSpec, rate: float, act: Callable[[], np.ndarray]) -> None:
        """
        Args:
            rate: rows a second.
            act: the action for the simulator's present, shape (A,).
        """
        self._spec = PolicySpec(NAME, robot.state, robot.actions, (), 1, 1.0 / rate, 1.0 / rate)
        self._act = act

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, seed: int) -> None:
        """Nothing to forget: the expert's memory, where it has one, is the simulator's."""

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        return ActionChunk(observation.time, self._spec.dt, np.asarray(self._act(), np.float64)[None])


def of(suite: Any, robot: Any) -> Policy:
    """The expert of a suite, which looks at `robot`'s simulator.

    Raises:
        TaktError: the suite has none.
    """
    spec(suite)
    return Expert(robot.spec, suite.rate, suite.expert(robot))


def spec(suite: Any) -> PolicySpec:
    """Of a suite's expert, without a simulator.

    Raises:
        TaktError: the suite has none.
    """
    if getattr(suite, "expert", None) is None:
        raise TaktError(f"suite {suite.name!r} has no scripted expert: name a policy")
    return Expert(suite.spec(), suite.rate, _never).spec


def _never() -> np.ndarray:
    raise AssertionError("a spec is all that was asked")
