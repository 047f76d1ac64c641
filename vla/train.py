"""`takt train`: data sets in, a checkpoint out. Reads LeRobotDataset v3 folders only; no simulator here.

A checkpoint is a folder: config.json, model.safetensors (averaged weights), training.json (what made
them), and, while training is under way, resume.safetensors (weights, optimiser, averages), written
often enough to lose little.
"""

from __future__ import annotations

import json as jsonlib
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla import nano, nano_losses
from vla.contract import TaktError
from vla.possible import given, missing
from vla.train_data import COLUMNS, COMMITTED, LOOKS, Frames, encoder_folder, read

RESUME = "resume.safetensors"


def measure(model: nano.Nano, frames: Frames) -> None:
    """Set the model's normalisation from the data."""
    state, chunk = frames.columns["observation.state"], frames.columns["expert.chunk"]
    model.state_mean.copy_(state.mean(0))
    model.state_std.copy_(state.std(0).clamp(min=0.02))
    offset = chunk - state[:, None] * model.relative
    model.action_mean.copy_(offset.mean(0))
    model.action_std.copy_(offset.std(0).clamp(min=0.02))
    positions = frames.columns["privileged.positions"]
    known = frames.columns["privileged.present"][:, :2] > 0
    for role, rows in enumerate(known.T):  # what is not on the table has no place
        if rows.sum() > 1:
            at, found = slice(3 * role, 3 * role + 3), positions[rows, 3 * role : 3 * role + 3]
            model.position_mean[at] = found.mean(0)
            model.position_std[at] = found.std(0).clamp(min=0.01)


@dataclass
class Command:
    """Train the nano policy on data sets."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the checkpoint; training goes on where an interrupted run of the same command stopped."""
    data: list[str] = field(default_factory=list)
    """Data set folders; FOLDER:3 counts a data set's frames three times."""
    init: Path | None = None
    """Start from this checkpoint's weights (its normalisation is kept)."""
    steps: int = 8000
    """Optimiser steps."""
    batch: int = 128
    """Frames a step."""
    draws: int = 4
    """Noise draws a frame."""
    rate: float = 1e-3
    """Peak learning rate, cosine to zero."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    committed: int | None = None
    """Most rows of a committed prefix, 1 and up (default: as the checkpoint of --init, else 8)."""
    commit_share: float = 0.3
    """Share of the noise draws that get a committed prefix."""
    only: Literal["all", "head", "possible"] = "all"
    """With --init, one part alone: the denoising head, or what tells whether all that is named is there."""
    aux: bool = True
    """Teach the prefix what only a simulator knows: pixels and positions of things."""
    rows: int | None = None
    """Rows a chunk: the first ones of the data's (default: all 12)."""
    image_size: int | None = None
    """Side of a camera's frames, pixels; larger ones are made smaller (default: 96)."""
    text: Literal["minilm", "bag"] = "minilm"
    """What reads the words: the sentence encoder, or, to see what it is worth, a random vector a token."""
    threads: int = 2
    """CPU threads."""
    compile: bool = False
    """Use torch.compile."""
    encoder: Path | None = None
    """Folder of all-MiniLM-L6-v2 (default: the installed package)."""
    json: Path | None = None
    """Write the losses there."""

    def run(self) -> int:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if (
            min(self.steps, self.batch, self.draws, self.threads) < 1
            or self.seed < 0
            or not 0 < self.rate < 1
        ):
            raise TaktError("--steps, --batch, --draws, --threads are at least 1, --seed 0, --rate in 0 .. 1")
        if not 0 <= self.commit_share <= 1:
            raise TaktError(f"--commit-share is a share, 0 .. 1, got {self.commit_share:g}")
        if self.only != "all" and self.init is None:
            raise TaktError(f"--only {self.only} trains a part of a trained policy: name it with --init")
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)
        folders = [_weighted(text) for text in self.data]
        if not folders:
            raise TaktError("nothing to train on: give --data FOLDER [FOLDER:WEIGHT ...]")
        finished = (self.out / "model.safetensors").is_file() and not (self.out / RESUME).is_file()
        if finished or self.out.is_file():
            raise TaktError(f"{self.out} is there and finished; choose a new folder, or --init {self.out}")
        model = self._model()
        columns = LOOKS if self.only == "possible" else (*COLUMNS, COMMITTED)
        frames = read(folders, model.config, encoder_folder(self.encoder), columns)
        if self.init is None:
            measure(model, frames)
        log = Trainer(self, model, frames).run()
        if self.json:
            self.json.write_text(jsonlib.dumps(log, indent=1))
        return 0

    def _model(self) -> nano.Nano:
        """The checkpoint of --init, or a new model of the sizes asked for."""
        sizes = {"rows": self.rows, "size": self.image_size}
        given = {name: size for name, size in sizes.items() if size is not None}
        if (given or self.text != "minilm") and self.init is not None:
            raise TaktError("--rows, --image-size and --text are for a new policy; --init has its own")
        if not (2 <= given.get("rows", 12) <= 12 and 16 <= given.get("size", 96) <= 512):
            raise TaktError("--rows is from 2 to 12, --image-size from 16 to 512")
        if given.get("size", 96) % 8:
            raise TaktError(f"--image-size is a multiple of 8, got {self.image_size}")
        model = load(self.init) if self.init else nano.Nano(sized(nano.Config(encoder=self.text), given))
        model.config = committing(model.config, self.committed)
        return model


def sized(config: nano.Config, sizes: dict[str, int]) -> nano.Config:
    """Other sizes; a committed prefix leaves at least one row of a chunk to learn."""
    rows = sizes.get("rows", config.rows)
    return replace(config, **sizes, committed=min(config.committed, rows - 1))  # type: ignore[arg-type]


def committing(config: nano.Config, rows: int | None) -> nano.Config:
    """The sizes with the longest committed prefix set; None leaves it.

    Raises:
        TaktError: the prefix is empty or leaves nothing to learn.
    """
    if rows is None:
        return config
    if not 1 <= rows < config.rows:
        raise TaktError(f"--committed is from 1 to {config.rows - 1} rows of the chunk's {config.rows}")
    return replace(config, committed=rows)


@torch.no_grad()
def features(model: nano.Nano, frames: Frames, batch: int = 64) -> Tensor:
    """What the prefix makes of each frame, shape (N, cond)."""
    out = torch.empty(len(frames.episode), model.config.cond)
    for at in range(0, len(out), batch):
        b = frames.batch(np.arange(at, min(at + batch, len(out))))
        out[at : at + batch] = model.prefix(b["frames"], b["state"], b["tokens"], b["mask"])[0]
    return out


@torch.no_grad()
def asked(model: nano.Nano, frames: Frames, draws: int, seed: int, batch: int = 64) -> Tensor:
    """What `possible` is given of each frame, in so many draws of its words, shape (draws, N, roles, n)."""
    rng, eyes, out = np.random.default_rng(seed), model.each_eye(), []
    for at in range(0, len(frames.episode), batch):
        index = np.arange(at, min(at + batch, len(frames.episode)))
        maps = [eye.maps(f) for eye, f in zip(eyes, frames.batch(index)["frames"], strict=True)]
        part = []
        for _ in range(draws):
            b = frames.batch(index, rng)
            words = model.reader(b["tokens"], b["mask"])
            saw = [eye.find(each, words) for eye, each in zip(eyes, maps, strict=True)]
            part.append(given(words, model.joints(b["state"]), saw))
        out.append(torch.stack(part))
    return torch.cat(out, 1)


class Trainer:
    """The loop: AdamW, cosine with warm-up, an exponential average of the weights."""

    def __init__(self, options: Command, model: nano.Nano, frames: Frames) -> None:
        self.o, self.model, self.frames = options, model, frames
        self.average = {k: v.clone() for k, v in model.state_dict().items()}
        # With the rest left as it is, what a part is given for a frame is always the same.
        self.cond = features(model, frames) if options.only == "head" else None
        self.asked = asked(model, frames, options.draws, options.seed) if options.only == "possible" else None
        parts: dict[str, Callable[[], Iterable[nn.Parameter]]] = {
            "head": model.head, "possible": model.possible.parameters, "all": model.parameters
        }  # fmt: skip
        trained = list(parts[options.only]())
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.optimiser = torch.optim.AdamW(trained, lr=options.rate, weight_decay=1e-3, fused=True)
        self.step = 0
        self.log: list[dict[str, float]] = []
        self.p = frames.weight / frames.weight.sum()
        losses: dict[str, Callable[..., Any]] = {
            "head": nano_losses.flow_loss, "possible": nano_losses.possible, "all": nano_losses.loss
        }  # fmt: skip
        loss = losses[options.only]
        self.loss = torch.compile(loss) if options.compile else loss

    def run(self) -> list[dict[str, float]]:
        self._resume()
        started, first = time.monotonic(), self.step
        sums: dict[str, float] = {}
        since = 0
        while self.step < self.o.steps:
            losses = self._update()
            since += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            if self.step % 200 == 0 or self.step == self.o.steps:
                pace = (self.step - first) * self.o.batch / (time.monotonic() - started)
                row = {k: v / since for k, v in sums.items()} | {"step": self.step, "frames_per_s": pace}
                print(" ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
                self.log.append(row)
                sums, since = {}, 0
            if self.step % 1000 == 0:
                self._save()
        self._save()
        (self.o.out / RESUME).unlink(missing_ok=True)
        return self.log

    def _update(self) -> dict[str, Tensor]:
        # Batch and noise are functions of (seed, step): a resumed run sees what an unbroken one would.
        rng = np.random.default_rng([self.o.seed, self.step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        index = rng.choice(len(self.p), self.o.batch, p=self.p)
        for group in self.optimiser.param_groups:
            group["lr"] = self.o.rate * schedule(self.step, self.o.steps)
        losses = self._losses(index, rng, generator)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], 1.0, foreach=True)
        self.optimiser.step()
        self.step += 1
        keep = min(0.998, self.step / (self.step + 20))
        now = self.model.state_dict()
        torch._foreach_lerp_([self.average[name] for name in now], list(now.values()), 1 - keep)
        return losses

    def _losses(
        self, index: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self.asked is not None:
            draw, rows = (
                torch.from_numpy(rng.integers(self.o.draws, size=len(index))),
                torch.from_numpy(index),
            )
            meaning, present = (
                self.frames.columns[f"privileged.{name}"][rows] for name in ("meaning", "present")
            )
            truth = missing(meaning, present, nano.NAMED)
            value = self.loss(self.model, self.asked[draw, rows], truth, generator)
            return {"possible": value, "total": value}
        rest = (self.o.draws, generator, self.o.commit_share)
        if self.cond is None:
            return self.loss(self.model, self.frames.batch(index, rng), *rest, self.o.aux)
        rows, columns = torch.from_numpy(index), self.frames.columns
        target = self.model.normalise(columns["expert.chunk"][rows], columns["observation.state"][rows])
        flow = self.loss(self.model, self.cond[rows], target, columns[COMMITTED][rows], *rest)
        return {"flow": flow, "total": flow}

    def _save(self) -> None:
        self.o.out.mkdir(parents=True, exist_ok=True)
        config = {"type": "nano", **self.model.config.to_json()}
        (self.o.out / "config.json").write_text(jsonlib.dumps(config, indent=1))
        _write(self.average, self.o.out / "model.safetensors")
        (self.o.out / "training.json").write_text(jsonlib.dumps(self._provenance(), indent=1))
        slots = self.optimiser.state_dict()["state"]
        state = {f"optimiser.{i}.{k}": v for i, slot in slots.items() for k, v in slot.items()}
        state |= {f"average.{k}": v for k, v in self.average.items()}
        state |= {f"model.{k}": v.clone() for k, v in self.model.state_dict().items()}
        state["step"] = torch.tensor(self.step)
        _write(state, self.o.out / RESUME)

    def _provenance(self) -> dict[str, Any]:
        """What made these weights; goes with them into a bundle."""
        o = self.o
        names = [f"{Path(path).name}:{weight:g}" for path, weight in map(_weighted, o.data)]
        start: dict[str, Any] = {"init": o.init.name if o.init else None, "data": names}
        start |= {"frames": len(self.frames.episode)}
        start |= {"steps": o.steps, "batch": o.batch, "draws": o.draws, "rate": o.rate, "seed": o.seed}
        start |= {"committed": self.model.config.committed, "commit_share": o.commit_share}
        start |= {"aux": o.aux, "rows": self.model.config.rows, "image_size": self.model.config.size}
        start |= {} if self.model.config.encoder == "minilm" else {"text": self.model.config.encoder}
        return start | ({"only": o.only} if o.only != "all" else {})

    def _resume(self) -> None:
        path = self.o.out / RESUME
        if not path.is_file():
            return
        before = jsonlib.loads((self.o.out / "training.json").read_text())
        differ = [k for k, v in self._provenance().items() if before.get(k) != v]
        if differ:
            raise TaktError(
                f"{self.o.out} was begun with another {', '.join(differ)}; repeat that command or choose "
                "a new folder"
            )
        state = load_file(path)
        self.step = int(state.pop("step"))
        self.model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
        self.average = {k[8:]: v for k, v in state.items() if k.startswith("average.")}
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("optimiser."):
                _, i, key = name.split(".")
                slots.setdefault(int(i), {})[key] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**whole, "state": slots})
        print(f"resuming {self.o.out} at step {self.step}")


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file that is either whole or not there."""
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)


def schedule(step: int, steps: int) -> float:
    """Warm-up over 200 steps, then a cosine to zero; 0 .. 1."""
    return min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))


def load(folder: Path) -> nano.Nano:
    """A nano checkpoint.

    Raises:
        TaktError: the folder is not one of ours or its weights do not fit its config.
    """
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise TaktError(f"{folder} is not a checkpoint: config.json and model.safetensors are wanted")
    try:
        config = jsonlib.loads((folder / "config.json").read_text())
        if config.pop("type", None) != "nano":
            raise TaktError(f"{folder}/config.json does not describe a nano policy")
        model = nano.Nano(nano.Config.from_json(config))
    except TaktError as error:
        raise TaktError(f"{folder}: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise TaktError(f"{folder}/config.json is malformed: {_line(error)}") from None
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise TaktError(f"{folder}/model.safetensors does not fit config.json: {_line(error)}") from None
    return model


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _weighted(text: str) -> tuple[Path, float]:
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
