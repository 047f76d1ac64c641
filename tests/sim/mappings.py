"""Mapping files for tests, and a policy that swings a pendulum up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from runtime import so101
from sim.gym.suite import Mapped
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix

PENDULUM: dict[str, Any] = {
    "id": "Pendulum-v1",
    "rate": 20,
    "seconds": 10,
    "settle": 1.0,
    "instruction": {"text": "hold the pendulum upright"},
    "state": [{"names": ["cos", "sin", "speed"]}],
    "actions": [{"name": "torque", "unit": "N m", "lower": -2.0, "upper": 2.0, "absolute": False}],
    "success": {"reward": -0.1},
}
TABLETOP: dict[str, Any] = {
    "id": "sim.tabletop.env:takt/Tabletop-v0",
    "kwargs": {"render_mode": "rgb_array"},
    "rate": 30,
    "seconds": 10,
    "instruction": {"observation": "instruction"},
    "state": [{"observation": "state", "names": list(so101.JOINTS)}],
    "frames": {
        "front": {"observation": "front", "size": [96, 96]},
        "wrist": {"observation": "wrist", "size": [96, 96]},
        "people": {"render": True, "size": [480, 640]},
    },
    "actions": [
        {"name": name, "unit": "rad", "lower": low, "upper": high}
        for name, (low, high) in so101.JOINTS.items()
    ],
    "success": {"info": "success"},
}


COUNTING: dict[str, Any] = {
    "id": "tests.sim.counting_env:takt-tests/Counting-v0",
    "rate": 20,
    "seconds": 3,
    "instruction": {"info": "words"},
    "state": [{"names": ["steps", "sum", "step", "grip", "seed"]}],
    "frames": {"side": {"render": True, "size": [4, 6]}},
    "actions": [
        {"name": "dx", "lower": -1.0, "upper": 1.0, "absolute": False},
        {"name": "hold", "lower": -1.0, "upper": 1.0, "rest": -1.0},
    ],
    "success": {"info": "done"},
}


def write(folder: Path, mapping: dict[str, Any], **changed: Any) -> Path:
    path = folder / "mapping.json"
    path.write_text(json.dumps({k: v for k, v in {**mapping, **changed}.items() if v is not None}))
    return path


class Swinger:
    """Pumps energy into a pendulum, then balances it: a chunk of four rows from the state alone."""

    def __init__(self, mapping: Path) -> None:
        suite = Mapped(str(mapping))
        body = suite.spec()
        self._spec = PolicySpec("swinger", body.state, body.actions, (), 4, 1 / suite.rate, 1 / suite.rate)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, seed: int) -> None:
        pass

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        cos, sin, speed = observation.state.astype(float)
        angle = np.arctan2(sin, cos)
        if abs(angle) < 0.6:
            torque = -12.0 * angle - 3.0 * speed
        else:  # g = 10, m = l = 1: the energy of standing upright is 5
            torque = 2.0 * np.sign(speed if speed else 1.0) * np.sign(5.0 - speed**2 / 6 - 5.0 * cos)
        rows = np.full((4, 1), np.clip(torque, -2.0, 2.0))
        return ActionChunk(observation.time, self._spec.dt, rows)
