"""`takt eval --compare A.json B.json`: two evaluations on the same episodes, paired."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from sim.statistics import mcnemar, paired
from vla.contract import TaktError

SAME = ("suite", "split", "swap", "rate")  # what both have to have in common
POWER, LEVEL = 0.841621, 1.959964  # normal quantiles of 80 % power and of a 5 % two-sided test


def compare(one: Path, two: Path) -> dict[str, Any]:
    """By how much the second succeeds more often than the first, on the episodes that both have.

    Raises:
        TaktError: a file is no report of takt eval, or they are of different suites, or share no episode.
    """
    a, b = load(one), load(two)
    for key in SAME:
        if a.get(key) != b.get(key):
            raise TaktError(f"{one} has {key} {a.get(key)!r} and {two} {b.get(key)!r}: they do not compare")
    first, second = by_episode(a), by_episode(b)
    shared = [key for key in first if key in second]
    if not shared:
        raise TaktError(f"{one} and {two} have no episode in common: run both with the same --seed")
    before, after = [first[key] for key in shared], [second[key] for key in shared]
    n = len(shared)
    difference, low, high = paired(before, after)
    lost, won = (
        sum(pair == order for pair in zip(before, after, strict=True))
        for order in ((True, False), (False, True))
    )
    return {
        "one": {"policy": a["policy"], "k": sum(before), "n": n},
        "two": {"policy": b["policy"], "k": sum(after), "n": n},
        "left_out": len(first) + len(second) - 2 * n,
        "difference": difference,
        "ci95": [low, high],
        "only_one": lost,
        "only_two": won,
        "mcnemar_p": mcnemar(before, after),
        "detectable": detectable(n, (lost + won) / n),
    }


def detectable(n: int, discordant: float) -> float:
    """The difference of rates that n pairs show in four of five runs at the 5 % level (Connor 1987).

    Args:
        discordant: the share of episodes in which the two differ; at least one episode is assumed.
    """
    share = max(discordant, 1 / n)
    return min(1.0, (LEVEL + POWER) * math.sqrt(share / n))


def lines(found: dict[str, Any]) -> list[str]:
    """What a person reads."""
    one, two = found["one"], found["two"]
    low, high = (100 * v for v in found["ci95"])
    out = [
        f"{one['policy']}: {one['k']}/{one['n']}, {two['policy']}: {two['k']}/{two['n']}, the same episodes",
        f"difference {100 * found['difference']:+.1f} points (95 % {low:+.1f} .. {high:+.1f}), "
        f"{found['only_one']} only the first, {found['only_two']} only the second, "
        f"McNemar p {found['mcnemar_p']:.3g}",
    ]
    if found["mcnemar_p"] < 0.05:
        better = two if found["difference"] > 0 else one
        out.append(f"{better['policy']} is better, beyond what chance does in 1 of 20 such comparisons")
    else:
        out.append(
            f"too few episodes to tell them apart: {one['n']} show a difference of about "
            f"{100 * found['detectable']:.0f} points or more"
        )
    if found["left_out"]:
        out.append(f"{found['left_out']} episodes are in one of the two alone and were left out")
    return out


def load(path: Path) -> dict[str, Any]:
    """
    Raises:
        TaktError: it is no report of takt eval.
    """
    try:
        report = json.loads(path.read_text())
        good = all(isinstance(e["success"], bool) for e in report["episodes"]) and "policy" in report
    except OSError as error:
        raise TaktError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise TaktError(f"{path} is no report of takt eval --json")
    return report


def by_episode(report: dict[str, Any]) -> dict[tuple[Any, ...], bool]:
    """Success by what tells episodes of a run apart."""
    out: dict[tuple[Any, ...], bool] = {}
    for e in report["episodes"]:
        key: tuple[Any, ...] = (e["seed"], e["task"], e["group"], e["instruction"])
        while key in out:
            key = (*key, "again")
        out[key] = e["success"]
    return out
