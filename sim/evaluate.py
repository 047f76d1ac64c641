"""`takt eval`: episodes of a suite in simulated time; success as n/N with an interval.

Each episode is a function of its seed: the policy's noise starts from it, inference runs on one
thread and never batched, and the clock is simulated. So any number of workers gives the same list.
"""

from __future__ import annotations

import json as jsonlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runtime import engines, joining, loop
from runtime.budget import Budget
from runtime.clock import SimulatedClock, Ticker
from runtime.guard import Guard
from runtime.machine import machine
from runtime.planner import InlineLink, Planner
from runtime.policies import open_policy
from runtime.spawn import follow
from runtime.watchdogs import Watch
from sim.statistics import jerk, wilson
from vla.contract import Observation, Prefix, TaktError, check_match

SHIPPED = Path(__file__).resolve().parent.parent / "vla" / "bundles" / "nano"
STAGES = ("words", "preprocess", "prefix", "steps")
TITLES = {
    "pairs": "both of a pair",
    "roles": "roles swapped",
    "roles_pairs": "both of a pair of swapped roles",
    "absent": "nothing moved where nothing is to be done",
}


def make_suite(name: str) -> Any:
    """The suite an installed package offers under this name (entry points `takt.suites`).

    Raises:
        TaktError: no such name; the line lists the valid ones.
    """
    found = {entry.name: entry for entry in entry_points(group="takt.suites")}
    if name not in found:
        raise TaktError(f"no suite {name!r}; valid: {', '.join(sorted(found)) or 'none is installed'}")
    return found[name].load()


@dataclass
class Command:
    """Evaluate a policy on a suite in simulated time."""

    suite: str = "tabletop"
    """The suite's name."""
    policy: str = str(SHIPPED)
    """A bundle's folder, or the name of an installed policy."""
    episodes: int = 100
    """How many seeds; with --swap each is five episodes."""
    seed: int = 10_000
    """The first seed; demonstrations use seeds from one million on."""
    split: str = "seen"
    """seen; phrasings or combinations: wordings, or combinations of thing and target, never trained on."""
    swap: bool = False
    """Let language alone decide: two tasks on a table, two in swapped roles, one that has nothing to do."""
    latency: str = "0ms"
    """Simulated time from an observation to its chunk, as 120ms or 0.12s; physics goes on meanwhile."""
    join: str | None = None
    """How chunks are joined: naive, hold, ensemble, rtc; by default rtc where the policy can, else naive."""
    rate: float = 30.0
    """Ticks a simulated second."""
    workers: int = 1
    """Processes."""
    engine: str = engines.DEFAULT
    """What runs a bundle: onnx, cuda, ort-tensorrt, openvino, tensorrt, tensorrt-rtx; NAME:PRECISION."""
    json: Path | None = None
    """Where to write the result."""

    def run(self) -> int:
        suite, join = self._check()
        jobs = list(range(self.seed, self.seed + self.episodes))
        results = list(self._progress(jobs))
        report = self._report(suite.name, join, results)
        if self.json:
            self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        self._print(report)
        return 0

    def _check(self) -> tuple[Any, str]:
        """The suite, and how chunks will be joined."""
        suite = make_suite(self.suite)
        if self.split not in suite.splits:
            raise TaktError(
                f"suite {self.suite!r} has no split {self.split!r}; valid: {', '.join(suite.splits)}"
            )
        if not (self.episodes >= 1 and 1 <= self.workers <= 64 and 0 <= self.seed < 2**62):
            raise TaktError("--episodes is at least 1, --workers from 1 to 64, --seed from 0 to 2^62")
        if not 1 <= self.rate <= 240:
            raise TaktError("--rate is from 1 to 240 ticks a second")
        if duration(self.latency) > suite.seconds:
            raise TaktError(f"--latency {self.latency} is longer than an episode, {suite.seconds:g} s")
        # A broken bundle, or a joining that it cannot do, is refused here, before workers start.
        return suite, joining.make(self.join, open_policy(self.policy, engine=self.engine).spec).name

    def _progress(self, jobs: list[int]) -> Iterator[dict[str, Any]]:
        """Results in the order of the seeds, with a bar and the running success."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("evaluating", total=len(jobs))
            k = n = 0
            for result in self._results(jobs):
                yield result
                k += sum(e["success"] for e in result["episodes"])
                n += len(result["episodes"])
                bar.update(task, advance=1, description=f"{k}/{n} succeeded")

    def _results(self, jobs: list[int]) -> Iterator[dict[str, Any]]:
        options = Options(
            self.suite, self.policy, self.split, self.swap, duration(self.latency), self.join, self.rate,
            self.engine,
        )  # fmt: skip
        if self.workers == 1:
            start(options)
            yield from map(play, jobs)
            return
        # Spawned, never forked: GL contexts and engines do not survive a fork.
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(self.workers, context, start, (options, os.getpid())) as pool:
                yield from pool.map(play, jobs)
        except BrokenProcessPool:
            raise TaktError("a worker process was killed (out of memory?): try fewer --workers") from None

    def _report(self, suite: str, join: str, results: list[dict[str, Any]]) -> dict[str, Any]:
        every = [e for r in results for e in r["episodes"]]
        episodes = [e for e in every if not e["group"]]
        stages = {s: np.array([v for r in results for v in r["stages"].get(s, [])]) * 1e3 for s in STAGES}
        report = {
            "suite": suite,
            "policy": Path(self.policy).name,
            "engine": self.engine,
            "split": self.split,
            "swap": self.swap,
            "machine": machine(),
            "latency": self.latency,
            "join": join,
            "rate": self.rate,
            "seeds": [self.seed, self.seed + self.episodes - 1],
            "episodes": every,
            "success": score([e["success"] for e in episodes]),
            "tasks": by_task(episodes),
            "latency_ms": {s: percentiles(v) for s, v in stages.items() if len(v)},
            "jerk": float(np.mean([j for r in results for j in r["jerk"]])),
        }
        if self.swap:
            report["pairs"] = score([both(r["episodes"], "") for r in results])
        for group in sorted({e["group"] for e in every} - {""}):
            of_group = [e for e in every if e["group"] == group]
            report[group] = score([e["success"] for e in of_group])
            if len(of_group) > len(results):
                report[f"{group}_pairs"] = score([both(r["episodes"], group) for r in results])
        return report

    def _print(self, report: dict[str, Any]) -> None:
        def line(name: str, s: dict[str, Any]) -> str:
            low, high = (100 * v for v in s["ci95"])
            return (
                f"{name}: {s['k']}/{s['n']} = {100 * s['rate']:.1f} %  (95 % Wilson {low:.1f} .. {high:.1f})"
            )

        print(line(f"{report['suite']}, {report['split']}{', swap' if self.swap else ''}", report["success"]))
        for name, row in report["tasks"].items():
            print("  " + line(name, row))
        for key in ("pairs", "roles", "roles_pairs", "absent"):
            if key in report:
                print(line(TITLES[key], report[key]))
        for stage, row in report["latency_ms"].items():
            print(f"  {stage:10s} p50 {row['p50']:.2f} ms  p95 {row['p95']:.2f}  p99 {row['p99']:.2f}")


def by_task(episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The score of each kind of task, by name."""
    names = sorted({e["task"] for e in episodes})
    return {name: score([e["success"] for e in episodes if e["task"] == name]) for name in names}


def both(episodes: list[dict[str, Any]], group: str) -> bool:
    """Whether every episode of a seed's group succeeded."""
    return all(e["success"] for e in episodes if e["group"] == group)


def duration(text: str) -> float:
    """Seconds in "120ms" or "0.12s".

    Raises:
        TaktError: it is neither.
    """
    for suffix, unit in (("ms", 1e-3), ("s", 1.0)):
        number = text.removesuffix(suffix)
        if number != text:
            try:
                value = float(number) * unit
            except ValueError:
                break
            if np.isfinite(value) and value >= 0:
                return value
            break
    raise TaktError(f"--latency {text!r} is not a duration; write 120ms or 0.12s")


def score(outcomes: list[bool]) -> dict[str, Any]:
    n, k = len(outcomes), int(sum(outcomes))
    return {"n": n, "k": k, "rate": k / n, "ci95": list(wilson(k, n))}


def percentiles(values: np.ndarray) -> dict[str, float]:
    p50, p95, p99, most = np.quantile(values, [0.5, 0.95, 0.99, 1.0])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(most)}


# -- a worker: one world and one policy a process, kept between episodes


@dataclass(frozen=True)
class Options:
    """What every episode of a run has in common; `latency` in s."""

    suite: str
    policy: str
    split: str
    swap: bool
    latency: float
    join: str | None
    rate: float
    engine: str = engines.DEFAULT

    @property
    def period(self) -> float:
        return 1.0 / self.rate


class _Worker:
    def __init__(self, options: Options) -> None:
        self.options, self.suite = options, make_suite(options.suite)
        self.robot = self.suite.robot(SimulatedClock())
        self.policy = open_policy(options.policy, threads=1, engine=options.engine)
        check_match(self.policy.spec, self.robot.spec)


_options: Options | None = None
_worker: _Worker | None = None


def start(options: Options, parent: int | None = None) -> None:
    """A worker process begins, to end with `parent`. It is built at its first seed, where an error
    reaches the user.
    """
    global _options, _worker
    if parent is not None:
        follow(parent)
    _options, _worker = options, None


def play(seed: int) -> dict[str, Any]:
    """All episodes of one seed: their outcomes, the stages' seconds and the jerk."""
    global _worker
    assert _options is not None
    _worker = _worker or _Worker(_options)
    stages: dict[str, list[float]] = {name: [] for name in STAGES}
    episodes, jerks = [], []
    for scenario in _worker.suite.scenarios(seed, _options.split, _options.swap):
        episode, joints = obey(_worker, scenario, stages)
        episodes.append(episode)
        jerks.append(jerk(joints, _options.period))
    return {"episodes": episodes, "jerk": jerks, "stages": stages}


def obey(w: _Worker, scenario: Any, stages: dict[str, list[float]]) -> tuple[dict[str, Any], np.ndarray]:
    """One episode; its row of the report and the measured joints at every tick, shape (T, A)."""
    # Time begins anew: how its sums are rounded must not depend on what was played before.
    w.robot.clock = clock = SimulatedClock()
    scenario.lay(w.robot)
    w.policy.reset(scenario.seed)
    begun = clock.now()
    period = w.options.period
    link = _Listening(InlineLink(w.policy, w.options.latency, clock), stages)
    planner = Planner(w.policy.spec, link, join=w.options.join, period=period)
    goal = Goal(scenario, w.robot.world, scenario.settle, begun, begun + scenario.seconds)
    joints: list[np.ndarray] = []

    def watch(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
        joints.append(seen.state)

    result = loop.run(
        w.robot, planner, Ticker(clock, period), Budget(64), scenario.instruction,
        Guard(w.robot.spec, Watch(patience=scenario.seconds)), goal, on_tick=watch,
    )  # fmt: skip
    row = {
        "task": scenario.task,
        "group": scenario.group,
        "instruction": scenario.instruction,
        "seed": scenario.seed,
        "success": goal.reached,
        "steps": result.ticks,
        "sim_seconds": round(result.ticks * period, 4),
        "held": result.held,
    }
    return row, np.array(joints)


class Goal:
    """An `until`: success that has lasted, or the time is up.

    Attributes:
        reached: whether success has lasted `settle` s.
        took: from the beginning to that success, s.
    """

    def __init__(self, scenario: Any, world: Any, settle: float, begun: float, end: float) -> None:
        self.scenario, self.world, self.settle, self.begun, self.end = scenario, world, settle, begun, end
        self.took = float("inf")
        self.since: float | None = None
        self.reached = False

    def __call__(self, now: float) -> bool:
        if not self.scenario.successful(self.world):
            self.since = None
        elif self.since is None:
            self.since, self.took = now, now - self.begun
        self.reached = self.since is not None and now - self.since >= self.settle - 1e-9
        return self.reached or now >= self.end


class _Listening:
    """A link that notes how long the stages of each answer took."""

    def __init__(self, link: InlineLink, stages: dict[str, list[float]]) -> None:
        self._link, self._stages = link, stages

    lost, link_up = 0, True

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        return self._link.submit(observation, prefix, deadline)

    def poll(self) -> list[Any]:
        chunks = self._link.poll()
        for chunk in chunks:
            for name in STAGES:
                if name in chunk.stages:
                    self._stages[name].append(chunk.stages[name])
        return chunks
