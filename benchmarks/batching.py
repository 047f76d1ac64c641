"""What a batch costs: milliseconds of the prefix and of a step, by how many chunks they answer at once.

Says whether a server gains by answering several robots in one run, what drawing several candidates adds
to a chunk, and what an open batch costs a robot that is alone. Both kinds of graphs are exported from
the same checkpoint; rounds take turns, so that whatever else the machine does hits all alike.

    python benchmarks/batching.py --rounds 30
"""

from __future__ import annotations

import gc
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
from rich.progress import track
from rich.table import Table

from export import nano_graphs
from export.graph import write
from runtime.graphs import Arrays, OnnxGraph
from runtime.machine import machine
from vla import nano, train, train_data
from vla.contract import TaktError

ROOT = Path(__file__).resolve().parent.parent
# (graph, batch open or fixed, rows)
Case = tuple[str, str, int]


@dataclass
class Command:
    """Measure prefix and step over batches."""

    checkpoint: Path = ROOT / "checkpoints/nano"
    """config.json and model.safetensors."""
    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of chunks."""
    steps: int = 4
    """Flow steps a chunk."""
    rounds: int = 30
    """Each round measures every case once."""
    runs: int = 20
    """Runs of a case and round; the fastest of a round counts in `best`, all of them in `p50`."""
    threads: int = 1
    """Of ONNX Runtime."""
    json: Path = ROOT / "benchmarks/results/batching.json"
    """Where to write the result."""

    def run(self) -> int:
        if min(self.rounds, self.runs, self.threads, self.steps, *self.batches) < 1:
            raise TaktError("--rounds, --runs, --threads, --steps and --batches are at least 1")
        load = os.getloadavg()[0]
        model = train.load(self.checkpoint).eval()
        with tempfile.TemporaryDirectory() as folder:
            graphs = {kind: self._graphs(model, Path(folder), kind) for kind in ("open", "fixed")}
        samples = self._measure(model.config, graphs)
        report = self._report(samples) | {"load": load}
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        show(report)
        return 0

    def _graphs(self, model: nano.Nano, folder: Path, kind: str) -> dict[str, OnnxGraph]:
        out = {}
        for part in (nano_graphs.prefix(model), nano_graphs.step(model)):
            file = folder / f"{part.name}.onnx"
            write(part, file, kind == "open")
            out[part.name] = OnnxGraph(file, self.threads)
        return out

    def _measure(self, c: nano.Config, graphs: dict[str, dict[str, OnnxGraph]]) -> dict[Case, np.ndarray]:
        """ms, shape (rounds, runs)."""
        cases: list[Case] = [(name, "open", rows) for name in ("prefix", "step") for rows in self.batches]
        cases += [(name, "fixed", 1) for name in ("prefix", "step")]
        out = {case: np.zeros((self.rounds, self.runs)) for case in cases}
        rng = np.random.default_rng(0)
        gc.collect()
        gc.disable()
        for turn in track(range(self.rounds), "measuring", console=Console(stderr=True), transient=True):
            for k in rng.permutation(len(cases)):  # another order each time: no one always follows another
                name, kind, rows = cases[k]
                feed = feeds(c, name, rows)
                for i in range(-3, self.runs):
                    begun = time.perf_counter()
                    graphs[kind][name](feed)
                    if i >= 0:
                        out[cases[k]][turn, i] = 1e3 * (time.perf_counter() - begun)
        gc.enable()
        return out

    def _report(self, samples: dict[Case, np.ndarray]) -> dict[str, Any]:
        def of(case: Case) -> dict[str, float]:
            ms = samples[case]
            return {"p50": float(np.median(ms)), "best": float(np.median(ms.min(1))), "min": float(ms.min())}

        rows = {
            n: {"prefix": of(("prefix", "open", n)), "step": of(("step", "open", n))} for n in self.batches
        }
        fixed = {name: of((name, "fixed", 1)) for name in ("prefix", "step")}

        def chunk(asked: int, drawn: int) -> float:
            return rows[asked]["prefix"]["best"] + self.steps * rows[drawn]["step"]["best"]

        return {
            "machine": machine(),
            "threads": self.threads,
            "steps": self.steps,
            "rounds": self.rounds,
            "runs": self.runs,
            "unit": "ms; p50 of all runs, best: median over rounds of a round's fastest",
            "batches": rows,
            "fixed_batch_of_1": fixed,
            "open_over_fixed": {n: rows[1][n]["best"] / fixed[n]["best"] for n in fixed} if 1 in rows else {},
            "batched_chunk_ms_each": {n: chunk(n, n) / n for n in rows},
            "candidates_chunk_ms": {n: chunk(1, n) for n in rows} if 1 in rows else {},
        }


def feeds(c: nano.Config, name: str, rows: int) -> Arrays:
    """Random inputs: time does not depend on what is seen."""
    rng = np.random.default_rng(rows)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0.0, 0.3, shape).astype(np.float32)

    if name == "prefix":
        frames = {f"frames_{n}": rng.integers(0, 256, (rows, c.size, c.size, 3), np.uint8) for n in c.cameras}
        mask = np.repeat((np.arange(train_data.TOKENS) < 12)[None].astype(np.int64), rows, axis=0)
        tokens = normal(rows, train_data.TOKENS, c.words)
        return frames | {"state": normal(rows, c.state), "tokens": tokens, "mask": mask}
    chunk = (rows, c.rows, c.actions)
    scalars = {"t": np.array([0.25], np.float32), "dt": np.array([0.25], np.float32)}
    rest = {"x": normal(*chunk), "kept": normal(*chunk), "kept_mask": np.zeros(chunk[:2], np.float32)}
    memory = {"memory_cond": normal(rows, c.cond), "memory_state": normal(rows, c.state)}
    return scalars | rest | memory | {"memory_still": np.zeros((rows, 1), np.float32)}


def show(report: dict[str, Any]) -> None:
    more = {k: f"{100 * (v - 1):+.0f} %" for k, v in report["open_over_fixed"].items()}
    caption = "best: median over rounds of a round's fastest run"
    caption += f"\nan open batch of one against a fixed one: {', '.join(f'{k} {v}' for k, v in more.items())}"
    if report["load"] > 0.5:
        caption += f"\nthe machine was busy (load {report['load']:.1f})"
    title = (
        f"ms, {report['threads']} thread{'s' * (report['threads'] > 1)}; a chunk has {report['steps']} steps"
    )
    out = Table(title=title, caption=caption)
    for column in ("batch", "prefix", "step", "chunk, each of the batch", "chunk, as candidates"):
        out.add_column(column, justify="right")
    for n, row in report["batches"].items():
        drawn = report["candidates_chunk_ms"].get(n)
        out.add_row(
            str(n),
            f"{row['prefix']['best']:.2f}",
            f"{row['step']['best']:.3f}",
            f"{report['batched_chunk_ms_each'][n]:.2f}",
            "" if drawn is None else f"{drawn:.2f}",
        )
    Console().print(out)


if __name__ == "__main__":
    sys.exit(main(Command))
