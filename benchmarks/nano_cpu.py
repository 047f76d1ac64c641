"""What the exported bundle gains on a CPU: ONNX Runtime against torch, on the same checkpoint.

A chunk is timed from an observation in numpy to actions in numpy: preprocessing, the prefix over two
cameras, the flow steps. The instruction's tokens are cached in every variant, as they are on a robot.
All variants get the same observations and the same noise and must give the same actions. They are
measured in one run, in rounds that take turns, so that whatever else the machine does hits all alike.

    python benchmarks/nano_cpu.py --rounds 20
"""

from __future__ import annotations

import gc
import json as jsonlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from _command import main
from rich.console import Console
from rich.progress import track
from rich.table import Table

from runtime import bundle as bundles
from runtime.engine import OnnxPolicy
from runtime.graphs import OnnxGraph
from vla import flow, preprocess
from vla.contract import Observation, TaktError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
INSTRUCTION = "put the red cube in the blue bowl"
TOLERANCE = 1e-3  # rad; a variant that differs more from torch eager has failed
INPUTS = 16  # observations, taken in turn
Engine = Literal["torch eager", "torch.compile", "onnxruntime"]
ENGINES: tuple[Engine, ...] = ("torch eager", "torch.compile", "onnxruntime")
STAGES = ("preprocess", "prefix", "steps")

# (observation, call) -> actions (H, A), s spent in each stage; `call` decides the noise
Chunk = Callable[[Observation, int], tuple[np.ndarray, dict[str, float]]]


@dataclass
class Command:
    """Compare the latency of one chunk between ONNX Runtime, torch and torch.compile."""

    bundle: Path = ROOT / "vla/bundles/nano"
    """The exported policy."""
    checkpoint: Path = ROOT / "checkpoints/nano"
    """What it was exported from: config.json and model.safetensors."""
    rounds: int = 20
    """Each round measures every variant once."""
    chunks: int = 25
    """Chunks a variant and round."""
    warmup: int = 5
    """Chunks before them that do not count."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads."""
    compile: bool = True
    """Measure torch.compile as well, which takes a minute to get ready."""
    json: Path = RESULTS / "nano_cpu.json"
    """Where to write the result."""

    def run(self) -> int:
        if min(self.rounds, self.chunks, *self.threads) < 1 or self.warmup < 0:
            raise TaktError("--rounds, --chunks and --threads are at least 1, --warmup at least 0")
        names = [(e, n) for n in self.threads for e in ENGINES if self.compile or e != "torch.compile"]
        load = os.getloadavg()[0]
        memory = {name: self._memory(*name) for name in names}
        variants = {name: make(name[0], self.bundle, self.checkpoint, name[1]) for name in names}
        inputs = observations(self.bundle)
        actions = {name: self._actions(*name, variants[name], inputs) for name in names}
        samples = self._measure(variants, inputs)
        report = self._report(samples, actions, memory) | {"load": load}
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        self._print(report)
        worst = max(v["action_error"]["max"] for v in report["variants"])
        if worst > TOLERANCE:
            raise TaktError(
                f"actions differ by {worst:.1e} rad: is {self.bundle} made from {self.checkpoint}?"
            )
        return 0

    def _actions(self, engine: Engine, threads: int, chunk: Chunk, inputs: list[Observation]) -> np.ndarray:
        """The variant's answers, shape (INPUTS, H, A); what is compiled is compiled by that."""
        set_threads(threads)
        return np.stack([chunk(seen, call)[0] for call, seen in enumerate(inputs)])

    def _measure(
        self, variants: dict[tuple[Engine, int], Chunk], inputs: list[Observation]
    ) -> dict[tuple[Engine, int], np.ndarray]:
        """Seconds, shape (rounds, chunks, 1 + stages): the whole, then the stages."""
        out = {name: np.zeros((self.rounds, self.chunks, 1 + len(STAGES))) for name in variants}
        names = list(variants)
        rng = np.random.default_rng(0)
        gc.collect()
        gc.disable()
        for turn in track(range(self.rounds), "measuring", console=Console(stderr=True), transient=True):
            for k in rng.permutation(len(names)):  # another order each time: no one always follows another
                chunk = variants[names[k]]
                set_threads(names[k][1])
                for i in range(-self.warmup, self.chunks):
                    call = i % len(inputs)
                    begun = time.perf_counter()
                    _, stages = chunk(inputs[call], call)
                    took = time.perf_counter() - begun
                    if i >= 0:
                        out[names[k]][turn, i] = [took, *(stages[s] for s in STAGES)]
        gc.enable()
        return out

    def _memory(self, engine: Engine, threads: int) -> float | None:
        """Peak memory of a process that runs this variant alone, MB."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(peak_memory, engine, self.bundle, self.checkpoint, threads).result()

    def _report(
        self,
        samples: dict[tuple[Engine, int], np.ndarray],
        actions: dict[tuple[Engine, int], np.ndarray],
        memory: dict[tuple[Engine, int], float | None],
    ) -> dict[str, Any]:
        from runtime.machine import machine
        from sim.score import percentiles

        reference = actions["torch eager", self.threads[0]]
        policy = bundles.load(self.bundle)
        graphs = sum(policy.graphs[g].stat().st_size for g in ("prefix", "step"))
        weights = (self.checkpoint / "model.safetensors").stat().st_size
        variants = []
        for (engine, threads), times in samples.items():
            error = np.abs(actions[engine, threads] - reference)
            whole, *stages = times.reshape(-1, 1 + len(STAGES)).T * 1e3
            variants.append(
                {
                    "name": f"{engine}, {threads} thread{'s' * (threads > 1)}",
                    "engine": engine,
                    "threads": threads,
                    "precision": "fp32",
                    "size_mb": (graphs if engine == "onnxruntime" else weights) / 1e6,
                    "peak_rss_mb": memory[engine, threads],
                    "stages_ms": {s: percentiles(v) for s, v in zip(STAGES, stages, strict=True)},
                    "total_ms": percentiles(whole),
                    "action_error": {"mean": float(error.mean()), "max": float(error.max())},
                }
            )
        return {
            "machine": {**machine(), "torch": torch_version()},
            "bundle": str(self.bundle.name),
            "flow_steps": policy.steps,
            "rounds": self.rounds,
            "chunks": self.chunks,
            "words": "cached",
            "variants": variants,
            "ratios": ratios(samples),
        }

    def _print(self, report: dict[str, Any]) -> None:
        worst = max(v["action_error"]["max"] for v in report["variants"])
        caption = "faster: median against torch eager with as many threads"
        caption += f"\nlargest difference of an action: {worst:.0e} rad"
        if report["load"] > 0.5:
            caption += f"\nthe machine was busy (load {report['load']:.1f}): threads waited for each other"
        out = Table(title="one chunk, ms; words cached", caption=caption)
        for column in ("variant", "prefix", "steps", "p50", "p99", "faster", "MB"):
            left = column == "variant"
            out.add_column(column, justify="left" if left else "right", no_wrap=left)
        for v in report["variants"]:
            ratio = report["ratios"][v["name"]]
            out.add_row(
                v["name"],
                f"{v['stages_ms']['prefix']['p50']:.2f}",
                f"{v['stages_ms']['steps']['p50']:.2f}",
                f"{v['total_ms']['p50']:.2f}",
                f"{v['total_ms']['p99']:.2f}",
                f"{ratio['p50']:.2f}x",
                "" if v["peak_rss_mb"] is None else f"{v['peak_rss_mb']:.0f}",
            )
        Console().print(out)


def ratios(samples: dict[tuple[Engine, int], np.ndarray]) -> dict[str, dict[str, float]]:
    """How many times faster than torch eager with as many threads: of the medians, and the range of nine
    rounds in ten, each round against its own."""
    out = {}
    for (engine, threads), times in samples.items():
        base = samples["torch eager", threads][..., 0]
        own = times[..., 0]
        rounds = np.median(base, axis=1) / np.median(own, axis=1)
        low, high = np.quantile(rounds, [0.05, 0.95])
        name = f"{engine}, {threads} thread{'s' * (threads > 1)}"
        out[name] = {"p50": float(np.median(base) / np.median(own)), "low": float(low), "high": float(high)}
    return out


# -- the variants. torch and the simulator are imported only where they are used: they would count in the
#    memory of those that do not need them


def make(engine: Engine, bundle: Path, checkpoint: Path, threads: int) -> Chunk:
    if engine == "onnxruntime":
        return onnx_chunk(bundle, threads)
    return torch_chunk(bundle, checkpoint, threads, compiled=engine == "torch.compile")


def onnx_chunk(bundle: Path, threads: int) -> Chunk:
    policy = OnnxPolicy(bundles.load(bundle), threads)

    def chunk(seen: Observation, call: int) -> tuple[np.ndarray, dict[str, float]]:
        policy.reset(0, call)
        answer = policy.infer(seen)
        return answer.actions, answer.stages

    return chunk


def torch_chunk(bundle: Path, checkpoint: Path, threads: int, compiled: bool) -> Chunk:
    # Compiling in this process: a pool of compilers would be left behind by the one that measures memory.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    import torch

    from vla import train

    torch.set_num_threads(threads)
    policy = bundles.load(bundle)
    model = train.load(checkpoint).eval()
    prefix: Any = model.prefix
    step: Any = model.step
    if compiled:
        prefix, step = (torch.compile(f, dynamic=False) for f in (prefix, step))
    tokens, mask = (torch.from_numpy(a) for a in words(bundle))
    shape = (1, policy.spec.chunk_length, policy.spec.actions.size)
    kept: Any = torch.zeros(shape)
    keep: Any = torch.zeros(shape[:2])
    times = {i / policy.steps: torch.tensor([i / policy.steps]) for i in range(policy.steps)}
    dt = torch.tensor([1.0 / policy.steps])

    def one(memory: Any, x: Any, t: float, _: float, kept: Any, keep: Any) -> Any:
        return step(*memory, x, times[t], dt, kept, keep)

    @torch.inference_mode()
    def chunk(seen: Observation, call: int) -> tuple[np.ndarray, dict[str, float]]:
        marks = [time.perf_counter()]
        frames = [torch.from_numpy(preprocess.frame(seen, camera)) for camera in policy.spec.cameras]
        state = torch.from_numpy(preprocess.state(seen, policy.spec))
        marks.append(time.perf_counter())
        memory = prefix(frames, state, tokens, mask)
        marks.append(time.perf_counter())
        noise = policy.noise * np.random.default_rng([0, call]).standard_normal(shape)
        x = torch.from_numpy(noise.astype(np.float32))
        actions = flow.euler(one, memory, x, policy.steps, kept, keep)[0].numpy()
        marks.append(time.perf_counter())
        return actions, dict(zip(STAGES, np.diff(marks).tolist(), strict=True))

    return chunk


def words(bundle: Path) -> tuple[np.ndarray, np.ndarray]:
    """The instruction's token states and mask, by the bundle's own encoder."""
    policy = bundles.load(bundle)
    if policy.tokenizer is None:
        raise TaktError(f"{bundle} takes no words: give a bundle of the nano policy")
    ids, mask = preprocess.Words(policy.tokenizer, policy.words_length)(INSTRUCTION)
    return OnnxGraph(policy.graphs["words"])({"ids": ids, "mask": mask})["tokens"], mask


def observations(bundle: Path) -> list[Observation]:
    """Random frames and poses near home: time does not depend on what is seen."""
    spec, rng = bundles.load(bundle).spec, np.random.default_rng(0)
    return [
        Observation(
            time=float(i),
            state=rng.normal(0.0, 0.3, len(spec.state)).astype(np.float32),
            frames={c.name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in spec.cameras},
            instruction=INSTRUCTION,
        )
        for i in range(INPUTS)
    ]


def set_threads(threads: int) -> None:
    """Of torch, which has one number for the whole process; ONNX Runtime's is a session's own."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def torch_version() -> str:
    import torch

    return torch.__version__


def peak_memory(engine: Engine, bundle: Path, checkpoint: Path, threads: int) -> float | None:
    """MB, after some chunks; None where the system does not tell."""
    chunk = make(engine, bundle, checkpoint, threads)
    for call, seen in enumerate(observations(bundle)):
        chunk(seen, call)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


if __name__ == "__main__":
    sys.exit(main(Command))
