"""`takt eval --long` and `--corrections`: what a plan comes to, and what a word in motion does."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runtime import joining
from runtime.latency import parse
from runtime.machine import machine
from runtime.policies import open_policy
from runtime.think import WORLDLY
from runtime.think import parse as parse_think
from sim import talk
from sim.play import Options, make_suite
from sim.score import percentiles, score
from vla import atomic
from vla.contract import TaktError

if TYPE_CHECKING:
    from sim.evaluate import Command

SUITE = "tabletop"


def run(c: Command) -> int:
    """Play, print, write."""
    _check(c)
    suite = make_suite(c.suite)
    policy = open_policy(c.policy, threads=1, engine=c.engine, think=parse_think(c.think))
    join = joining.make(c.join, policy.spec).name
    rate = suite.rate if c.rate is None else c.rate
    options = Options(
        c.suite, c.policy, "seen", False, parse(c.latency), join, rate, c.engine, c.think, c.noise
    )  # fmt: skip
    kind = "corrections" if c.corrections else "at once" if c.at_once else "plan"
    seeds = range(c.seed, c.seed + c.episodes)
    rows = list(_progress(talk.Talk(options, kind), seeds, c.workers))
    about = {
        "suite": c.suite, "policy": c.policy, "engine": c.engine, "kind": kind, "machine": machine(),
        "latency": {"given": c.latency, **parse(c.latency).to_json()}, "join": join, "rate": rate,
        "seeds": [seeds[0], seeds[-1]], "replan_s": policy.spec.replan, "think": c.think, "noise": c.noise,
    }  # fmt: skip
    report = about | (_corrected(rows) if c.corrections else _long(rows)) | {"episodes": rows}
    if c.json:
        atomic.write_json(c.json, report)
    print("\n".join(_lines(report)))
    return 0


def _check(c: Command) -> None:
    if c.suite != SUITE:
        raise TaktError(f"--long and --corrections are for --suite {SUITE}: no other suite draws sentences")
    if c.at_once and not c.long:
        raise TaktError("--at-once is how --long is obeyed: give both")
    if c.long and c.corrections:
        raise TaktError("--long or --corrections: one of them")
    if (
        c.swap
        or c.journal
        or c.merge
        or c.ray
        or c.report
        or c.tasks
        or c.shard != "1/1"
        or c.split != "seen"
    ):
        raise TaktError(
            "--long and --corrections take --episodes --seed --latency --join --engine --think --noise "
            "--workers --json alone"
        )
    think = parse_think(c.think)
    if think is not None and think.judge in WORLDLY:
        raise TaktError(f"--think {c.think}: that judge knows one task, and a sentence has several")
    if not 0 <= c.noise <= 10:
        raise TaktError("--noise is from 0 to 10")
    if c.episodes < 1 or c.workers < 1:
        raise TaktError("--episodes and --workers are 1 or more")


def _progress(job: talk.Talk, seeds: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    bar = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*bar, console=Console(stderr=True)) as progress:
        yield from progress.track(_rows(job, seeds, workers), len(seeds), description=job.kind)


def _rows(job: talk.Talk, seeds: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    """One row a seed, in the order of the seeds."""
    if workers == 1:
        talk.start(job)
        try:
            yield from map(talk.play, seeds)
        finally:
            talk.finish()
        return
    context = multiprocessing.get_context("spawn")  # GL contexts and engines do not survive a fork
    with ProcessPoolExecutor(workers, context, talk.start, (job, os.getpid())) as pool:
        yield from pool.map(talk.play, seeds)


def _long(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Success of the whole and of each goal; what was claimed against what was."""
    goals = [goal for row in rows for goal in row["goals"]]
    out: dict[str, Any] = {"success": score([row["success"] for row in rows])}
    out["goals"] = score([goal["reached"] for goal in goals])
    out["by_goals"] = {
        str(n): score([row["success"] for row in rows if len(row["goals"]) == n])
        for n in sorted({len(row["goals"]) for row in rows})
    }
    verbs = sorted({goal["goal"].split()[0] for goal in goals})
    out["by_verb"] = {
        verb: score([goal["reached"] for goal in goals if goal["goal"].split()[0] == verb]) for verb in verbs
    }
    claims = Counter(tuple(claim) for row in rows for claim in row.get("claims", []))
    if claims:
        out["claims"] = {
            f"said {said}, {'was' if true else 'was not'}": count
            for (said, true), count in sorted(claims.items())
        }
    return out


def _corrected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Which thing ended moved, and how soon the commands changed."""
    reactions = [row["reaction_s"] for row in rows if row["reaction_s"] is not None]
    return {
        "named_moved": score([row["named_moved"] for row in rows]),
        "success": score([row["success"] for row in rows]),
        "first_moved": score([row["first_moved"] for row in rows]),
        "unchanged": sum(row["reaction_s"] is None for row in rows),
        "reaction_s": percentiles(np.array(reactions)) if reactions else {},
    }


def _lines(report: dict[str, Any]) -> Iterator[str]:
    names = {
        "success": "the whole" if report["kind"] != "corrections" else "the named thing is where it belongs",
        "goals": "goals",
        "named_moved": "the named thing is the one that moved",
        "first_moved": "the one named first moved",
    }
    for key, name in names.items():
        if key in report:
            yield _line(name, report[key])
    for key in ("by_goals", "by_verb"):
        for name, row in report.get(key, {}).items():
            yield "  " + _line(f"{name} goals" if key == "by_goals" else name, row)
    for name, count in report.get("claims", {}).items():
        yield f"  {name}: {count}"
    if report.get("reaction_s"):
        r = report["reaction_s"]
        yield (
            f"first changed command p50 {1e3 * r['p50']:.0f} ms, p95 {1e3 * r['p95']:.0f}, "
            f"max {1e3 * r['max']:.0f} after the word; chunks come every {1e3 * report['replan_s']:.0f} ms"
        )


def _line(name: str, s: dict[str, Any]) -> str:
    low, high = (100 * v for v in s["ci95"])
    return f"{name}: {s['k']}/{s['n']} = {100 * s['rate']:.1f} %  (95 % Wilson {low:.1f} .. {high:.1f})"
