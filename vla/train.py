"""`takt train`: data sets in, a checkpoint out. Reads LeRobotDataset v3 folders only; no simulator here.

A checkpoint is a folder: config.json, model.safetensors (averaged weights), training.json (what made
them), and, while training is under way, resume.safetensors (weights, optimiser, averages), written
often enough to lose little.
"""

from __future__ import annotations

import json as jsonlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vla import atomic, dataset_body, nano, nano_losses, plain_train
from vla.contract import TaktError
from vla.dataset import Dataset
from vla.possible import given, missing
from vla.train_data import COLUMNS, COMMITTED, LOOKS, Frames, encoder_folder, read
from vla.training import RESUME, Loop
from vla.training import schedule as schedule
from vla.training import weighted as _weighted


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
class Command(plain_train.Options):
    """Train a policy on data sets: nano on the tabletop's, plain on anybody's demonstrations."""

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
    """Most rows of a committed prefix (default: as that of --init, else nano's 8, plain's half a chunk)."""
    commit_share: float = 0.3
    """Share of the noise draws that get a committed prefix."""
    only: Literal["all", "head", "possible"] = "all"
    """With --init, one part alone: the denoising head, or what tells whether all that is named is there."""
    aux: bool = True
    """Teach the prefix what only a simulator knows: pixels and positions of things."""
    rows: int | None = None
    """Rows a chunk: the first ones of nano's data (default: all 12); for plain a second's, 8 to 20."""
    image_size: int | None = None
    """Side of a camera's frames, pixels; larger ones are made smaller (default: nano's 96, plain's 128)."""
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
        if self._plain(folders[0][0]):
            log = plain_train.train(self)
        else:
            log = self._nano(folders)
        if self.json:
            atomic.write_json(self.json, log)
        return 0

    def _plain(self, first: Path) -> bool:
        """Whether the plain policy is trained: on data without an expert's labels, or further.

        Raises:
            TaktError: flags of the other one were given.
        """
        plain = plain_train.fits(first) if self.only == "all" else False
        given = [name for name, value in vars(plain_train.Options()).items() if getattr(self, name) != value]
        if not plain and given:
            raise TaktError(f"--{given[0]} is for demonstrations without an expert's labels")
        if plain and self.text != "minilm":
            raise TaktError(f"{first} has no labels of an expert's: --text is for such data")
        if plain and not self.aux and dataset_body.PLACES not in Dataset(first).features:
            raise TaktError(
                f"{first} does not say where things are: there is nothing for --no-aux to leave out"
            )
        return plain

    def _nano(self, folders: list[tuple[Path, float]]) -> list[dict[str, float]]:
        model = self._model()
        columns = LOOKS if self.only == "possible" else (*COLUMNS, COMMITTED)
        frames = read(folders, model.config, encoder_folder(self.encoder), columns)
        if self.init is None:
            measure(model, frames)
        return Trainer(self, model, frames).run()

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
            saw = [eye.find(each, eye.ask(words)) for eye, each in zip(eyes, maps, strict=True)]
            part.append(given(words, model.joints(b["state"]), saw))
        out.append(torch.stack(part))
    return torch.cat(out, 1)


class Trainer(Loop):
    """What the loop is given to learn of the nano policy, or of a part of it."""

    def __init__(self, options: Command, model: nano.Nano, frames: Frames) -> None:
        self.o, self.model, self.frames = options, model, frames
        # With the rest left as it is, what a part is given for a frame is always the same.
        self.cond = features(model, frames) if options.only == "head" else None
        self.asked = asked(model, frames, options.draws, options.seed) if options.only == "possible" else None
        parts: dict[str, Callable[[], Iterable[nn.Parameter]]] = {
            "head": model.head, "possible": model.possible.parameters, "all": model.parameters
        }  # fmt: skip
        super().__init__(options, model, list(parts[options.only]()), frames.weight)
        losses: dict[str, Callable[..., Any]] = {
            "head": nano_losses.flow_loss, "possible": nano_losses.possible, "all": nano_losses.loss
        }  # fmt: skip
        loss = losses[options.only]
        self.loss = torch.compile(loss) if options.compile else loss

    def losses(
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

    def config(self) -> dict[str, Any]:
        return {"type": "nano", **self.model.config.to_json()}

    def provenance(self) -> dict[str, Any]:
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
