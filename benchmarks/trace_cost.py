"""What recording costs the control loop: a tick's marks with and without a budget, in turn, in one run.

The ticks do nothing else, so that the difference is the recording alone. Beside it, what one row costs in
the containers that the ring could have been made of.

    python benchmarks/trace_cost.py
"""

from __future__ import annotations

import json as jsonlib
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _command import main

from runtime.budget import Budget
from runtime.machine import machine
from runtime.realtime import without_collections
from vla.contract import ActionChunk, TaktError

RESULTS = Path(__file__).resolve().parent / "results"
LIMIT = 20.0  # us a tick
BLOCK = 1000  # ticks in a row with, then without
EVERY = 6  # ticks a chunk: one in 0.2 s at 30 Hz
STEPS = 10


class Silent(Budget):
    """Takes the same calls and records nothing."""

    def begin(self, lateness: float, skipped: int) -> None:
        pass

    def mark(self, stage: str) -> None:
        pass

    def end(self) -> None:
        pass

    def answer(self, chunk: ActionChunk, now: float) -> None:
        pass


def chunk(now: float) -> ActionChunk:
    stages = {"queue": 1e-4, "words": 1e-5, "preprocess": 1e-4, "prefix": 2e-3, "steps": 1e-3}
    return ActionChunk(now - 0.01, 0.1, np.zeros((12, 6)), stages, (1e-4,) * STEPS, now - 0.005)


def ticks(budget: Budget, count: int) -> np.ndarray:
    """Seconds of each of `count` ticks that only record, shape (count,)."""
    seconds, answer = np.zeros(count), chunk(time.monotonic())
    for i in range(count):
        begun = time.perf_counter()
        budget.begin(1e-5, 0)
        budget.mark("capture")
        budget.mark("send")
        budget.mark("receive")
        budget.mark("filter")
        budget.mark("write")
        budget.end()
        if i % EVERY == 0:
            budget.answer(answer, answer.time + 0.01)
        seconds[i] = time.perf_counter() - begun
    return seconds


def containers(rows: int) -> dict[str, float]:
    """us a row of (name, start, seconds, number), the best of five passes, in what the ring could be."""
    capacity, codes = 4096, "hddq"
    record = np.zeros(capacity, [("name", "i2"), ("start", "f8"), ("seconds", "f8"), ("number", "i8")])
    columns: dict[str, tuple[Any, ...]] = {
        "four arrays": tuple(array(c, [0]) * capacity for c in codes),
        "four numpy arrays": tuple(np.zeros(capacity, c) for c in codes),
        "four lists": tuple([0] * capacity for _ in codes),
    }

    def four(columns: tuple[Any, ...]) -> Callable[[int, float], None]:
        a, b, c, d = columns

        def put(i: int, now: float) -> None:
            a[i], b[i], c[i], d[i] = 3, now, 0.5, i

        return put

    def one(i: int, now: float) -> None:
        record[i] = (3, now, 0.5, i)

    puts = {name: four(c) for name, c in columns.items()} | {"one numpy record": one}
    out = {}
    for name, put in puts.items():
        passes = []
        for _ in range(5):
            begun = time.perf_counter()
            for i in range(rows):
                put(i % capacity, begun)
            passes.append((time.perf_counter() - begun) / rows * 1e6)
        out[name] = min(passes)
    return out


@dataclass
class Command:
    """Measure what recording costs a tick."""

    ticks: int = 60_000
    """Ticks of each kind."""
    json: Path = RESULTS / "trace_cost.json"
    """Where to write the result."""

    def run(self) -> int:
        if self.ticks < BLOCK:
            raise TaktError(f"--ticks is at least {BLOCK}")
        budgets = {"recording": Budget(), "silent": Silent(16)}
        taken: dict[str, list[np.ndarray]] = {name: [] for name in budgets}
        with without_collections():
            for _ in range(self.ticks // BLOCK):
                for name, budget in budgets.items():
                    taken[name].append(ticks(budget, BLOCK))
        us = {name: summary(np.concatenate(blocks) * 1e6) for name, blocks in taken.items()}
        cost = us["recording"]["mean"] - us["silent"]["mean"]
        report: dict[str, Any] = {
            "machine": machine(),
            "ticks": self.ticks,
            "chunk": f"one in {EVERY} ticks, of {STEPS} steps",
            "us_a_tick": us,
            "cost_us": cost,
            "limit_us": LIMIT,
            "us_a_row": containers(self.ticks),
        }
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        print(f"recording costs {cost:.1f} us a tick; the limit is {LIMIT:g}")
        for name, value in report["us_a_row"].items():
            print(f"  a row in {name:18} {value:.2f} us")
        return 0 if cost < LIMIT else 1


def summary(us: np.ndarray) -> dict[str, float]:
    p50, p99 = np.quantile(us, [0.5, 0.99])
    return {"mean": float(us.mean()), "p50": float(p50), "p99": float(p99), "max": float(us.max())}


if __name__ == "__main__":
    sys.exit(main(Command))
