"""The tabletop as a gymnasium environment: `gymnasium.make("takt/Tabletop-v0")`.

Importing this module registers it; `import sim.tabletop.env` is all that is needed.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from runtime import so101
from sim.tabletop import instructions, tasks
from sim.tabletop.suite import SPLITS, words_of
from sim.tabletop.world import CAMERAS, PEOPLE, SIZE, TICK_STEPS, World

RATE = 30  # actions a second
LONGEST = 128  # characters of an instruction


class TabletopEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Do what the instruction says.

    Observation: `front` and `wrist`, uint8 (96, 96, 3); `state`, float32 (6,), joint angles [rad];
    `instruction`, text. Action: float32 (6,), absolute joint targets [rad], held for 1/30 s.
    Reward: 1 when the task is done (rules.py), which ends the episode; else 0.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": RATE}

    def __init__(self, render_mode: str | None = None, split: str = "seen") -> None:
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; valid: {', '.join(SPLITS)}")
        self.render_mode, self.split = render_mode, split
        self.world = World()
        actions = so101.spec(()).actions
        frame = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space: spaces.Box = spaces.Box(
            actions.lower.astype(np.float32), actions.upper.astype(np.float32), dtype=np.float32
        )
        self.observation_space = spaces.Dict(
            {
                **dict.fromkeys(CAMERAS, frame),
                # Contacts and servos may push a joint a little past its range.
                "state": spaces.Box(-np.pi, np.pi, (actions.size,), np.float32),
                "instruction": spaces.Text(LONGEST, charset=frozenset(map(chr, range(32, 127)))),
            }
        )
        self._words = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new table; `options={"instruction": text}` replaces the drawn words, not the task."""
        super().reset(seed=seed)
        layout, task = tasks.draw(self.np_random, self.split)
        self.world.reset(layout, task)
        drawn = instructions.phrase(task, self.np_random, words_of(self.split))
        self._words = (options or {}).get("instruction", drawn)
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.world.command(np.clip(action, self.action_space.low, self.action_space.high))
        self.world.advance(TICK_STEPS)
        success = self.world.success()
        return self._observe(), float(success), success, False, self._info()

    def render(self) -> np.ndarray | None:
        return self.world.frame(PEOPLE, 480, 640) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.world.close()

    def _observe(self) -> dict[str, Any]:
        return {
            **{camera: self.world.frame(camera) for camera in CAMERAS},
            "state": self.world.joints(),
            "instruction": self._words,
        }

    def _info(self) -> dict[str, Any]:
        assert self.world.task is not None
        return {"task": instructions.canonical(self.world.task), "success": self.world.success()}


gymnasium.register("takt/Tabletop-v0", "sim.tabletop.env:TabletopEnv", max_episode_steps=RATE * 10)
