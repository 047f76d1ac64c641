"""From an evaluation to its page: what is read, what is played again, and that the page stays small."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.latency import parse
from runtime.policies import HUB
from sim import expert
from sim.foreign.process import HostError
from sim.report import page, scene3d
from sim.report.page import Parts
from sim.report.pictures import Curves, Point
from sim.report.replay import Replay, choose, watch
from sim.report.result import Result, is_score
from vla.contract import TaktError

LIMIT = 20_000_000  # bytes of the page: what mail and wikis take
SUCCESSES = 2  # filmed after the failures
IN_3D = 2
COLUMNS = (
    "seed", "task", "group", "instruction", "success", "steps", "sim_seconds",
    "held", "dry", "skipped", "asked", "late", "jerk", "error",
)  # fmt: skip


def build(
    result: Result,
    policy: str | None,
    out: Path,
    videos: int = 8,
    others: Sequence[Result] = (),
    curve: dict[str, Any] | None = None,
) -> tuple[Path, list[Replay]]:
    """Write the page; where it lies, and the episodes that were played again for it.

    Args:
        policy: what plays episodes again; None where it is not known.
        videos: failures to film, at the most.
        others: evaluations on the same seeds, each beside this one.
        curve: what benchmarks/latency_curve.py wrote.

    Raises:
        TaktError: the others do not compare, `curve` is none, or the page cannot be written.
    """
    parts = Parts(result, list(others), curves(result, others, curve), of_curves(curve))
    page.render(parts)  # what cannot be shown is refused before minutes go into films
    replays, not_filmed = films(result, policy, videos)
    parts = replace(parts, replays=replays, not_filmed=not_filmed)
    seen = _in_3d(replays)
    if seen:
        try:
            client, scenes = scene3d.record(seen)
            parts = replace(parts, client=client, scenes=scenes)
        except TaktError as error:
            parts = replace(parts, not_in_3d=str(error))
    text = page.render(parts)
    while len(text.encode()) >= LIMIT and (parts.scenes or parts.replays):
        # The largest first: 3D, then the last films.
        parts = replace(parts, scenes={}) if parts.scenes else replace(parts, replays=parts.replays[:-1])
        text = page.render(parts)
    write(out, text)
    return out, parts.replays


def films(result: Result, policy: str | None, videos: int) -> tuple[list[Replay], str]:
    """Episodes played again, or why there are none."""
    if videos == 0:
        return [], "none were asked for"
    if policy is None:
        return [], f"where the policy {result.data['policy']!r} lies is not known; say --policy"
    chosen = choose(result.episodes, videos, SUCCESSES)
    if not chosen:
        return [], "every episode ended in an error"
    try:
        return list(watch(result, policy, chosen)), ""
    except (TaktError, HostError) as error:
        return [], str(error)


def _in_3d(replays: list[Replay]) -> list[Replay]:
    """The first failure and the first success."""
    good = [r for r in replays if r.row["success"]][:1]
    bad = [r for r in replays if not r.row["success"]][: IN_3D - len(good)]
    return bad + good


def curves(result: Result, others: Sequence[Result], given: dict[str, Any] | None) -> Curves:
    """Points by the way of joining: those of a latency curve, else of evaluations that differ in latency."""
    out: Curves = {}
    if given is not None:
        try:
            for row in given["rows"]:
                late = row["latency"]
                ms = late["ms"] if "ms" in late else late.get("median_ms", late["drawn_ms"]["p50"])
                if not is_score(row["success"]):
                    raise ValueError("success")
                out.setdefault(str(row["join"]), []).append(_point(float(ms), row["success"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            out = {}
        if not out:
            raise TaktError("--curve is no JSON of benchmarks/latency_curve.py")
        return out
    for each in (result, *others):
        late = each.data.get("latency")
        drawn = late.get("drawn_ms") if isinstance(late, dict) else None
        ms = drawn["p50"] if drawn else 1e3 * parse(each.latency).median
        named = f"{each.data.get('join')}" if each.data["policy"] == result.data["policy"] else each.name()
        out.setdefault(named, []).append(_point(ms, each.data["success"]))
    return out if len({p.x for points in out.values() for p in points}) > 1 else {}


def of_curves(given: dict[str, Any] | None) -> str:
    """What the points of `curves` are, in a sentence."""
    if given is None:
        return "The points are this evaluation and those beside it."
    return (
        f"Policy {given.get('bundle', '?')}, {given.get('episodes', '?')} episodes a point, the same at each."
    )


def _point(ms: float, score: dict[str, Any]) -> Point:
    return Point(ms, score["k"], score["n"], score["rate"], *score["ci95"])


def folder(result: Result, policy: str, out: Path) -> Path:
    """All of an evaluation in a folder: report.html, report.json, episodes.csv, and the films as files.

    Raises:
        TaktError: the folder cannot be written.
    """
    write(out / "report.json", json.dumps(result.data, indent=1) + "\n")
    write_csv(result.episodes, out / "episodes.csv")
    path, replays = build(result, policy, out / "report.html")
    for r in replays:
        e = result.episodes[r.index]
        verdict = "success" if e["success"] else "failure"
        write(out / f"{verdict}-{e['seed']}-{r.index}.mp4", r.mp4)
    return path


def write_csv(episodes: list[dict[str, Any]], path: Path) -> None:
    """A line an episode, with a head; empty where an episode has no such value."""
    write(path, "")
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        rows.writerows(episodes)


def write(path: Path, what: str | bytes) -> None:
    """
    Raises:
        TaktError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(what if isinstance(what, bytes) else what.encode())
    except OSError as error:
        raise TaktError(f"{path}: {error.strerror}") from None


def player(result: Result, given: str | None, shipped: Path) -> tuple[Result, str | None]:
    """The result with how its policy is given on a command line, and what plays its episodes again.

    Args:
        given: what a user said; else a policy of the hub is known by its name, the expert and the shipped
            one as well.
    """
    name = str(result.data["policy"])
    if given is not None:
        told = None if Path(given).resolve() == shipped else given
        return replace(result, policy=told), given
    if name.startswith(HUB) or name == expert.NAME:
        return replace(result, policy=name), name
    if name == shipped.name:
        return replace(result, policy=None), str(shipped)
    return replace(result, policy=name), None
