"""SmolVLA on a CPU: LeRobot against ours, in torch (plain, bfloat16, folded, compiled) and exported to ONNX,
played by ONNX Runtime and by OpenVINO.

The full size, 450 M parameters, random weights, two views, 10 steps, a chunk of 50 rows. Each variant is a
process of its own; they take turns, so that whatever else the machine does hits all alike. It wants LeRobot:
`make parity`.

    python benchmarks/smolvla_cpu.py --rounds 5
"""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _command import main
from rich.console import Console
from rich.table import Table

from runtime.machine import machine
from vla.contract import TaktError

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-parity/bin/python"
WORKER = ROOT / "benchmarks/_smolvla_worker.py"
ORACLE = ROOT / "tests/parity/oracle.py"
PEER = "lerobot"
VARIANTS = (
    PEER,
    "ours fp32",
    "ours bf16",
    "ours fp32 folded",
    "ours bf16 folded",
    "ours fp32 folded compiled",
    "ours bf16 folded compiled",
    "onnx fp32",
    "onnx int8",
    "onnx int8, whole",
    "openvino fp32",
    "openvino bf16",
    "openvino int8",
    "openvino int8, bf16",
)
STAGES = ("vision", "language", "steps", "total")
# What `takt export` is told for the bundles: sensitive parts as they are, or everything in int8.
EXPORTS = {
    "fp32": [],
    "int8": ["--precision", "int8"],
    "int8, whole": ["--precision", "int8", "--keep", "(?!)"],
    "int8, static": ["--precision", "int8", "--static"],
}


@dataclass
class Command:
    """Compare the latency of a chunk of SmolVLA between LeRobot and ours on this CPU."""

    rounds: int = 5
    """Each round measures every variant once."""
    threads: int = 2
    """Of torch, in every variant."""
    size: str = "full"
    """full, or tiny to try the script."""
    lerobot_python: Path = PYTHON
    """The interpreter that has LeRobot."""
    variants: tuple[str, ...] = ()
    """Only these; LeRobot's is always the first."""
    folder: Path | None = None
    """Where the policy's folder is kept, and taken from where it is there; a temporary one by default."""
    json: Path = ROOT / "benchmarks/results/smolvla_cpu.json"
    """Where to write the result."""

    def run(self) -> int:
        if not set(self.variants) <= set(VARIANTS) or (self.variants and self.variants[0] != PEER):
            raise TaktError(f"--variants are, {PEER} first: {', '.join(VARIANTS)}")
        if self.rounds < 1 or self.threads < 1 or self.size not in ("full", "tiny"):
            raise TaktError("--rounds and --threads are at least 1, --size is full or tiny")
        if not self.lerobot_python.is_file():
            raise TaktError(f"{self.lerobot_python} is missing: make parity, or say --lerobot-python")
        with tempfile.TemporaryDirectory() as temporary:
            folder = (self.folder or Path(temporary)) / "smolvla"
            if not folder.is_dir():
                job = [["smolvla", "smolvla", self.size, {"cameras": 2}]]
                run([self.lerobot_python, "-W", "ignore", ORACLE, folder.parent, jsonlib.dumps(job)])
            export(folder)
            begun: list[Worker] = []
            try:
                for name in self.variants or VARIANTS:
                    begun.append(Worker(name, folder, self.threads, self.lerobot_python))
                for _ in range(self.rounds):
                    for worker in begun:
                        worker.measure()
                floor = Worker("floor", folder, self.threads, self.lerobot_python)
                begun.append(floor)
            finally:
                for worker in begun:
                    worker.close()
        report = self._report({worker.name: worker for worker in begun[:-1]}) | {"floor": floor.ready}
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        self._print(report)
        return 0

    def _report(self, workers: dict[str, Worker]) -> dict[str, Any]:
        truth, variants = workers[PEER].actions, list[dict[str, Any]]()
        for name, worker in workers.items():
            stages = {s: [1e3 * row[s] for row in worker.rows if s in row] for s in STAGES}
            error = np.abs(worker.actions - truth) / np.abs(truth).max()
            variants.append({
                "name": name,
                "precision": "bf16" if "bf16" in name else "fp32",
                "stages_ms": {s: {"p50": float(np.median(v)), "min": min(v)} for s, v in stages.items() if v},
                "peak_rss_mb": worker.peak,
                "action_error": {"mean": float(error.mean()), "max": float(error.max())},
            })  # fmt: skip
        base = variants[0]["stages_ms"]
        for variant in variants:
            took = variant["stages_ms"]
            variant["ratio"] = {s: base[s]["p50"] / took[s]["p50"] for s in took}
            if "vision" not in took:  # a graph that looks and reads at once
                both = base["vision"]["p50"] + base["language"]["p50"]
                variant["ratio"]["language"] = both / took["language"]["p50"]
        return {
            "machine": machine(),
            "policy": f"SmolVLA, {self.size} size, random weights",
            "views": 2,
            "steps": 10,
            "rounds": self.rounds,
            "threads": self.threads,
            "against": "LeRobot 0.4.4, eager, fp32",
            "variants": variants,
        }

    def _print(self, report: dict[str, Any]) -> None:
        table = Table(
            title=f"{report['policy']}: a chunk, p50 in ms (times LeRobot's), {self.threads} threads"
        )
        for column in ("", *STAGES, "peak RSS, MB", "largest action error"):
            table.add_column(column)
        for v in report["variants"]:
            took = v["stages_ms"]
            cells = [f"{took[s]['p50']:.0f} ({v['ratio'][s]:.2f}x)" if s in took else "" for s in STAGES]
            table.add_row(v["name"], *cells, f"{v['peak_rss_mb']:.0f}", f"{v['action_error']['max']:.1e}")
        table.caption = "of the graphs, language holds vision as well"
        Console().print(table)
        floor = report["floor"]
        peak, bandwidth = floor["peak_gflops"], floor["bandwidth_gbs"]
        print(f"floor of this machine, fp32: {peak:.0f} GFLOP/s, {bandwidth:.1f} GB/s")
        for stage, row in floor["stages"].items():
            print(
                f"  {stage}: {row['gflop']:.1f} GFLOP, {row['gbytes']:.2f} GB of weights: "
                f"{row['compute_ms']:.0f} ms of products, {row['memory_ms']:.0f} ms of reading"
            )


class Worker:
    """A variant's process.

    Attributes:
        ready: what it said when it was. actions: shape (H, A). peak: memory, MB.
        rows: seconds of the stages, of each chunk.
    """

    def __init__(self, name: str, folder: Path, threads: int, lerobot: Path, script: Path = WORKER) -> None:
        python = lerobot if name == PEER else Path(sys.executable)
        command = [str(each) for each in (python, "-W", "ignore", script, name, folder, threads)]
        self.name, self.rows = name, list[dict[str, float]]()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=None if name == PEER else {**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.ready = self._answer()
        self.actions, self.peak = np.array(self.ready.get("actions")), self.ready.get("peak_rss_mb")

    def measure(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.rows.append(self._answer())

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("="):
                return jsonlib.loads(line[1:])
        raise TaktError(
            f"{self.name} ended early (exit status {self._process.wait()}); its message stands above"
        )


def export(folder: Path) -> None:
    """The bundles beside the folder, where they are not there yet."""
    for name, flags in EXPORTS.items():
        out = folder.parent / f"bundle {name}"
        if not out.is_dir():
            source = folder if name == "fp32" else folder.parent / "bundle fp32"
            more = ["--tolerance", "1", *flags] if flags else ["--no-dynamic-batch"]
            run([sys.executable, "-m", "vla", "export", source, out, "--samples", "2", *more])


def run(command: Sequence[object]) -> None:
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode:
        raise TaktError(f"{command[0]} could not write the policy; its message stands above")


if __name__ == "__main__":
    sys.exit(main(Command))
