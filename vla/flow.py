"""The sampler of flow-matching policies, over two functions.

    prefix(observation) -> memory            once a chunk: vision, words, state
    step(memory, x, t, dt, kept, mask) -> next x, actions      N times

One direction of time: tau runs from 0 (noise) to 1 (action). Models that use the reverse
convert in their own file. The update x + dt * v happens inside `step`, so that memory and x
stay on the device; `actions` is x in physical units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[Any, Any, float, float, np.ndarray, np.ndarray], tuple[Any, Any]]


def euler(step: Step, memory: Any, x: Any, steps: int, kept: np.ndarray, mask: np.ndarray) -> Any:
    """Integrate the learned velocity with `steps` Euler steps (Lipman et al. 2022, arXiv 2210.02747).

    Args:
        x: noise at tau = 0, shape (B, H, A).
        steps: number of equal steps, >= 1.
        kept: shape (B, H, A), physical units; rows the robot will execute anyway.
        mask: shape (B, H), float32; 1 where a row of `kept` counts (real-time chunking with a
            training-time prefix, arXiv 2512.05964), 0 elsewhere.

    Returns:
        actions, shape (B, H, A), physical units.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    actions = None
    for i in range(steps):
        x, actions = step(memory, x, i / steps, 1.0 / steps, kept, mask)
    return actions
