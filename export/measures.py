"""What was measured of variants, as numbers of a report: pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.variants import Round, Variant
from runtime import engines, latency
from sim.score import percentiles
from vla.contract import PolicySpec, TaktError


@dataclass(frozen=True)
class Turn:
    """A variant's part of a round.

    Attributes:
        joules: a chunk's, of the whole machine; None where it cannot tell.
    """

    round: Round
    joules: float | None = None


def names(places: Sequence[Path]) -> list[str]:
    """What variants are called: as little of the end of each path as tells them apart.

    Raises:
        TaktError: a place is named twice.
    """
    parts = [place.resolve().parts for place in places]
    if len(set(parts)) < len(parts):
        raise TaktError("a bundle is named twice: it would be compared with itself")
    length = next(n for n in range(1, 1000) if len({p[-n:] for p in parts}) == len(parts))
    return [str(Path(*p[-length:])) for p in parts]


def variant(
    v: Variant,
    turns: Sequence[Turn],
    memory: float | None,
    error: dict[str, Any],
    outcome: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A variant's row of the report; what is not known is left out.

    Args:
        memory: MB. error: of `apart`. outcome: of `compared.outcomes`.
    """
    total = np.concatenate([t.round.total for t in turns]) * 1e3
    middles = [float(np.median(t.round.total)) * 1e3 for t in turns]
    low, high = np.quantile(middles, [0.05, 0.95])
    row = {
        "name": v.name,
        **about(Path(v.place), v.engine),
        "size_mb": size(Path(v.place)),
        "peak_rss_mb": memory,
        "stages_ms": stages([t.round for t in turns]),
        "total_ms": percentiles(total) | {"n": len(total), "p50_range": [float(low), float(high)]},
        "action_error": error,
    }
    joules = [t.joules for t in turns if t.joules is not None]
    if memory is None:
        del row["peak_rss_mb"]
    if joules:
        row["joules"] = float(np.median(joules))
    return row | ({} if outcome is None else outcome)


def stages(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Percentiles of each stage, ms: as the policy tells them, "step" of the single steps, and "words" of
    instructions that were new."""
    seconds = {s: np.concatenate([r.stages[s] for r in rounds]) for s in rounds[0].stages if s != "words"}
    seconds["step"] = np.concatenate([r.step.reshape(-1) for r in rounds])
    seconds["words"] = np.concatenate([r.words for r in rounds])
    return {s: percentiles(v * 1e3) for s, v in seconds.items() if len(v)}


def about(place: Path, name: str = engines.DEFAULT) -> dict[str, str]:
    """Engine and precision, by what the folder says of itself; `name` is the engine of a bundle."""
    runs = "onnxruntime" if name == engines.DEFAULT else name
    for file, engine, key in (("policy.json", runs, "precision"), ("takt.json", "torch", "dtype")):
        if (place / file).is_file():
            said = json.loads((place / file).read_text()).get(key, "fp32")
            said = said.get("name", "") if isinstance(said, dict) else said
            return {
                "engine": engine,
                "precision": {"float32": "fp32", "bfloat16": "bf16"}.get(said, str(said)),
            }
    return {"engine": "torch", "precision": "fp32"}


def size(place: Path) -> float:
    """Of a folder, MB."""
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6


def apart(actions: np.ndarray, right: np.ndarray, spec: PolicySpec) -> dict[str, Any]:
    """How far answers are from the right ones: over everything, and by dimension in its own unit.

    Args:
        actions, right: shape (N, H, A), for the same observations and noise.
    """
    error = np.abs(actions.astype(float) - right.astype(float))
    each = {
        d.name: {"mean": float(error[..., i].mean()), "max": float(error[..., i].max()), "unit": d.unit}
        for i, d in enumerate(spec.actions.dimensions)
    }
    units = {d.unit for d in spec.actions.dimensions}
    out = {"mean": float(error.mean()), "max": float(error.max()), "per_dimension": each}
    return out | ({"unit": units.pop()} if len(units) == 1 else {})


def ratios(rows: Sequence[dict[str, Any]], taken: Sequence[Sequence[Turn]]) -> dict[str, dict[str, float]]:
    """By variant, how many times better than the first: `p50` of the whole chunk, with the range of nine
    rounds in ten, each against the first's turn in the same round; `size`, `memory`, `joules`."""
    out = {}
    middles = [np.array([np.median(t.round.total) for t in turns]) for turns in taken]
    for row, own in zip(rows, middles, strict=True):
        low, high = np.quantile(middles[0] / own, [0.05, 0.95])
        better = {
            "p50": rows[0]["total_ms"]["p50"] / row["total_ms"]["p50"],
            "low": float(low),
            "high": float(high),
        }
        for name, key in (("size", "size_mb"), ("memory", "peak_rss_mb"), ("joules", "joules")):
            if rows[0].get(key) and row.get(key):
                better[name] = rows[0][key] / row[key]
        out[row["name"]] = better
    return out


def profile(turns: Sequence[Turn], about: dict[str, Any]) -> dict[str, Any]:
    """What `takt eval --latency` draws from, and `takt budget` plans with.

    Raises:
        TaktError: the policy does not say how long its prefix takes.
    """
    rounds = [t.round for t in turns]
    if "prefix" not in rounds[0].stages:
        raise TaktError("--profile wants a policy that tells its stages: a bundle does")
    total, prefix = (
        np.concatenate(part) for part in ([r.total for r in rounds], [r.stages["prefix"] for r in rounds])
    )
    step = np.concatenate([r.step for r in rounds])
    data = latency.to_json(total - prefix - step.sum(1), prefix, step, about)
    # A robot has one instruction for long: how long new words take is no part of what it plans with.
    known = {stage: row for stage, row in stages(rounds).items() if stage != "words"}
    return data | {"latency_ms": known}
