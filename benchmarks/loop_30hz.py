"""The beat under load: the control loop in real time, beside a policy server that is never idle.

Three processes: this one, the control loop of the simulated arm, which renders its own frames; the
policy server, its child; and a third, which asks the same server again as soon as it has an answer.
The loop passes when no two ticks came bunched, that is closer than half a period. What a tick
that overran costs is skipped and counted.

    python benchmarks/loop_30hz.py --seconds 60 --rate 30
"""

from __future__ import annotations

import json as jsonlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from runtime import loop
from runtime.budget import Budget, limits, table
from runtime.client import RemotePolicy
from runtime.clock import Clock, MonotonicClock, Ticker
from runtime.planner import Planner
from runtime.run import without_collections
from runtime.safety import Filter, Limits
from runtime.spawn import spawn
from sim.evaluate import SHIPPED, machine, percentiles
from sim.robot import make
from vla.contract import Observation, PolicySpec, TaktError, check_match

RESULTS = Path(__file__).resolve().parent / "results"
INSTRUCTION = "put the red cube in the blue bowl"
PEERS = 2  # of the third process: while one is answered, the other waits


class Recorder(Ticker):
    """A ticker that remembers its ticks.

    Attributes:
        ticks: (scheduled, now), s, of every tick.
    """

    def __init__(self, clock: Clock, period: float) -> None:
        super().__init__(clock, period)
        self.ticks: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[tuple[float, float]]:
        for scheduled, now in super().__iter__():
            self.ticks.append((scheduled, now))
            yield scheduled, now


@dataclass
class Command:
    """Measure the control loop's beat while the policy server is kept busy."""

    bundle: Path = SHIPPED
    """The policy, a bundle's folder."""
    seconds: float = 60.0
    """How long."""
    rate: float = 30.0
    """Ticks a second."""
    threads: int = 1
    """Threads of the server's engine."""
    json: Path = RESULTS / "loop_30hz.json"
    """Where to write the result."""

    def run(self) -> int:
        if not (self.rate > 0 and self.seconds > 0):
            raise TaktError("--rate and --seconds are positive")
        with spawn(self.bundle, threads=self.threads) as (address, child), hammered(address) as requests:
            report = self._measure(address, child.pid, requests)
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        self._print(report)
        return 0 if report["bunched"] == 0 else 1

    def _measure(self, address: str, server: int, requests: Callable[[], int]) -> dict[str, Any]:
        robot = make()
        with RemotePolicy(address) as policy, robot:
            check_match(policy.spec, robot.spec)
            policy.infer(replace(robot.read(), instruction=INSTRUCTION))
            policy.reset(0)
            clock, budget = MonotonicClock(), Budget()
            ticker, planner = Recorder(clock, 1.0 / self.rate), Planner(policy.spec, policy)
            safety = Filter(Limits.of(robot.spec))
            before = (requests(), processor_time(server), time.monotonic())
            with without_collections():
                result = loop.run(
                    robot, planner, ticker, budget, INSTRUCTION, safety,
                    until=loop.lasting(clock, self.seconds), patience=self.seconds,
                )  # fmt: skip
            asked, busy, took = (
                now - then
                for now, then in zip(
                    (requests(), processor_time(server), time.monotonic()), before, strict=True
                )
            )
            Console().print(table(budget, limits(policy.spec, 1.0 / self.rate, planner.replan)))
        return {
            "machine": machine(),
            "rate": self.rate,
            "seconds": took,
            **beat(ticker),
            "loop": result.to_json(),
            "latency_ms": budget.to_json(),
            "server": {"busy": busy / took, "requests_of_others": asked, "threads": self.threads},
        }

    def _print(self, report: dict[str, Any]) -> None:
        out = Table(title=f"{self.rate:g} Hz for {report['seconds']:.0f} s")
        out.add_column("what")
        out.add_column("measured", justify="right")
        for name in ("p50", "p99", "max"):
            out.add_row(f"lateness {name}", f"{report['lateness_ms'][name]:.2f} ms")
        period = 1000.0 / self.rate
        out.add_row("smallest gap between ticks", f"{report['gap_ms']['min']:.2f} of {period:.2f} ms")
        out.add_row("ticks bunched (closer than half a period)", str(report["bunched"]))
        out.add_row("ticks", str(report["ticks"]))
        out.add_row("ticks skipped", str(report["skipped"]))
        out.add_row("chunks answered", f"{report['loop']['answered']} of {report['loop']['asked']}")
        out.add_row("server busy", f"{100 * report['server']['busy']:.0f} % of a core")
        out.add_row("requests of others answered", str(report["server"]["requests_of_others"]))
        Console().print(out)


def beat(ticker: Recorder) -> dict[str, Any]:
    """How regular the ticks were; the first one, which starts the grid, included."""
    scheduled, now = np.array(ticker.ticks).T
    gaps = np.diff(now)
    if not len(gaps):
        raise TaktError("the run was too short for two ticks: raise --seconds")
    return {
        "ticks": len(now),
        "skipped": ticker.skipped,
        "lateness_ms": percentiles((now - scheduled) * 1e3),
        "gap_ms": {"min": float(gaps.min() * 1e3), "max": float(gaps.max() * 1e3)},
        "bunched": int((gaps < 0.5 * ticker.period).sum()),
    }


def processor_time(process: int) -> float:
    """Seconds a process has computed so far; nan where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- the third process


@contextmanager
def hammered(address: str) -> Iterator[Callable[[], int]]:
    """Another process asks the server without a pause; yields a function: its requests answered so far."""
    context = multiprocessing.get_context("spawn")
    stop, count = context.Event(), context.Value("q", 0)
    process = context.Process(target=hammer, args=(address, stop, count), daemon=True)
    process.start()
    try:
        while count.value < 2 * PEERS:
            if not process.is_alive():
                raise TaktError("the process that keeps the server busy ended before it began")
            time.sleep(0.05)
        yield lambda: count.value
    finally:
        stop.set()
        process.join(5.0)
        if process.is_alive():
            process.kill()
            process.join()


def hammer(address: str, stop: Any, count: Any) -> None:
    """Ask again as soon as an answer is there."""
    peers = [RemotePolicy(address) for _ in range(PEERS)]
    seen = noise(peers[0].spec)
    for peer in peers:
        peer.submit(replace(seen, time=time.monotonic()))
    while not stop.is_set():
        quiet = True
        for peer in peers:
            for _ in peer.poll():
                quiet = False
                count.value += 1
                peer.submit(replace(seen, time=time.monotonic()))
        if quiet:
            time.sleep(0.0005)
    for peer in peers:
        peer.close()


def noise(spec: PolicySpec) -> Observation:
    rng = np.random.default_rng(0)
    frames = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras}
    return Observation(0.0, np.zeros(len(spec.state), np.float32), frames, INSTRUCTION)


def main() -> int:
    try:
        return tyro.cli(Command).run()
    except TaktError as error:
        print(f"takt: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
