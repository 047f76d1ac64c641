"""Statistics of a data set's columns and pictures, for the episode table and meta/stats.json.

Arrays only: nothing here knows a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)

Stats = dict[str, np.ndarray]


def array_stats(array: np.ndarray) -> Stats:
    """Statistics over the first axis of shape (N, *shape); each has `shape`, float64; count is (1,)."""
    values = array.astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def picture_stats(frames: np.ndarray, most: int = 32, pixels: int = 150) -> Stats:
    """Statistics of each channel over at most `most` frames of (T, h, w, 3); each is (3, 1, 1), in [0, 1].

    The count is of sampled frames; frames wider or higher than twice `pixels` are thinned.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    step = max(1, max(frames.shape[1:3]) // pixels)
    sample = np.ascontiguousarray(frames[chosen, ::step, ::step].reshape(-1, 3).T)
    counts = np.stack([np.bincount(channel, minlength=256) for channel in sample])
    share, level = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    below = np.cumsum(share, axis=1)
    mean = share @ level
    stats = {
        "min": level[(counts > 0).argmax(axis=1)],
        "max": level[255 - (counts[:, ::-1] > 0).argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt((share * (level - mean[:, None]) ** 2).sum(axis=1)),
        **{name: level[(below >= q - 1e-12).argmax(axis=1)] for name, q in QUANTILES.items()},
    }
    shaped = {name: value.reshape(3, 1, 1) for name, value in stats.items()}
    return shaped | {"count": np.array([len(chosen)])}


def combine_stats(parts: Sequence[Stats]) -> Stats:
    """Statistics of a union: exact but for the quantiles, which are means weighted by count."""
    count = np.array([float(p["count"][0]) for p in parts])
    weight = count / count.sum()

    def average(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.tensordot(weight, np.stack(values), axes=1)

    mean = average([p["mean"] for p in parts])
    return {
        "min": np.min([p["min"] for p in parts], axis=0),
        "max": np.max([p["max"] for p in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(average([p["std"] ** 2 + (p["mean"] - mean) ** 2 for p in parts])),
        "count": np.array([int(count.sum())]),
        **{name: average([p[name] for p in parts]) for name in QUANTILES},
    }
