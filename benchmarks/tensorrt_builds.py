"""What TensorRT for RTX builds of each graph, where there is no GPU: sizes and CPU seconds, by precision.

Nano has its weights; the plain policy has the sizes that training gives it, and SmolVLA, pi0 and pi0.5 are
scaled down, with random weights: an engine's size and time do not ask for their values. Nothing is run.

    python benchmarks/tensorrt_builds.py
"""

from __future__ import annotations

import json as jsonlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _command import main

from export import expert_graphs, graph, nano_graphs, plain_graphs, quantise, tensorrt
from runtime.machine import machine
from runtime.tensorrt_library import Library
from vla import fold, pi0, plain, smolvla, train
from vla.contract import CameraSpec, Dimension, TaktError

HERE = Path(__file__).resolve().parent
STEPS = 4
PRECISIONS = ("fp32", "fp16", "int8")
CAMERAS = (CameraSpec("front", 48, 64), CameraSpec("wrist", 48, 64))


@dataclass
class Command:
    """Build every graph of every policy in every precision."""

    out: Path = HERE / "results" / "tensorrt_builds.json"
    """Where to write."""
    policies: tuple[str, ...] = ("nano", "plain", "smolvla", "pi0", "pi05")
    """Which of them."""
    checkpoint: Path = HERE.parent / "checkpoints" / "nano"
    """Nano's."""

    def run(self) -> int:
        library, rows = Library("tensorrt-rtx"), []
        for name in self.policies:
            for part in parts_of(name, self.checkpoint):
                for row in built(library, part):
                    rows.append({"policy": name, "graph": part.name, **row})
                    print(
                        f"{name} {part.name} {row['precision']}: {row['onnx_mb']:.2f} MB -> "
                        f"{row['engine_mb']:.2f} MB in {row['cpu_seconds']:.1f} s",
                        flush=True,
                    )
        about = {"machine": machine(), "engine": f"tensorrt-rtx {library.version}", "steps": STEPS}
        self.out.write_text(jsonlib.dumps({**about, "graphs": rows}, indent=1) + "\n")
        print("\n".join(table(rows)))
        return 0


def parts_of(name: str, checkpoint: Path) -> list[graph.Part]:
    """A policy's graphs to be: prefix, step and all steps in one."""
    torch.manual_seed(0)
    if name == "nano":
        trained = train.load(checkpoint).eval()
        parts = [nano_graphs.prefix(trained), nano_graphs.step(trained)]
    elif name == "plain":
        actions = tuple(Dimension(n, "m", -1, 1, False) for n in ("dx", "dy", "dz", "grip"))
        config = plain.Config(("front",), ("x", "y", "z", "grip"), actions, 16, 0.0125, committed=4)
        model = plain.Plain(config).eval()
        parts = [plain_graphs.prefix(model), plain_graphs.step(model)]
    elif name in ("smolvla", "pi0", "pi05"):
        whole = smolvla.SmolVLA(smolvla.tiny()) if name == "smolvla" else pi0.Pi0(pi0.tiny(name == "pi05"))
        folded = fold.folded(whole.eval(), STEPS)
        parts = [expert_graphs.prefix(folded, CAMERAS), expert_graphs.step(folded, CAMERAS, 1 / STEPS)]
    else:
        raise TaktError(f"no policy {name!r}; valid: nano, plain, smolvla, pi0, pi05")
    return [*parts, graph.denoise(parts[1], STEPS)]


def built(library: Library, part: graph.Part) -> Iterator[dict[str, Any]]:
    """A row for each precision."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "graph.onnx"
        graph.write(part, whole)
        for precision in PRECISIONS:
            file = Path(shutil.copy(whole, Path(folder) / f"{precision}.onnx"))
            if precision == "int8":
                feeds = [{k: v.numpy() for k, v in part.inputs(1).items()} for _ in range(2)]
                quantise.quantise(file, quantise.How("int8", static=True), feeds)
            begun = time.process_time()  # of all threads: others' work on the machine is not in it
            ready = tensorrt.prepared(file, "fp16" if precision == "fp16" else "", library)
            data = tensorrt.build(library, ready, most=1)
            seconds = time.process_time() - begun
            yield {
                "precision": precision, "onnx_mb": quantise.size(file) / 1e6, "engine_mb": len(data) / 1e6,
                "cpu_seconds": seconds,
            }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: a line for each graph, with megabytes and CPU seconds for each precision."""
    lines = [f"| graph | {' | '.join(PRECISIONS)} |", "|---" * (len(PRECISIONS) + 1) + "|"]
    for key in dict.fromkeys((row["policy"], row["graph"]) for row in rows):
        cells = {r["precision"]: r for r in rows if (r["policy"], r["graph"]) == key}
        said = [f"{cells[p]['engine_mb']:.2f} MB, {cells[p]['cpu_seconds']:.1f} s" for p in PRECISIONS]
        lines.append(f"| {' '.join(key)} | {' | '.join(said)} |")
    return lines


if __name__ == "__main__":
    raise SystemExit(main(Command))
