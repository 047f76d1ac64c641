"""The loop of `takt train`, whatever is trained: AdamW, a schedule, averaged weights, resuming to the bit.

A checkpoint is a folder: config.json, model.safetensors (averaged weights), training.json (what made
them), and, while training is under way, resume.safetensors (weights, optimiser, averages), written
often enough to lose little.
"""

from __future__ import annotations

import json as jsonlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla import atomic
from vla.contract import TaktError

RESUME = "resume.safetensors"


class Options(Protocol):
    """What the loop takes of the command's flags."""

    out: Path
    steps: int
    batch: int
    rate: float
    seed: int


class Loop:
    """AdamW, cosine with warm-up, an exponential average of the weights."""

    kept = 0.998  # of the average, a step, once there is something to average
    decay = 1e-3  # of weights

    def __init__(
        self, options: Options, model: nn.Module, trained: Sequence[nn.Parameter], weight: np.ndarray
    ) -> None:
        """
        Args:
            trained: the parameters that learn. weight: (N,), how often each frame counts.
        """
        self.options, self.network = options, model
        self.average = {k: v.clone() for k, v in model.state_dict().items()}
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.optimiser = torch.optim.AdamW(
            trained, lr=options.rate, weight_decay=self.decay, fused=True
        )  # fmt: skip
        self.step = 0
        self.log: list[dict[str, float]] = []
        self.p = weight / weight.sum()

    def losses(
        self, index: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Of the frames `index`; "total" is minimised."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """What config.json says."""
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """What made these weights; goes with them into a bundle."""
        raise NotImplementedError

    def run(self) -> list[dict[str, float]]:
        self._resume()
        started, first = time.monotonic(), self.step
        sums: dict[str, float] = {}
        since = 0
        while self.step < self.options.steps:
            losses = self._update()
            since += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            if self.step % 200 == 0 or self.step == self.options.steps:
                pace = (self.step - first) * self.options.batch / (time.monotonic() - started)
                row = {k: v / since for k, v in sums.items()} | {"step": self.step, "frames_per_s": pace}
                print(" ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
                self.log.append(row)
                sums, since = {}, 0
            if self.step % 1000 == 0:
                self._save()
        self._save()
        (self.options.out / RESUME).unlink(missing_ok=True)
        return self.log

    def _update(self) -> dict[str, Tensor]:
        # Batch and noise are functions of (seed, step): a resumed run sees what an unbroken one would.
        rng = np.random.default_rng([self.options.seed, self.step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        index = rng.choice(len(self.p), self.options.batch, p=self.p)
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.rate * schedule(self.step, self.options.steps)
        losses = self.losses(index, rng, generator)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], 1.0, foreach=True)
        self.optimiser.step()
        self.step += 1
        keep = min(self.kept, self.step / (self.step + 20))
        now = self.network.state_dict()
        torch._foreach_lerp_([self.average[name] for name in now], list(now.values()), 1 - keep)
        return losses

    def _save(self) -> None:
        out = self.options.out
        out.mkdir(parents=True, exist_ok=True)
        atomic.write_json(out / "config.json", self.config())
        whole(self.average, out / "model.safetensors")
        atomic.write_json(out / "training.json", self.provenance())
        slots = self.optimiser.state_dict()["state"]
        state = {f"optimiser.{i}.{k}": v for i, slot in slots.items() for k, v in slot.items()}
        state |= {f"average.{k}": v for k, v in self.average.items()}
        state |= {f"model.{k}": v.clone() for k, v in self.network.state_dict().items()}
        state["step"] = torch.tensor(self.step)
        whole(state, out / RESUME)

    def _resume(self) -> None:
        path = self.options.out / RESUME
        if not path.is_file():
            return
        now = jsonlib.loads(jsonlib.dumps(self.config() | self.provenance()))
        files = (self.options.out / name for name in ("config.json", "training.json"))
        before = dict(item for file in files for item in jsonlib.loads(file.read_text()).items())
        differ = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if differ:
            raise TaktError(
                f"{self.options.out} was begun with another {', '.join(differ)}; repeat that command or "
                "choose a new folder"
            )
        state = load_file(path)
        self.step = int(state.pop("step"))
        self.network.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
        self.average = {k[8:]: v for k, v in state.items() if k.startswith("average.")}
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("optimiser."):
                _, i, key = name.split(".")
                slots.setdefault(int(i), {})[key] = value
        whole_state = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**whole_state, "state": slots})
        print(f"resuming {self.options.out} at step {self.step}")


def whole(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file that is either whole or not there."""
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)


def schedule(step: int, steps: int) -> float:
    """Warm-up over 200 steps, then a cosine to zero; 0 .. 1."""
    return min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))


def weighted(text: str) -> tuple[Path, float]:
    """FOLDER or FOLDER:WEIGHT.

    Raises:
        TaktError: the weight is not a positive number.
    """
    path, _, weight = text.rpartition(":")
    try:
        number = float(weight)
    except ValueError:
        return Path(text), 1.0
    if not path:  # a folder with a number for its name
        return Path(text), 1.0
    if not (math.isfinite(number) and number > 0):
        raise TaktError(f"--data {text}: a weight is a positive number")
    return Path(path), number
