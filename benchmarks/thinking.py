"""Success against the number of candidates, by who judges them: the same tables, bursts and latencies.

    python benchmarks/thinking.py --workers 2
    python benchmarks/thinking.py --think 1 4:world --episodes 100 --latency 0ms --noise 0

    python benchmarks/thinking.py --costs

Of each request N chunks are drawn from one look at the frames (one prefix, one batch of steps), and a judge
takes one (runtime/think.py). Every row is compared with the first on the same tables by McNemar's exact test.
Beside success stands what a chunk costs here: with --costs all that need no simulator are timed in turns, one
thread, and that is added to what the file has; the medians within the episodes, where other work may go on,
are there for all.
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _command import main
from rich.console import Console
from rich.table import Table

from runtime.bundle import load
from runtime.engines import open_bundle
from runtime.machine import machine
from runtime.think import WORLDLY, parse
from sim import evaluate
from sim.evaluate import SHIPPED
from sim.statistics import mcnemar
from vla.contract import Observation

RESULTS = Path(__file__).parent / "results" / "thinking.json"
COSTS = ("prefix", "steps", "judge")
WARM = 5  # turns that do not count


@dataclass
class Command:
    """Evaluate a bundle that draws several candidates."""

    bundle: Path = SHIPPED
    """The policy."""
    think: tuple[str, ...] = (
        "1", "4", "16", "4:critic", "16:critic", "4:refuse", "4:world", "16:world",
    )  # fmt: skip
    """N or N:JUDGE; the first is what the others are compared with."""
    episodes: int = 300
    """Tables, the same for all."""
    seed: int = 20_000
    """The first one."""
    latency: str = "lognormal:200ms,0.3"
    """As takt eval --latency."""
    noise: float = 1.0
    """As takt eval --noise."""
    workers: int = 1
    """Processes."""
    costs: bool = False
    """Play nothing: time a chunk of each, in turns, and add that to the file."""
    rounds: int = 60
    """Turns."""
    json: Path = RESULTS
    """Where to write the result, after every row."""

    def run(self) -> int:
        if self.costs:
            return self._time()
        for think in self.think:
            parse(think)
        rows: list[dict[str, Any]] = []
        outcomes: list[list[bool]] = []
        with tempfile.TemporaryDirectory() as folder:
            for think in self.think:
                row, mine = self._row(think, Path(folder, "row.json"))
                outcomes.append(mine)
                rows.append(row | self._against(outcomes))
                self._write(rows)
        Console().print(table(rows))
        return 0

    def _time(self) -> int:
        report = jsonlib.loads(self.json.read_text())
        bundle, took = load(self.bundle), dict[str, list[float]]()
        thinks = {t: think for t in self.think if (think := parse(t)) and think.judge not in WORLDLY}
        policies = {t: open_bundle(bundle, think=think) for t, think in thinks.items()}
        rng = np.random.default_rng(0)
        sizes = {c.name: (c.height, c.width, 3) for c in bundle.spec.cameras}
        frames = {name: rng.integers(0, 256, size, np.uint8) for name, size in sizes.items()}
        seen = Observation(0.0, np.zeros(len(bundle.spec.state), np.float32), frames, "lift the red cube")
        for turn in range(self.rounds + WARM):
            for name, policy in policies.items():
                begun = time.perf_counter()
                policy.infer(seen)
                if turn >= WARM:
                    took.setdefault(name, []).append(1e3 * (time.perf_counter() - begun))
        p50 = {name: float(np.median(times)) for name, times in took.items()}
        report["costs"] = {
            "rounds": self.rounds, "load": round(os.getloadavg()[0], 1), "p50_ms": p50,
            "ratio": {n: float(np.median(np.divide(t, took[self.think[0]]))) for n, t in took.items()},
        }  # fmt: skip
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        for name, ms in p50.items():
            print(f"{name:12} {ms:7.2f} ms  {report['costs']['ratio'][name]:.2f}x")
        return 0

    def _row(self, think: str, out: Path) -> tuple[dict[str, Any], list[bool]]:
        print(f"{think}: ", end="", flush=True)
        evaluate.Command(
            policy=str(self.bundle), episodes=self.episodes, seed=self.seed, workers=self.workers,
            latency=self.latency, noise=self.noise, think=think, json=out,
        ).run()  # fmt: skip
        report = jsonlib.loads(out.read_text())
        costs = {name: report["latency_ms"][name]["p50"] for name in COSTS if name in report["latency_ms"]}
        row = {"think": think} | {key: report[key] for key in ("success", "tasks", "jerk")}
        row |= {"p50_ms": costs, "chunk_ms": sum(costs.values()), "load": round(os.getloadavg()[0], 1)}
        return row, [e["success"] for e in report["episodes"]]

    def _against(self, outcomes: list[list[bool]]) -> dict[str, Any]:
        pairs = list(zip(outcomes[-1], outcomes[0], strict=True))
        return {
            "won": sum(a and not b for a, b in pairs),
            "lost": sum(b and not a for a, b in pairs),
            "p": mcnemar(outcomes[-1], outcomes[0]),
        }

    def _write(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["cost"] = row["chunk_ms"] / rows[0]["chunk_ms"]
        report = {
            "machine": machine(), "bundle": self.bundle.name, "latency": self.latency, "noise": self.noise,
            "episodes": self.episodes, "seeds": [self.seed, self.seed + self.episodes - 1], "rows": rows,
        }  # fmt: skip
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(title="candidates, judged; won, lost and p against the first row (McNemar, paired)")
    for column in ("think", "success", "95 %", "won", "lost", "p", "chunk, ms", "cost", "jerk"):
        out.add_column(column, justify="left" if column == "think" else "right")
    for row in rows:
        s = row["success"]
        low, high = (100 * v for v in s["ci95"])
        out.add_row(
            row["think"], f"{s['k']}/{s['n']}", f"{low:.0f} .. {high:.0f}", str(row["won"]), str(row["lost"]),
            f"{row['p']:.2g}", f"{row['chunk_ms']:.1f}", f"{row['cost']:.2f}x", f"{row['jerk']:.0f}",
        )  # fmt: skip
    return out


if __name__ == "__main__":
    sys.exit(main(Command))
