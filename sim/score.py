"""Counts of a report: success with its interval, percentiles, and what latency did to the ticks."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.statistics import wilson


def by_task(episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The score of each kind of task, by name."""
    names = sorted({e["task"] for e in episodes})
    return {name: score([e["success"] for e in episodes if e["task"] == name]) for name in names}


def both(episodes: list[dict[str, Any]], group: str) -> bool:
    """Whether every episode of a seed's group succeeded."""
    return all(e["success"] for e in episodes if e["group"] == group)


def waited(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The latencies that were drawn, and what they did to the ticks: of all of them, `held` had no row to
    play, `dry` are those of them whose plan had run out, `skipped` were left out; answers that came too
    late to be used.
    """
    drawn = np.array([v for r in results for v in r["latencies"]]) * 1e3
    episodes = [e for r in results for e in r["episodes"]]
    counts = {name: sum(e[name] for e in episodes) for name in ("held", "dry", "skipped")}
    out = {"ticks": {"all": sum(e["steps"] for e in episodes)} | counts}
    answers = {name: sum(e[name] for e in episodes) for name in ("asked", "late")}
    return out | {"answers": answers, "drawn_ms": percentiles(drawn) if len(drawn) else {}}


def score(outcomes: list[bool]) -> dict[str, Any]:
    n, k = len(outcomes), int(sum(outcomes))
    return {"n": n, "k": k, "rate": k / n, "ci95": list(wilson(k, n))}


def percentiles(values: np.ndarray) -> dict[str, float]:
    p50, p95, p99, most = np.quantile(values, [0.5, 0.95, 0.99, 1.0])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(most)}
