"""Does looking cost the beat? One arm's loop without a page, with one nobody looks at, and with viewers.

    alone       the loop, without a console
    unwatched   its page is served and nobody has opened it
    one, two    so many viewers read all that a page is sent, in processes of their own: browsers elsewhere
    browser     Chromium on this very machine shows the page, its 3D drawn by the processor where there is no
                graphics card

All drive the simulated tabletop with the shipped policy at 30 Hz, which is told to touch one thing and then
another, again and again. They take turns, `--rounds` times, with and without what `--realtime` asks for;
lateness is pooled over the rounds. `hook_us` is what a tick spends on the console: taking commands, and
sending what is to be seen.

    python benchmarks/console.py
"""

from __future__ import annotations

import json as jsonlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _command import main
from rich.console import Console
from rich.table import Table
from websockets.sync.client import connect

from runtime import console, loop, skills
from runtime.budget import Budget
from runtime.clock import MonotonicClock, Ticker
from runtime.delay import DelayedLink
from runtime.guard import Guard
from runtime.instruct import Words
from runtime.live import Live
from runtime.machine import machine
from runtime.planner import Planner
from runtime.realtime import real_time, without_collections
from runtime.run import make_robot, policy_at
from sim.evaluate import SHIPPED
from sim.score import percentiles
from vla.contract import Observation, TaktError

RESULTS = Path(__file__).resolve().parent / "results"
CASES = ("alone", "unwatched", "one", "two", "browser")
TEXTS = ("touch the red cube", "touch the blue ball")  # in turn, so that there is always something to do
NEXT = 2.0  # s after which it is told the other
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-unsafe-swiftshader",
         "--disable-dev-shm-usage", "--window-size=1280,900", "--remote-debugging-port=0")  # fmt: skip


@dataclass
class Command:
    """Measure the beat with and without a page."""

    seconds: float = 10.0
    """How long each loop runs."""
    rounds: int = 3
    """How often each has its turn; at least once."""
    rate: float = 30.0
    """Ticks a second."""
    only: tuple[str, ...] = CASES
    """Which cases."""
    json: Path = RESULTS / "console.json"
    """Where to write the result."""

    def run(self) -> int:
        cases = [c for c in self.only if c != "browser" or CHROMIUM is not None]
        runs: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        load = os.getloadavg()[0]
        for done in range(1, self.rounds + 1):
            for realtime in (True, False):
                for case in cases:
                    run = measure(case, self.seconds, self.rate, realtime)
                    runs.setdefault((case, realtime), []).append(run)
            rows = [pooled(case, realtime, found) for (case, realtime), found in runs.items()]
            self._write(rows, done, load)  # a round that breaks takes nothing with it
        Console().print(summary(rows))
        return 0

    def _write(self, rows: list[dict[str, Any]], rounds: int, load: float) -> None:
        report = {
            "machine": machine(),
            "rate": self.rate,
            "seconds": self.seconds,
            "rounds": rounds,
            "load_before": load,  # processes that wanted to run in the minute before: was the machine quiet?
            "load_after": os.getloadavg()[0],
            "rows": rows,
        }
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")


def measure(case: str, seconds: float, rate: float, realtime: bool) -> dict[str, Any]:
    """One loop; lateness in s and the console's share of each tick in s, shapes (N,), and counts."""
    clock, period = MonotonicClock(), 1.0 / rate
    robot = make_robot("tabletop")
    with ExitStack() as stack:
        policy = stack.enter_context(policy_at(str(SHIPPED), 1, timeout=60.0))
        shown = None if case == "alone" else stack.enter_context(console.opened("127.0.0.1:0"))
        stack.enter_context(robot)
        policy.infer(replace(robot.read(), instruction=TEXTS[0]))
        link = DelayedLink(policy, clock)
        planner = Planner(policy.spec, link, period=period)
        words, guard, budget = (
            Words(skills.find(policy.spec.name), TEXTS[0], robot.spec),
            Guard(robot.spec),
            Budget(),
        )
        live = None
        if shown is not None:
            live = Live(shown[0], shown[2], {"robot": "tabletop", "policy": "nano", "rate": rate}, link)
            live.begin(robot, words, planner, guard, budget)
            stack.enter_context(viewers(case, shown[1], live))
        spent: list[float] = []
        end, told = clock.now() + seconds, [clock.now()]  # when it was told something

        def until(now: float) -> bool:
            begun = time.perf_counter()
            if live is not None:
                live.until(now)
            spent.append(time.perf_counter() - begun)
            if now - told[-1] > NEXT:
                words.hear(TEXTS[len(told) % len(TEXTS)], now)
                told.append(now)
            return now >= end

        def on_tick(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
            begun = time.perf_counter()
            if live is not None:
                live.on_tick(seen, target, command)
            spent[-1] += time.perf_counter() - begun

        stack.enter_context(real_time() if realtime else without_collections())
        ticker = Ticker(clock, period)
        result = loop.run(robot, planner, ticker, budget, words, guard, until, on_tick=on_tick)
    if result.held > result.ticks / 2:
        raise TaktError(f"{case}: the arm moved in {result.ticks - result.held} of {result.ticks} ticks only")
    rows = budget.rows()
    return {
        "lateness": rows.of("lateness").seconds,
        "tick": rows.of("tick").seconds,
        "spent": np.array(spent),
        "ticks": result.ticks,
        "skipped": result.skipped,
        "held": result.held,
    }


@contextmanager
def viewers(case: str, url: str, live: Live) -> Iterator[None]:
    """Those of a case, once the console has counted them."""
    count = {"unwatched": 0, "one": 1, "two": 2, "browser": 1}[case]
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, __file__, "--look", url]
        if case == "browser":
            command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={home}", url]
        looking = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(count)
        ]
        try:
            deadline = time.monotonic() + 120
            while live.feed.viewers < count:
                live.feed.poll()
                assert time.monotonic() < deadline, "no viewer came"
                time.sleep(0.05)
            yield
        finally:
            for each in looking:
                each.terminate()
                each.wait()


def look(url: str) -> None:
    """Read all that a page is sent, until this process is ended."""
    with connect(f"{url.replace('http', 'ws')}ws", max_size=None) as viewer:
        for _ in viewer:
            pass


def pooled(case: str, realtime: bool, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The rounds of a case together."""

    def all_of(name: str) -> np.ndarray:
        return np.concatenate([run[name] for run in runs])

    skipped = [run["skipped"] for run in runs]
    return {
        "case": case,
        "realtime": realtime,
        "ticks": sum(run["ticks"] for run in runs),
        "skipped": sum(skipped),
        "held": sum(run["held"] for run in runs),
        "lateness_ms": percentiles(1e3 * all_of("lateness")),
        "lateness_p99_ms_by_round": [float(np.quantile(1e3 * run["lateness"], 0.99)) for run in runs],
        "skipped_by_round": skipped,
        "tick_ms": percentiles(1e3 * all_of("tick")),
        "hook_us": percentiles(1e6 * all_of("spent")),
    }


def summary(rows: list[dict[str, Any]]) -> Table:
    out = Table(title="the beat with a page, ms")
    for column in (
        "case",
        "realtime",
        "ticks",
        "skipped",
        "late p50",
        "p99",
        "max",
        "hook p50 us",
        "hook p99 us",
    ):
        out.add_column(column, justify="right")
    for row in rows:
        late, hook = row["lateness_ms"], row["hook_us"]
        out.add_row(
            row["case"], "yes" if row["realtime"] else "", str(row["ticks"]), str(row["skipped"]),
            *(f"{late[q]:.2f}" for q in ("p50", "p99", "max")), f"{hook['p50']:.0f}", f"{hook['p99']:.0f}",
        )  # fmt: skip
    return out


if __name__ == "__main__":
    if sys.argv[1:2] == ["--look"]:
        look(sys.argv[2])
    else:
        sys.exit(main(Command))
