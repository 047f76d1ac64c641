"""An environment that counts: what it was told is in its state, and it breaks when it is asked to."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STATE = ("steps", "sum", "step", "grip", "seed")


class Counting(gymnasium.Env[np.ndarray, np.ndarray]):
    """Done when the steps told so far sum to 1. State: `STATE`. A frame's shade is how many were rendered."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self, render_mode: str | None = None, dies: int = -1, raises: int = -1, noise: bool = False
    ) -> None:
        """
        Args:
            dies, raises: the seed whose third step kills this process, or raises.
            noise: print on stdout at every step.
        """
        self.render_mode, self._dies, self._raises, self._noise = render_mode, dies, raises, noise
        self.action_space: spaces.Box = spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.observation_space = spaces.Box(-np.inf, np.inf, (len(STATE),), np.float64)
        self._rendered = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._seed, self._rendered = seed or 0, 0
        self._row = np.array([0.0, 0.0, 0.0, 0.0, float(self._seed)])
        return self._row.copy(), {"words": f"count from {self._seed}", "done": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._noise:
            print("stepping " * 20, flush=True)
        count = self._row[0] + 1
        if count == 3 and self._seed == self._dies:
            print("about to die", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if count == 3 and self._seed == self._raises:
            raise RuntimeError("the table\nfell over")
        self._row = np.array([count, self._row[1] + action[0], action[0], action[1], float(self._seed)])
        return self._row.copy(), float(action[0]), False, False, {"done": self._row[1] > 1.0 - 1e-9}

    def render(self) -> np.ndarray:
        self._rendered += 1
        return np.full((4, 6, 3), self._rendered, np.uint8)


gymnasium.register("takt-tests/Counting-v0", "tests.sim.counting_env:Counting")
