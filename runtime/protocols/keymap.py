"""A checked mapping at work: their keys and units in, a policy's observation out, and a chunk back.

Numbers pass as ours = factor * (scale * theirs + offset), where the factor makes SI of their unit; actions go
the opposite way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime import fields
from runtime.fields import WireError
from runtime.protocols.codec import Refused
from vla.contract import Observation


class Missing(WireError):
    """A key that is not in the request."""


Find = Callable[[str], Any]  # their key -> its value; raises Missing


@dataclass(frozen=True)
class Camera:
    """Their key for a camera; `planar` where its frames are (3, height, width)."""

    key: str
    planar: bool = False

    def read(self, value: Any) -> np.ndarray:
        """Shape (h, w, 3), uint8."""
        if isinstance(value, np.ndarray) and self.planar and value.ndim == 3:
            value = value.transpose(1, 2, 0)
        fits = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3
        if not fits or value.shape[2] != 3:
            wanted = "(3, height, width)" if self.planar else "(height, width, 3)"
            raise WireError(f"{self.key!r} is {describe(value)}; wanted uint8 {wanted}")
        return value


@dataclass(frozen=True)
class Part:
    """Some components of the state under one of their keys.

    Attributes:
        indices: which of the key's numbers; None for all.
        gain, bias: shape (size,); ours = gain * theirs + bias.
    """

    key: str
    indices: tuple[int, ...] | None
    gain: np.ndarray
    bias: np.ndarray

    @property
    def size(self) -> int:
        return len(self.gain)

    def read(self, value: Any) -> np.ndarray:
        """Shape (size,), float64, SI, of their numbers, shape (D,)."""
        if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iuf":
            raise WireError(f"{self.key!r} is {describe(value)}; wanted a row of numbers")
        least = self.size if self.indices is None else max(self.indices) + 1
        if len(value) < least or (self.indices is None and len(value) > least):
            raise WireError(f"{self.key!r} has {len(value)} numbers; the mapping wants {least}")
        numbers = value if self.indices is None else value[list(self.indices)]
        return self.gain * numbers.astype(np.float64) + self.bias


@dataclass(frozen=True)
class Group:
    """Columns of a chunk under one of their keys.

    Attributes:
        columns: indices of the policy's dimensions, D of them.
        gain, bias: shape (D,); theirs = gain * ours + bias.
        absolute: whether all of them are targets, and not changes.
    """

    key: str
    columns: tuple[int, ...]
    gain: np.ndarray
    bias: np.ndarray
    absolute: bool

    def read(self, actions: np.ndarray) -> np.ndarray:
        """Shape (H, A), SI -> shape (H, D), float32, theirs."""
        return (actions[:, list(self.columns)] * self.gain + self.bias).astype(np.float32)


@dataclass(frozen=True)
class KeyMap:
    """A checked mapping; made by `load`, `parse` or `default`.

    Attributes:
        cameras: the policy's camera -> theirs.
        instruction: their keys for the words; empty where the policy takes none.
        deadline: s within which every answer is wanted; None for unlimited.
        dialect: of GR00T's protocol, one of `DIALECTS`; None to go by each request.
        seed: of the sampling noise.
        rate, execute: where the server hands out actions one by one, how many steps they make a second, and
            how many of them a chunk serves.
        hello: what else is told who says hello, where the protocol has such.
    """

    cameras: dict[str, Camera]
    state: tuple[Part, ...]
    instruction: tuple[str, ...]
    actions: tuple[Group, ...]
    deadline: float | None = None
    dialect: str | None = None
    seed: int = 0
    rate: float = 0.0
    execute: int = 1
    hello: dict[str, Any] = field(default_factory=dict)

    def observation(self, time: float, frame: Find, numbers: Find, words: Find) -> Observation:
        """What a request shows, in the policy's names and SI.

        Args:
            time: of its arrival, s: these protocols carry none.
            frame, numbers, words: look up a camera's frame, a row of the state (D,), a text.

        Raises:
            WireError: a key is missing or its value does not fit; one line that names it.
        """
        frames = {name: camera.read(frame(camera.key)) for name, camera in self.cameras.items()}
        rows = [part.read(numbers(part.key)) for part in self.state]
        with np.errstate(over="ignore"):  # the policy refuses what is not finite
            state = np.concatenate([np.zeros(0), *rows]).astype(np.float32)
        return Observation(time, state, frames, self._words(words))

    def _words(self, words: Find) -> str:
        for key in self.instruction:
            with suppress(Missing):
                value = words(key)
                if not isinstance(value, str) or len(value) > fields.MAX_TEXT:
                    raise WireError(f"{key!r} is {describe(value)}; wanted a text")
                return value
        if self.instruction:
            raise Missing(f"no instruction: the request has none of {list(self.instruction)}")
        return ""

    def answer(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Shape (H, A), SI -> their key -> shape (H, D), float32."""
        found: dict[str, list[np.ndarray]] = {}
        for group in self.actions:
            found.setdefault(group.key, []).append(group.read(actions))
        return {key: np.concatenate(columns, axis=1) for key, columns in found.items()}


def describe(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, Refused):
        return str(value)
    return f"a {type(value).__name__}"
