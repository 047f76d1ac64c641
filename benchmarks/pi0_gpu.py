"""pi0 on a GPU: eager, compiled, as a CUDA graph, folded; in ms and as a multiple of the machine's floor.

Full size, random weights, bfloat16, 10 steps. The floor: weights are read once for the prefix and the
expert's once a step, and products run at the peak, both as measured here.

    python benchmarks/pi0_gpu.py                               # on a GPU
    python benchmarks/pi0_gpu.py --size tiny --device cpu      # to try the script
"""

from __future__ import annotations

import json as jsonlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from _command import main
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from runtime.machine import machine
from vla import fold, pi0
from vla.contract import TaktError
from vla.graphed import Graphed

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Command:
    """Compare ways to run pi0 by torch, and all of them with the floor."""

    views: tuple[int, ...] = (2, 3)
    """Cameras."""
    steps: int = 10
    """Of the sampler."""
    rounds: int = 30
    """Chunks of each variant, in turns."""
    size: Literal["full", "tiny"] = "full"
    """tiny is to try the script."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Where it runs."""
    json: Path = ROOT / "benchmarks/results/pi0_gpu.json"
    """Where to write the result."""

    def run(self) -> int:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise TaktError("torch sees no GPU here: --device cpu --size tiny tries the script")
        if min(self.steps, self.rounds, *self.views) < 1:
            raise TaktError("--views, --steps and --rounds are at least 1")
        name = torch.cuda.get_device_name() if self.device == "cuda" else "cpu"
        report: dict[str, Any] = {
            "machine": machine() | {"device": name, "torch": torch.__version__},
            "policy": f"pi0, {self.size} size, random weights, bfloat16",
            "steps": self.steps,
            "rounds": self.rounds,
            "views": {str(views): self._measure(views) for views in self.views},
        }
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        for views, found in report["views"].items():
            print(f"{views} views, floor {found['floor_ms']:.2f} ms")
            for variant in found["variants"]:
                times = f"{variant['of_floor']:.2f}x the floor, {variant['ratio']:.2f}x eager"
                error = f"largest action error {variant['action_error']:.1e}"
                print(f"  {variant['name']:20s} {variant['p50_ms']:8.2f} ms  {times}, {error}")
        return 0

    @torch.inference_mode()
    def _measure(self, views: int) -> dict[str, Any]:
        torch.manual_seed(0)
        config = replace(pi0.tiny() if self.size == "tiny" else pi0.Config(), views=views)
        with torch.device(self.device):
            model = pi0.Pi0(config).to(torch.bfloat16).eval().requires_grad_(False)
        for normal in (model.of_state, model.of_actions):
            normal.float()
        inputs = self._inputs(model)
        eager = chunk(model, views, self.steps)
        floor = self._floor(model, lambda: eager(*inputs))
        folded = fold.folded(model, self.steps)
        mode = "max-autotune-no-cudagraphs" if self.device == "cuda" else "default"
        runs: dict[str, Callable[..., Tensor]] = {
            "eager": eager,
            "compiled": chunk(model, views, self.steps, lambda part: torch.compile(part, mode=mode)),
            "CUDA graph": self._graphed(model, inputs, views),
            "CUDA graph, folded": self._graphed(folded, inputs, views),
        }
        truth, times = runs["eager"](*inputs).float(), {name: list[float]() for name in runs}
        errors = {}
        for name, run in runs.items():
            error = (run(*inputs).float() - truth).abs().max() / truth.abs().max()
            errors[name] = float(error)
        for _ in range(self.rounds):
            for name, run in runs.items():
                self._wait()
                begun = time.perf_counter()
                run(*inputs)
                self._wait()
                times[name].append(1e3 * (time.perf_counter() - begun))
        middle = {name: statistics.median(row) for name, row in times.items()}
        variants = [
            {
                "name": name, "p50_ms": middle[name], "min_ms": min(times[name]),
                "of_floor": middle[name] / floor["floor_ms"], "ratio": middle["eager"] / middle[name],
                "action_error": errors[name],
            }
            for name in runs
        ]  # fmt: skip
        return {**floor, "variants": variants}

    def _graphed(self, model: Any, inputs: list[Tensor], views: int) -> Graphed:
        present, state, ids, mask = inputs[views : views + 4]
        return Graphed(model, inputs[:views], present, state, ids, mask, steps=self.steps)

    def _inputs(self, model: pi0.Pi0) -> list[Tensor]:
        c, g = model.config, torch.Generator().manual_seed(1)
        side = c.vision.pixels
        made = [
            torch.randint(0, 256, (1, side, side, 3), generator=g).to(torch.uint8) for _ in range(c.views)
        ]
        made += [
            torch.ones(1, c.views, dtype=torch.bool),
            torch.randn(1, c.state, generator=g),
            torch.randint(0, c.vocabulary, (1, c.words), generator=g),
            torch.ones(1, c.words, dtype=torch.int64),
            torch.randn(1, *model.noise_shape, generator=g),
            torch.zeros(1, c.rows, c.actions),
            torch.zeros(1, c.rows),
        ]
        return [tensor.to(self.device) for tensor in made]

    def _floor(self, model: pi0.Pi0, work: Callable[[], Any]) -> dict[str, float]:
        """The larger of reading and multiplying, at this machine's measured best."""
        with FlopCounterMode(display=False) as counter:
            work()
        flop = float(counter.get_total_flops())
        once = [model.vision, model.projector, model.language]
        each = [model.expert, model.action_in_proj, model.action_out_proj]
        read = sum(size(part) for part in once) + self.steps * sum(size(part) for part in each)
        n = 8192 if self.device == "cuda" else 512
        a = torch.randn(n, n, device=self.device, dtype=torch.bfloat16)
        peak = 2 * n**3 / self._best(lambda: a @ a)
        block = torch.zeros(n * n * 4, device=self.device)
        bandwidth = 2 * block.numel() * 4 / self._best(block.clone)
        seconds = max(flop / peak, read / bandwidth)
        return {
            "gflop": flop / 1e9, "gbytes": read / 1e9, "peak_tflops": peak / 1e12,
            "bandwidth_gbs": bandwidth / 1e9, "floor_ms": 1e3 * seconds,
        }  # fmt: skip

    def _best(self, work: Callable[[], Any]) -> float:
        took = []
        for _ in range(20):
            self._wait()
            begun = time.perf_counter()
            work()
            self._wait()
            took.append(time.perf_counter() - begun)
        return min(took)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def chunk(
    model: pi0.Pi0, views: int, steps: int, made: Callable[[Any], Any] = lambda part: part
) -> Callable[..., Tensor]:
    """All of a chunk, called from Python step by step.

    Args:
        made: of the prefix and of the step what is called. One step is compiled and not ten in a row, which
            would take ten times as long.
    """
    prefix, step = made(model.prefix), made(model.step)

    def run(*inputs: Tensor) -> Tensor:
        frames, rest = list(inputs[:views]), inputs[views:]
        x, kept, weights = rest[4:]
        memory, actions = prefix(frames, *rest[:4]), x
        dt = torch.full((1,), 1 / steps, device=x.device)
        for i in range(steps):
            t = torch.full((1,), i / steps, device=x.device)
            x, actions = step(memory, x, t, dt, kept, weights)
        return actions

    return run


def size(part: torch.nn.Module) -> int:
    """Bytes of a part's weights."""
    return sum(p.numel() * p.element_size() for p in part.parameters())


if __name__ == "__main__":
    sys.exit(main(Command))
