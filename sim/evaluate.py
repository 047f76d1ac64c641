"""`takt eval`: episodes of a suite in simulated time; success as n/N with an interval.

Each episode is a function of its seed: the policy's noise starts from it, inference runs on one
thread and never batched, and the clock is simulated. So any number of workers gives the same list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runtime import engines, joining
from runtime.bundle import sha256
from runtime.latency import parse
from runtime.machine import machine
from runtime.policies import HUB, open_policy
from runtime.think import WORLDLY
from runtime.think import parse as parse_think
from sim import cluster, expert, foresight, journal, outcome, pool, talking
from sim.compare import compare, lines
from sim.play import STAGES, Options, make_suite
from sim.report import build
from sim.report.result import TITLES, Result
from sim.score import both, by_task, percentiles, score, waited
from vla import atomic
from vla.contract import TaktError

SHIPPED = Path(__file__).resolve().parent.parent / "vla" / "bundles" / "nano"


@dataclass
class Command:
    """Evaluate a policy on a suite in simulated time."""

    suite: str = "tabletop"
    """tabletop; metaworld, libero, gym:FILE (docs/suites.md); or the name of an installed one."""
    policy: str = str(SHIPPED)
    """A bundle's or checkpoint's folder, hub:OWNER/NAME@COMMIT, the name of an installed policy, or expert:
    what the suite's own script does."""
    episodes: int = 100
    """How many seeds, of each task where the suite is a list of tasks; with --swap each is five episodes."""
    tasks: str | None = None
    """Of a suite that is a list of tasks, these alone: NAME,NAME."""
    seed: int = 10_000
    """The first seed; demonstrations use seeds from one million on."""
    split: str = "seen"
    """seen; phrasings or combinations: wordings, or combinations of thing and target, never trained on."""
    swap: bool = False
    """Let language alone decide: two tasks on a table, two in swapped roles, one that has nothing to do."""
    long: bool = False
    """Sentences of 2 to 4 goals in place of single ones (docs/prompting.md)."""
    at_once: bool = False
    """With --long: give the policy the whole sentence, and make no plan of it."""
    corrections: bool = False
    """Say "no, the blue one" at a random moment before the grasp, and look which thing ends moved."""
    latency: str = "0ms"
    """Simulated time from an observation to its chunk, while physics goes on: 120ms, lognormal:80ms,0.3
    (median, sigma), or PROFILE.json of takt bench --profile."""
    join: str | None = None
    """How chunks are joined: naive, hold, ensemble, rtc; by default rtc where the policy can, else naive."""
    rate: float | None = None
    """Ticks a simulated second; by default as many as the suite takes commands."""
    workers: int = 1
    """Processes."""
    engine: str = engines.DEFAULT
    """What runs a bundle: onnx, cuda, ort-tensorrt, openvino, tensorrt, tensorrt-rtx; NAME:PRECISION."""
    think: str | None = None
    """Chunks drawn at each request and who takes one: N or N:JUDGE, of coherence, critic, refuse, world."""
    noise: float = 0.0
    """Bursts that push the tabletop's arm off its way, of this strength; demonstrations have 1."""
    ray: str | None = None
    """Play on a Ray cluster: its address, auto, or local for one of this machine; --workers actors."""
    journal: Path | None = None
    """Append each seed's result to this file as it comes; what is in it already is not played again."""
    shard: str = "1/1"
    """Which part of the seeds, as 2/4: the others are for other machines; see --merge."""
    merge: tuple[Path, ...] = ()
    """Play nothing: report what the --journal files of a run's shards hold."""
    compare: tuple[Path, Path] | None = None
    """Play nothing: compare two results of --json on the episodes that both have."""
    json: Path | None = None
    """Where to write the result."""
    report: Path | None = None
    """A folder for report.html, report.json, episodes.csv and films of episodes, failures first."""

    def run(self) -> int:
        if self.compare is not None:
            found = compare(*self.compare)
            print("\n".join(lines(found)))
            if self.json:
                atomic.write_json(self.json, found)
            return 0
        if self.long or self.corrections or self.at_once:
            return talking.run(self)
        pace = outcome.Pace(self.workers, here=self.ray is None)
        report = self.measure()
        if self.json:
            atomic.write_json(self.json, report)
        self._print(report, None if self.merge or self.journal else pace)
        if self.report:
            result, policy = build.player(Result(report), self.policy, SHIPPED)
            print(f"report: {build.folder(result, policy or self.policy, self.report).resolve()}")
        broken = [e for e in report["episodes"] if "error" in e]
        return 1 if len(broken) == len(report["episodes"]) else 0

    def measure(self) -> dict[str, Any]:
        """What `run` writes; the gate of an export asks for it."""
        suite, join = self._check()
        seeds = outcome.seeds(suite, self.seed, self.episodes, self.tasks)
        if self.merge:
            whole = partial(outcome.seeds, suite, tasks=self.tasks)
            asked, results = journal.merged(list(self.merge), whole)
            wanted = self._asked(join) | {"machine": asked.get("machine")}
            journal.differs(self.merge[0], asked, wanted, (journal.SHARD,))
            return self._report(suite, join, [results[seed] for seed in seeds])
        first, count = shard(self.shard)
        return self._report(suite, join, list(self._progress(seeds[first::count], join)))

    def _asked(self, join: str) -> dict[str, Any]:
        """All that decides what episodes come to."""
        manifest = Path(self.policy) / "manifest.json"
        policy = sha256(manifest) if manifest.is_file() else self.policy
        tasks = {"tasks": self.tasks} if self.tasks else {}
        # What a name does not say of a suite: its mapping file, its sentences.
        tasks |= {"identity": i} if (i := getattr(make_suite(self.suite), "identity", "")) else {}
        return tasks | {
            "suite": self.suite, "policy": policy, "split": self.split, "swap": self.swap, "join": join,
            "latency": parse(self.latency).to_json(), "rate": self.rate, "seed": self.seed,
            "episodes": self.episodes, "engine": self.engine, "shard": self.shard,
            "think": self.think, "noise": self.noise, "machine": machine(),
        }  # fmt: skip

    def _check(self) -> tuple[Any, str]:
        """The suite, and how chunks will be joined."""
        suite = make_suite(self.suite)
        if self.split not in suite.splits:
            raise TaktError(
                f"suite {self.suite!r} has no split {self.split!r}; valid: {', '.join(suite.splits)}"
            )
        if not (self.episodes >= 1 and 1 <= self.workers <= 64 and 0 <= self.seed < 2**62):
            raise TaktError("--episodes is at least 1, --workers from 1 to 64, --seed from 0 to 2^62")
        shard(self.shard)
        rate: float = getattr(suite, "rate", 30.0) if self.rate is None else self.rate
        self.rate = rate
        if not 1 <= rate <= 240:
            raise TaktError("--rate is from 1 to 240 ticks a second")
        if parse(self.latency).median > suite.seconds:
            raise TaktError(f"--latency {self.latency} is longer than an episode, {suite.seconds:g} s")
        # A broken bundle, or a joining that it cannot do, is refused here, before workers start.
        think = parse_think(self.think)
        if think is not None and self.policy == expert.NAME:
            raise TaktError("--think is for a bundle, and the expert is none")
        if think is not None and think.judge in WORLDLY:
            foresight.check(suite)
        if not 0 <= self.noise <= 10 or (self.noise and self.suite != "tabletop"):
            raise TaktError("--noise is from 0 to 10, and of the suite tabletop")
        asked = expert.spec(suite) if self.policy == expert.NAME else None
        asked = asked or open_policy(self.policy, engine=self.engine, think=think).spec
        return suite, joining.make(self.join, asked).name

    def _progress(self, jobs: Sequence[int], join: str) -> Iterator[dict[str, Any]]:
        """Results in the order of the seeds, with a bar and the running success."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("evaluating", total=len(jobs))
            k = n = 0
            for result in self._results(jobs, join):
                yield result
                k += sum(e["success"] for e in result["episodes"])
                n += len(result["episodes"])
                bar.update(task, advance=1, description=f"{k}/{n} succeeded")

    def _results(self, jobs: Sequence[int], join: str) -> Iterator[dict[str, Any]]:
        late, rate = parse(self.latency), self.rate
        assert rate is not None  # `_check` has seen to it
        options = Options(
            self.suite, self.policy, self.split, self.swap, late, self.join, rate, self.engine, self.think,
            self.noise,
        )  # fmt: skip
        if self.journal is None:
            yield from (result for _, result in self._played(options, jobs))
            return
        kept = journal.Journal(self.journal, self._asked(join))
        try:
            played = self._played(options, [seed for seed in jobs if seed not in kept.results])
            for seed in jobs:
                if seed not in kept.results:
                    kept.put(*next(played))
                yield kept.results[seed]
        finally:
            kept.close()

    def _played(self, options: Options, seeds: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        if self.ray is not None:
            return cluster.results(options, seeds, self.workers, self.ray)
        return pool.results(options, seeds, self.workers)

    def _report(self, suite: Any, join: str, results: list[dict[str, Any]]) -> dict[str, Any]:
        every = [e for r in results for e in r["episodes"]]
        episodes = [e for e in every if not e["group"]]
        stages = {s: np.array([v for r in results for v in r["stages"].get(s, [])]) * 1e3 for s in STAGES}
        report = {
            "suite": self.suite,
            "policy": self.policy if self.policy.startswith(HUB) else Path(self.policy).name,
            "engine": self.engine,
            "split": self.split,
            "swap": self.swap,
            "machine": machine(),
            "latency": {"given": self.latency, **parse(self.latency).to_json(), **waited(results)},
            "join": join,
            "rate": self.rate,
            **({"think": self.think} if self.think else {}),
            **({"noise": self.noise} if self.noise else {}),
            "seeds": [self.seed, self.seed + len(outcome.seeds(suite, self.seed, self.episodes)) - 1],
            "episodes": every,
            "success": score([e["success"] for e in episodes]),
            "tasks": by_task(episodes),
            "latency_ms": {s: percentiles(v) for s, v in stages.items() if len(v)},
            "jerk": float(np.mean([j for r in results for j in r["jerk"]] or [0.0])),
        }
        if hasattr(suite, "seeds"):  # --episodes are of each task
            report["asked"] = {"episodes": self.episodes, "tasks": self.tasks}
        if self.shard != "1/1":
            report["shard"] = self.shard
        if self.swap:
            report["pairs"] = score([both(r["episodes"], "") for r in results])
        for group in sorted({e["group"] for e in every} - {""}):
            of_group = [e for e in every if e["group"] == group]
            report[group] = score([e["success"] for e in of_group])
            if len(of_group) > len(results):
                report[f"{group}_pairs"] = score([both(r["episodes"], group) for r in results])
        return report | outcome.more(suite, every, results)

    def _print(self, report: dict[str, Any], pace: outcome.Pace | None) -> None:
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
        for more in outcome.lines(report, pace):
            print(more)
        broken = [e for e in report["episodes"] if "error" in e]
        if broken:
            print(
                f"{len(broken)} ended in an error; the first, seed {broken[0]['seed']}: {broken[0]['error']}"
            )
        for stage, row in report["latency_ms"].items():
            print(f"  {stage:10s} p50 {row['p50']:.2f} ms  p95 {row['p95']:.2f}  p99 {row['p99']:.2f}")


def shard(text: str) -> tuple[int, int]:
    """(first, step) of the seeds of "2/4", which are those of number 1, 5, 9 ...

    Raises:
        TaktError: it is no part of a whole.
    """
    part, _, whole = text.partition("/")
    if not (part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole) <= 10_000):
        raise TaktError(f"--shard is PART/WHOLE, 2/4 for example; got {text!r}")
    return int(part) - 1, int(whole)
