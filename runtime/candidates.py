"""How well each of several drawn chunks goes on with the running plan."""

from __future__ import annotations

import numpy as np

from vla.contract import ActionSpace, Prefix


def apart(chunks: np.ndarray, space: ActionSpace, prefix: Prefix | None, given: np.ndarray) -> np.ndarray:
    """How far each draw is from going on as planned, shape (C,); the least is the best.

    With known rows: the weighted squared distance to them, as the backward coherence of Bidirectional
    Decoding (arXiv 2408.17355, section 4.2). Rows that every draw was made to repeat tell nothing and do
    not count. Without known rows: the distance to all the others, of which the medoid has the least.

    Args:
        chunks: shape (C, H, A), physical units; distances are taken in shares of each dimension's range.
        prefix: rows of the running plan, weighted.
        given: shape (H,), bool; rows that the sampler repeated.
    """
    reach = space.upper - space.lower
    scale = np.where(reach > 0, reach, 1.0)
    weights = np.zeros(chunks.shape[1]) if prefix is None else np.where(given, 0.0, prefix.weights)
    if prefix is not None and weights.any():
        return (((chunks - prefix.actions) / scale) ** 2).sum(2) @ weights
    flat = (chunks / scale).reshape(len(chunks), -1)
    return np.linalg.norm(flat[:, None] - flat[None], axis=2).sum(1)
