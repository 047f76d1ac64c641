"""A policy that tells the time: from an action alone one sees when it is for and when it was asked for."""

from __future__ import annotations

import math

import numpy as np

from tests.runtime.faults.body import SPEC as BODY
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix

ROWS, DT, REPLAN = 16, 0.05, 0.2
_RADIUS, _PACE = 0.4, 0.8  # rad, rad/s: two joints are a hand that goes round
_DAY, _SWING = 16.0, 0.8  # s, rad: a third is the time of asking
# Interpolating the hand between two rows errs by less than this, s.
NEAR = 1e-3


def spec(rows: int = ROWS) -> PolicySpec:
    """With chunks of so many rows."""
    return PolicySpec("hours", BODY.state, BODY.actions, (), rows, DT, min(REPLAN, rows * DT / 2))


def age(rows: int = ROWS) -> float:
    """How long after its observation the last row of a chunk is for, s."""
    return (rows - 1) * DT


def hand(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the hand points at `times`, s: two joints, rad."""
    return _RADIUS * np.sin(_PACE * times), _RADIUS * np.cos(_PACE * times)


def chunk(asked: float, rows: int = ROWS) -> ActionChunk:
    """The chunk that answers an observation of time `asked`, s."""
    actions = np.zeros((rows, BODY.actions.size))
    actions[:, 0], actions[:, 3] = hand(asked + DT * np.arange(rows))
    actions[:, 1] = _SWING * (2.0 * (asked % _DAY) / _DAY - 1.0)
    return ActionChunk(asked, DT, actions)


def since(target: np.ndarray, now: float) -> float:
    """How long before `now` a target was asked for, s."""
    # A float of our own: `now` less one of the wire's would be float32, which after 4.5 h is 2 ms coarse.
    asked = (float(target[1]) / _SWING + 1.0) / 2.0 * _DAY
    # Near the end of a day a rounding may turn an age of nothing into one of nearly a day.
    gone = (now - asked) % _DAY
    return float(gone - _DAY if gone > _DAY - NEAR else gone)


def off(target: np.ndarray, now: float) -> float:
    """How far from `now` the time is that a target is for, s, without its sign."""
    x, y = hand(np.array(now))
    return math.hypot(target[0] - float(x), target[3] - float(y)) / (_RADIUS * _PACE)


class Hours:
    """Answers with `chunk`; from inference `spin` on it computes for ever and holds the interpreter."""

    def __init__(self, rows: int = ROWS, spin: float = math.inf) -> None:
        self._rows, self._left = rows, spin

    @property
    def spec(self) -> PolicySpec:
        return spec(self._rows)

    def reset(self, seed: int, calls: int = 0) -> None:
        return

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        self._left -= 1
        while self._left < 0:
            pass
        return chunk(observation.time, self._rows)


def make(argument: str = str(ROWS)) -> Hours:
    """The policy `hours`; `hours:ROWS`; `hours:ROWS,N`, which hangs from inference N on, counted from 0."""
    rows, _, spin = argument.partition(",")
    return Hours(int(rows), float(spin or "inf"))
