"""The beat under load: control loops one after the other, beside processes that never sleep.

    plain             runtime.loop on a grid whose phase is locked, as any user may run it
    paced             the same turn, paced as LeRobot's record loop does: sleep for what is left of 1/fps
    real-time         plain, with what `--realtime` asks for
    one more thread   real-time, with a second Python thread in the process that is never idle

Each loop drives a robot with a policy that a server in a process of its own answers. Around them run
`--hogs` processes that only count, and with `--hammer` one that asks the same server again as soon as it
has an answer. The command passes when the ticks of plain and real-time never came bunched, that is closer
than half a period; what a tick that overran costs is skipped and counted.

    python benchmarks/loop.py                              # 200 Hz, two hogs
    python benchmarks/loop.py --rate 30 --robot tabletop --hogs 0 --hammer --only plain \\
        --json benchmarks/results/loop_30hz.json           # the arm renders, the server is kept busy
"""

from __future__ import annotations

import json as jsonlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _command import main
from rich.console import Console
from rich.table import Table

from runtime import loop, trace
from runtime.budget import Budget, limits, table
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from runtime.machine import machine
from runtime.planner import Planner
from runtime.realtime import line, real_time, without_collections
from runtime.run import make_robot
from runtime.spawn import spawn
from runtime.watchdogs import Watch
from sim.evaluate import SHIPPED
from sim.score import percentiles
from vla.contract import Observation, PolicySpec, TaktError, check_match

RESULTS = Path(__file__).resolve().parent / "results"
INSTRUCTION = "put the red cube in the blue bowl"
PEERS = 2  # of the process that hammers: while one is answered, the other waits
LOOPS = ("plain", "paced", "real-time", "one more thread")
HOG = "from runtime.child import follow\nfollow({parent})\nwhile True: pass"


class Recorder(Ticker):
    """Another's ticks, remembered.

    Attributes:
        ticks: (scheduled, now), s, of every tick.
    """

    def __init__(self, ticker: Ticker) -> None:
        super().__init__(ticker.clock, ticker.period)
        self._ticker = ticker
        self.ticks: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[tuple[float, float]]:
        for tick in self._ticker:
            self.skipped = self._ticker.skipped
            self.ticks.append(tick)
            yield tick


class Paced(Ticker):
    """Turns that sleep for what is left of a period, measured from each turn's own beginning: how late a
    sleep wakes is added to the turns that follow, so that the phase drifts.
    """

    def __iter__(self) -> Iterator[tuple[float, float]]:
        start, k = time.monotonic(), 0
        while True:
            begun = time.monotonic()
            yield start + k * self.period, begun
            k += 1
            time.sleep(max(self.period - (time.monotonic() - begun), 0.0))


@dataclass
class Command:
    """Measure control loops' beats beside processes that never sleep."""

    bundle: Path = SHIPPED
    """The policy, a bundle's folder."""
    robot: str = "dryrun"
    """The robot's name."""
    seconds: float = 60.0
    """How long each loop runs."""
    rate: float = 200.0
    """Ticks a second."""
    hogs: int = 2
    """Processes that only count."""
    hammer: bool = False
    """Keep the policy server busy as well."""
    only: tuple[str, ...] = LOOPS
    """Which loops."""
    threads: int = 1
    """Threads of the server's engine."""
    trace: Path | None = None
    """A folder for a timeline of each run."""
    json: Path = RESULTS / "loop.json"
    """Where to write the result."""

    def run(self) -> int:
        self._check()
        load = os.getloadavg()[0]
        with ExitStack() as stack:
            address, child = stack.enter_context(spawn(self.bundle, threads=self.threads))
            requests = stack.enter_context(hammered(address)) if self.hammer else lambda: 0
            stack.enter_context(hogs(self.hogs))
            loops = [self._measure(name, address, child.pid, requests) for name in self.only]
        report = {
            "machine": machine(),
            "robot": self.robot,
            "rate": self.rate,
            "hogs": self.hogs,
            "hammer": self.hammer,
            "load_before": load,  # processes that wanted to run in the minute before: was the machine quiet?
            "loops": loops,
        }
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        Console().print(summary(report))
        return 1 if any(row["bunched"] for row in loops if row["name"] in ("plain", "real-time")) else 0

    def _check(self) -> None:
        if not (self.rate > 0 and self.seconds > 0 and self.hogs >= 0):
            raise TaktError("--rate and --seconds are positive, --hogs is 0 or more")
        if unknown := set(self.only) - set(LOOPS):
            raise TaktError(f"--only {', '.join(sorted(unknown))}: valid are {', '.join(map(repr, LOOPS))}")

    def _measure(self, name: str, address: str, server: int, requests: Callable[[], int]) -> dict[str, Any]:
        clock, budget = MonotonicClock(), Budget(int(10 * self.rate * self.seconds) + 4096)
        ticker = Recorder((Paced if name == "paced" else Ticker)(clock, 1.0 / self.rate))
        with RemotePolicy(address) as policy, make_robot(self.robot) as robot:
            check_match(policy.spec, robot.spec)
            policy.infer(replace(robot.read(), instruction=INSTRUCTION))
            policy.reset(0)
            planner, guard = Planner(policy.spec, policy), Guard(robot.spec, Watch(patience=self.seconds))
            with scheduling(name) as rights:
                before = (requests(), processor_time(server), time.monotonic())
                result = loop.run(
                    robot, planner, ticker, budget, INSTRUCTION, guard,
                    until=loop.lasting(clock, self.seconds),
                )  # fmt: skip
                after = (requests(), processor_time(server), time.monotonic())
            asked, busy, took = (now - then for now, then in zip(after, before, strict=True))
            Console().print(f"[bold]{name}[/bold]  {rights}")
            Console().print(table(budget, limits(policy.spec, 1.0 / self.rate, planner.replan)))
        if self.trace is not None:
            self.trace.mkdir(parents=True, exist_ok=True)
            about = {"policy": self.bundle.name, "robot": self.robot, "rate": self.rate, "loop": name}
            trace.write(self.trace / f"{name.replace(' ', '-')}.json", budget, about)
        return {
            "name": name,
            "scheduling": rights,
            "seconds": took,
            **beat(ticker.ticks, 1.0 / self.rate),
            "skipped": ticker.skipped,
            "loop": result.to_json(),
            "latency_ms": budget.to_json(),
            "server": {"busy": busy / took, "requests_of_others": asked, "threads": self.threads},
        }


def beat(ticks: list[tuple[float, float]], period: float) -> dict[str, Any]:
    """How regular the ticks (scheduled, now) were; the first one, which starts the grid, included."""
    scheduled, now = np.array(ticks).T
    lateness = now - scheduled
    gaps = np.diff(now)
    if not len(gaps):
        raise TaktError("the run was too short for two ticks: raise --seconds")
    return {
        "ticks": len(now),
        "lateness_ms": percentiles(lateness * 1e3),
        "gap_ms": {"min": float(gaps.min() * 1e3), "max": float(gaps.max() * 1e3)},
        "gap_error_ms": percentiles(np.abs(gaps - period) * 1e3),
        "bunched": int((gaps < 0.5 * period).sum()),
        "drift_ms": float((lateness[-1] - lateness[0]) * 1e3),
    }


def summary(report: dict[str, Any]) -> Table:
    """All loops side by side."""
    seconds = report["loops"][0]["seconds"]
    out = Table(title=f"{report['rate']:g} Hz for {seconds:.0f} s each, {report['hogs']} hogs")
    out.add_column("")
    rows: dict[str, list[str]] = {}
    for one in report["loops"]:
        out.add_column(one["name"], justify="right")
        cells = {f"lateness {q}, ms": f"{one['lateness_ms'][q]:.3f}" for q in ("p50", "p99", "max")}
        cells |= {f"gap off the period by {q}, ms": f"{one['gap_error_ms'][q]:.3f}" for q in ("p50", "p99")}
        cells["drift, ms"] = f"{one['drift_ms']:.1f}"
        cells["ticks"] = str(one["ticks"])
        cells["skipped"] = str(one["skipped"])
        cells["bunched (closer than half a period)"] = str(one["bunched"])
        cells["chunks answered"] = f"{one['loop']['answered']} of {one['loop']['asked']}"
        cells["server busy, % of a core"] = f"{100 * one['server']['busy']:.0f}"
        cells["requests of others"] = str(one["server"]["requests_of_others"])
        for what, value in cells.items():
            rows.setdefault(what, []).append(value)
    for what, values in rows.items():
        out.add_row(what, *values)
    return out


def processor_time(process: int) -> float:
    """Seconds a process has computed so far; nan where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- what runs with the loop


@contextmanager
def scheduling(name: str) -> Iterator[str]:
    """The loop's rights and company; yields what was granted, in a line."""
    with ExitStack() as stack:
        if name in ("real-time", "one more thread"):
            granted = line(stack.enter_context(real_time()))
        else:
            stack.enter_context(without_collections())
            granted = "ordinary priority"
        if name == "one more thread":
            stack.enter_context(counting())
        yield granted


@contextmanager
def counting() -> Iterator[None]:
    """A Python thread that is never idle, such as one that decodes what cameras send."""
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that only count; they end with this one, however it ends.

    Each has a session of its own, as a program from another terminal or a service has: Linux shares the
    cores between sessions first (autogroups), and a hog in the loop's own session takes from its share.
    """
    code = HOG.format(parent=os.getpid())
    processes = [subprocess.Popen([sys.executable, "-c", code], start_new_session=True) for _ in range(count)]
    try:
        time.sleep(0.5)
        if any(process.poll() is not None for process in processes):
            raise TaktError("a process that only counts ended before the loops began")
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


# -- the process that keeps the server busy


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


if __name__ == "__main__":
    sys.exit(main(Command))
