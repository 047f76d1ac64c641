"""Any gymnasium environment for host.py, described by a mapping file (sim/gym/mapping.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

FLIPS = {
    "": (slice(None), slice(None)),
    "vertical": (slice(None, None, -1), slice(None)),
    "horizontal": (slice(None), slice(None, None, -1)),
    "both": (slice(None, None, -1), slice(None, None, -1)),
}


def pick(tree: Any, path: str) -> Any:
    """What stands in nested dicts under keys/with/slashes; the whole for ""."""
    for key in filter(None, path.split("/")):
        if not isinstance(tree, dict) or key not in tree:
            there = ", ".join(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
            raise KeyError(f"{path!r} is not there; there is {there}")
        tree = tree[key]
    return tree


class World:
    """See host.py; the arguments are those of the mapping."""

    def __init__(
        self, name: str, kwargs: dict, state: list, frames: dict, instruction: dict, success: dict,
        packages: list, size: int,
    ) -> None:  # fmt: skip
        import gymnasium

        self.packages = ("gymnasium", "mujoco", "numpy", *packages)
        self._state_parts, self._frames, self._words, self._rule = state, frames, instruction, success
        if any("render" in where for where in frames.values()):
            kwargs = {"render_mode": "rgb_array", **kwargs}
        self._env = gymnasium.make(name, **kwargs)
        space = self._env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or int(np.prod(space.shape)) != size:
            raise ValueError(f"{name} takes actions of {space}, the mapping has {size} dimensions")
        self._space = space
        self.reset({"seed": 0})  # what the mapping names must be there
        for camera in frames:
            self.frames({camera: []})

    def reset(self, request: dict) -> tuple:
        self._seen, self._info = self._env.reset(seed=int(request["seed"]))
        self._return = 0.0
        return self._said(), self._state()

    def step(self, action: Any) -> tuple:
        shaped = np.asarray(action, self._space.dtype).reshape(self._space.shape)
        self._seen, reward, terminated, truncated, self._info = self._env.step(shaped)
        self._return += float(reward)
        over = bool(terminated or truncated)
        return self._state(), self._success(float(reward), terminated, over), over

    def frames(self, sizes: dict) -> dict:
        return {name: self._frame(name) for name in sizes}

    def expert(self) -> Any:
        raise ValueError("a gymnasium environment has no scripted expert")

    def close(self) -> None:
        self._env.close()

    def _state(self) -> Any:
        parts = []
        for part in self._state_parts:
            row = np.asarray(pick(self._seen, part["observation"]), np.float32).reshape(-1)
            begin, end = part["slice"]
            if end > len(row):
                raise ValueError(f"observation {part['observation']!r} has {len(row)} numbers, not {end}")
            parts.append(row[begin:end])
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _said(self) -> dict:
        if "text" in self._words:
            return {}
        tree, path = (self._seen, "observation") if "observation" in self._words else (self._info, "info")
        return {"instruction": str(pick(tree, self._words[path]))}

    def _success(self, reward: float, terminated: bool, over: bool) -> bool:
        ((kind, value),) = self._rule.items()
        if kind == "info":
            try:
                return bool(pick(self._info, value))
            except KeyError:
                if over:
                    raise
                return False  # some environments tell at the end alone
        if kind == "terminated":
            return bool(terminated)
        return (reward if kind == "reward" else self._return) >= float(value)

    def _frame(self, name: str) -> Any:
        where = self._frames[name]
        if "render" in where:
            frame = self._env.render()
        else:
            frame = pick(self._seen, where["observation"])
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frame {name!r} is {frame.dtype} {frame.shape}, not uint8 (height, width, 3)")
        if list(frame.shape[:2]) != list(where["size"]):
            raise ValueError(f"frame {name!r} is {frame.shape[:2]}, the mapping says {where['size']}")
        return frame[FLIPS[where["flip"]]]
