"""ACT on a CPU: LeRobot against ours, in torch and exported, played by ONNX Runtime and by OpenVINO.

LeRobot's default size, 52 M parameters (ResNet-18, 4 encoder layers), random weights, 480x640 views, a chunk
of 100 rows. Each variant is a process of its own and they take turns. It wants LeRobot: `make parity`.

    python benchmarks/act_cpu.py --rounds 20
"""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _command import main
from rich.console import Console
from rich.table import Table
from smolvla_cpu import ORACLE, PEER, PYTHON, ROOT, Worker, run

from runtime.machine import machine
from vla.contract import TaktError

SCRIPT = ROOT / "benchmarks/_act_worker.py"
# Variant -> what it plays, of EXPORTS or the folder itself, and the engine.
VARIANTS = {
    PEER: ("", ""),
    "ours fp32": ("", "torch"),
    "onnx fp32": ("fp32", "onnx"),
    "onnx int8": ("int8", "onnx"),
    "openvino fp32": ("fp32", "openvino"),
    "openvino bf16": ("fp32", "openvino:bf16"),
    "openvino int8": ("int8, static", "openvino"),
    "openvino int8, bf16": ("int8, static", "openvino:bf16"),
}
EXPORTS = {
    "fp32": ["--no-dynamic-batch"],
    "int8": ["--precision", "int8", "--tolerance", "1", "--samples", "4"],
    "int8, static": ["--precision", "int8", "--static", "--tolerance", "1", "--samples", "4"],
}


@dataclass
class Command:
    """Compare the latency of a chunk of ACT between LeRobot and ours on this CPU."""

    rounds: int = 20
    """Each round measures every variant once."""
    threads: int = 2
    """Of torch and of the engines, in every variant."""
    views: int = 2
    """Cameras of 480x640."""
    size: str = "full"
    """full, or tiny to try the script."""
    lerobot_python: Path = PYTHON
    """The interpreter that has LeRobot."""
    json: Path = ROOT / "benchmarks/results/act_cpu.json"
    """Where to write the result."""

    def run(self) -> int:
        if min(self.rounds, self.threads, self.views) < 1 or self.size not in ("full", "tiny"):
            raise TaktError("--rounds, --threads and --views are at least 1, --size is full or tiny")
        if not self.lerobot_python.is_file():
            raise TaktError(f"{self.lerobot_python} is missing: make parity, or say --lerobot-python")
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "act"
            job = [["act", "act", self.size, {"cameras": self.views}]]
            run([self.lerobot_python, "-W", "ignore", ORACLE, folder.parent, jsonlib.dumps(job)])
            enlarge(folder / "config.json")
            for name, flags in EXPORTS.items():
                source = folder if name == "fp32" else folder.parent / "fp32"
                run([sys.executable, "-m", "vla", "export", source, folder.parent / name, *flags])
            begun: list[Worker] = []
            try:
                for bundle, engine in VARIANTS.values():
                    place = folder.parent / bundle if bundle else folder
                    label = f"{place}={engine}" if engine else PEER
                    begun.append(Worker(label, folder, self.threads, self.lerobot_python, SCRIPT))
                for _ in range(self.rounds):
                    for worker in begun:
                        worker.measure()
            finally:
                for worker in begun:
                    worker.close()
        report = self._report(dict(zip(VARIANTS, begun, strict=True)))
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        self._print(report)
        return 0

    def _report(self, workers: dict[str, Worker]) -> dict[str, Any]:
        truth, rows = workers[PEER].actions, list[dict[str, Any]]()
        for name, worker in workers.items():
            took = [1e3 * row["total"] for row in worker.rows]
            error = np.abs(worker.actions - truth) / np.abs(truth).max()
            rows.append(
                {
                    "name": name,
                    "total_ms": {"p50": float(np.median(took)), "min": min(took), "max": max(took)},
                    "peak_rss_mb": worker.peak,
                    "action_error": {"mean": float(error.mean()), "max": float(error.max())},
                }
            )
        for row in rows:
            row["ratio"] = rows[0]["total_ms"]["p50"] / row["total_ms"]["p50"]
        return {
            "machine": machine(),
            "policy": f"ACT, {self.size} size, random weights",
            "views": self.views,
            "rounds": self.rounds,
            "threads": self.threads,
            "against": "LeRobot 0.4.4, eager, fp32, its processors included",
            "error": "of the largest action",
            "variants": rows,
        }

    def _print(self, report: dict[str, Any]) -> None:
        table = Table(title=f"{report['policy']}: a chunk, ms, {self.threads} threads, {self.views} views")
        for column in ("", "p50", "times LeRobot", "peak RSS, MB", "action error, mean / max"):
            table.add_column(column)
        for row in report["variants"]:
            error = row["action_error"]
            table.add_row(
                row["name"], f"{row['total_ms']['p50']:.1f}", f"{row['ratio']:.2f}x",
                f"{row['peak_rss_mb']:.0f}", f"{error['mean']:.1e} / {error['max']:.1e}",
            )  # fmt: skip
        Console().print(table)


def enlarge(config: Path) -> None:
    """Let the policy's cameras have 480x640; the weights are the same for any size."""
    said = jsonlib.loads(config.read_text())
    for feature in said["input_features"].values():
        if feature["type"] == "VISUAL":
            feature["shape"] = [3, 480, 640]
    config.write_text(jsonlib.dumps(said))


if __name__ == "__main__":
    sys.exit(main(Command))
