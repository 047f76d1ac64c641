"""The sampler of flow-matching policies, over two functions, and what real-time chunking adds to it.

    prefix(observation) -> memory            once a chunk: vision, words, state
    step(memory, x, t, dt, kept, weights) -> next x, actions      N times

One direction of time: tau runs from 0 (noise) to 1 (action). Models that use the reverse
convert in their own file. The update x + dt * v happens inside `step`, so that memory and x
stay on the device; `actions` is x in physical units.

`kept` and `weights` are the rows of the running plan that the new one continues (contract.Prefix):

    row      0 ... d-1 | d ............ overlap-1 | overlap ... H-1
    weight   1         | falls from below 1       | 0
             committed   known, should stay near    new
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[Any, Any, float, float, np.ndarray, np.ndarray], tuple[Any, Any]]
# Asked before a step: does a further step after this one still fit into the time that is left?
Pace = Callable[[], bool]

# tau (1 - tau) is not taken below this, so that the guidance is finite at both ends.
_LEAST = 1e-6


def euler(
    step: Step,
    memory: Any,
    x: Any,
    steps: int,
    kept: np.ndarray,
    weights: np.ndarray,
    pace: Pace | None = None,
) -> Any:
    """Integrate the learned velocity with Euler steps (Lipman et al. 2022, arXiv 2210.02747).

    When `pace` says that no further step fits, the one at hand goes all the way, dt = 1 - t: it returns
    x + (1 - t) v, the estimate of the clean action that every flow-matching model has at any time.

    Args:
        x: noise at tau = 0, shape (B, H, A).
        steps: number of equal steps, >= 1.
        kept: shape (B, H, A), physical units; rows of the running plan.
        weights: shape (B, H), float32, 0 .. 1; how far each row of `kept` binds.
        pace: None makes all the steps.

    Returns:
        actions, shape (B, H, A), physical units.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    actions = None
    for i in range(steps):
        t, last = i / steps, i == steps - 1
        if not last and pace is not None and not pace():
            return step(memory, x, t, 1.0 - t, kept, weights)[1]
        x, actions = step(memory, x, t, 1.0 / steps, kept, weights)
    return actions


def noise(shape: tuple[int, ...], seed: int, call: int, scale: float = 1.0) -> np.ndarray:
    """What a chunk starts from, float32: a function of the seed and of how many chunks were before.

    It depends neither on companions in a batch nor on the worker or server that runs it; the first of
    several draws, shape (N, H, A), is the only one of shape (1, H, A).
    """
    return (scale * np.random.default_rng([seed, call]).standard_normal(shape)).astype(np.float32)


def bound(weights: np.ndarray, joining: str, committed: int) -> np.ndarray:
    """What of a prefix's weights, shape (H,), a sampler is given, float32.

    Args:
        joining: "none" ignores the prefix; "prefix" takes whole rows only, and no more than were trained;
            any other is guided and takes the weights as they are.
        committed: rows that training has shown (contract.PolicySpec.committed).
    """
    if joining == "none":
        return np.zeros(len(weights), np.float32)
    if joining == "prefix":
        rows = np.arange(len(weights)) < committed
        return (rows & (np.asarray(weights) >= 1)).astype(np.float32)
    return np.asarray(weights, np.float32)


def hard(length: int, committed: int) -> np.ndarray:
    """Weights of a training-time prefix (arXiv 2512.05964): 1 on the committed rows, else 0.

    Shape (length,), float32.
    """
    _check(length, committed, committed)
    return (np.arange(length) < committed).astype(np.float32)


def weights(length: int, committed: int, overlap: int) -> np.ndarray:
    """Soft weights of real-time chunking (arXiv 2506.07339, equation 5), shape (length,), float32.

    1 for i < d, c (e^c - 1) / (e - 1) with c = (overlap - i) / (overlap - d + 1) up to the overlap, else 0.

    Args:
        length: H, rows a chunk.
        committed: d, rows that are executed whatever the answer is.
        overlap: rows that the old plan knows, H - s in the paper; committed <= overlap <= length.
    """
    _check(length, committed, overlap)
    i = np.arange(length)
    c = np.clip((overlap - i) / (overlap - committed + 1), 0.0, 1.0)
    soft = c * np.expm1(c) / np.expm1(1.0)
    return np.where(i < committed, 1.0, soft).astype(np.float32)


def guidance(tau: float, beta: float) -> float:
    """How strongly the error of the known rows pulls at flow time `tau`.

    min(beta, (1 - tau) / tau * (tau^2 + (1 - tau)^2) / (1 - tau)^2), arXiv 2506.07339, equations 2 and 4;
    `beta` at both ends and 2 in the middle.
    """
    spread = (tau**2 + (1 - tau) ** 2) / max(tau * (1 - tau), _LEAST)
    return float(min(beta, spread))


def _check(length: int, committed: int, overlap: int) -> None:
    if not 0 <= committed <= overlap <= length:
        raise ValueError(f"rows are 0 <= committed <= overlap <= {length}, got {committed} and {overlap}")
