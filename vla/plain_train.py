"""`takt train` on demonstrations of anybody's: what the policy is to be comes from the data's own meta."""

from __future__ import annotations

import json as jsonlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vla import dataset_body, plain, plain_data, plain_losses
from vla.contract import TaktError
from vla.dataset import Dataset
from vla.dataset_body import Body, Told
from vla.dataset_format import one_line
from vla.plain_data import Frames, Wanted
from vla.train_data import encoder_folder
from vla.training import Loop, weighted
from vla.training import Options as LoopOptions

LEAST, MOST = 8, 20  # rows a chunk, where they are not said: a second of them within these
LOOKS = 20  # frames a second that are looked at, where it is not said: neighbours are alike
CACHE = "frames"


@dataclass(kw_only=True)
class Options:
    """Flags for demonstrations of anybody's; the tabletop's own need none of them."""

    absolute: bool = False
    """Every action of the data is a target, as joint angles are."""
    relative: str | None = None
    """These actions of the data are steps, NAME,NAME or all; the others are targets."""
    unit: str | None = None
    """Unit of the actions, one for all or one for each, UNIT,UNIT (default: rad where targets are within a
    turn, else 1)."""
    cameras: str | None = None
    """The cameras to look at, NAME,NAME (default: all of the data's)."""
    dt: float | None = None
    """Seconds from one row of a chunk to the next (default: the data's own rate)."""
    every: int | None = None
    """Learn from one frame in so many (default: so that 20 a second are left)."""
    augment: float = 1.0
    """How far frames are moved and recoloured in training; 0 not at all."""
    crop: list[str] = field(default_factory=list)
    """Look at a square of the frame alone: LEFT,TOP,SIDE, shares of it; one for all cameras, or NAME=... for
    each. The side comes out as a multiple of 8 pixels."""
    bf16: bool = False
    """The eyes' layers in half precision, faster where the processor has it. Not with --compile."""
    width: float = 1.0
    """Of the vision's layers, as a factor."""
    cache: Path | None = None
    """Folder for decoded frames, which stays (default: in OUT, and goes when training is done)."""

    def told(self) -> Told:
        """What was said of the actions."""
        relative = None if self.relative is None else tuple(_split(self.relative))
        return Told(self.absolute, relative, tuple(_split(self.unit or "")))


class Flags(LoopOptions, Protocol):
    """The command's flags that count here."""

    data: list[str]
    init: Path | None
    draws: int
    commit_share: float
    committed: int | None
    rows: int | None
    image_size: int | None
    aux: bool
    compile: bool
    encoder: Path | None
    absolute: bool
    relative: str | None
    unit: str | None
    cameras: str | None
    dt: float | None
    every: int | None
    augment: float
    crop: list[str]
    bf16: bool
    width: float
    cache: Path | None

    def told(self) -> Told: ...


def fits(folder: Path) -> bool:
    """Whether a data set is plain: it has neither an expert's labels nor what the tabletop alone knows."""
    return not any(n.startswith("expert.") or n == "privileged.meaning" for n in Dataset(folder).features)


def train(options: Flags) -> list[dict[str, float]]:
    """Train, or go on; the losses as they fell.

    Raises:
        TaktError: flags or data that do not fit.
    """
    _check(options)
    folders = [weighted(text) for text in options.data]
    cameras = None if options.cameras is None else _split(options.cameras)
    sets, body = plain_data.bodies([path for path, _ in folders], options.told(), cameras)
    before = None if options.init is None else load(options.init)
    if before is None:
        config = sized(options, body, sets[0].robot_type)
        config = replace(config, taught=_told(sets, body, config.keypoints) if options.aux else 0)
        places = config.taught
    else:
        config = _same(before.config, body, options)
        known = _told(sets, body, config.keypoints) if options.aux else 0
        places = known if known == config.taught else 0
        if known and not places:
            print(f"--init {options.init} was taught {config.taught} places, the data tell {known}: left out")
    stride = round(config.dt * body.fps)
    every = options.every or max(1, round(body.fps / LOOKS))
    wanted = Wanted(config.size, config.rows, stride, every, config.later)
    cache = options.cache or options.out / CACHE
    weights = [weight for _, weight in folders]
    encoder = encoder_folder(options.encoder)
    frames = plain_data.read(sets, body, wanted, weights, encoder, cache, places)
    frames.augment, frames.windows = options.augment, config.windows
    model = plain.Plain(config)
    if before is None:
        measure(model, frames)
    else:
        model.load_state_dict(before.state_dict())
    episodes = sum(len(s.episodes) for s in sets)
    print(f"{len(frames.said)} frames of {episodes} episodes, {len(frames.count)} instructions; "
          f"{config.rows} rows, {config.dt:g} s apart; {places} places told", flush=True)  # fmt: skip
    log = Trainer(options, model, frames, every).run()
    if options.cache is None:
        shutil.rmtree(cache, ignore_errors=True)
    return log


def _told(sets: Sequence[Dataset], body: Body, most: int) -> int:
    """Of how many things all data sets say where they are; 0, and a line, where they do not agree.

    Raises:
        TaktError: they are more than the policy has keypoints.
    """
    counts = [dataset_body.places(s, body.cameras) for s in sets]
    if len(set(counts)) > 1:
        said = ", ".join(f"{s.root.name} {count}" for s, count in zip(sets, counts, strict=True))
        print(f"places are left out, since the data sets tell of different numbers: {said}")
        return 0
    if counts[0] > most:
        raise TaktError(
            f"{sets[0].root} tells where {counts[0]} things are, a policy has {most} keypoints: --no-aux"
        )
    return counts[0]


def sized(options: Flags, body: Body, robot: str) -> plain.Config:
    """A new policy of the data's body.

    Raises:
        TaktError: --dt does not fit the data's rate, --committed not the rows.
    """
    stride = 1 if options.dt is None else options.dt * body.fps
    if abs(stride - round(stride)) > 1e-6 or round(stride) < 1:
        raise TaktError(f"--dt {options.dt:g} is no whole number of frames at {body.fps} a second")
    if round(stride) > 1 and not body.actions.absolute.all():
        raise TaktError("--dt is for actions that are all targets: steps would have to be summed")
    dt = round(stride) / body.fps
    rows = options.rows or int(np.clip(round(1 / dt), LEAST, MOST))
    committed = rows // 2 if options.committed is None else options.committed
    if not 0 <= committed < rows:
        raise TaktError(f"--committed is from 0 to {rows - 1} rows of the chunk's {rows}")
    return plain.Config(
        cameras=body.cameras,
        state=body.state,
        actions=body.actions.dimensions,
        rows=rows,
        dt=dt,
        name=f"plain {robot}".strip(),
        size=options.image_size or 128,
        stem=_wide(16, options.width),
        fine=_wide(32, options.width),
        coarse=_wide(64, options.width),
        committed=committed,
        windows=_windows(options.crop, body.cameras, options.image_size or 128),
        later=(rows // 2, rows, 2 * rows, 4 * rows),
    )


def _windows(told: Sequence[str], cameras: Sequence[str], size: int) -> tuple[tuple[int, int, int], ...]:
    """The square of each camera's frame that is looked at: left, top, side, pixels; () for all of it.

    Raises:
        TaktError: no square of such a camera's frame, or too small a one.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for text in told:
        name, _, numbers = text.rpartition("=")
        try:
            left, top, share = (float(number) for number in numbers.split(","))
        except ValueError:
            raise TaktError(f"--crop {text}: three numbers are wanted, LEFT,TOP,SIDE") from None
        if not (0 < share <= 1 and min(left, top) >= 0 and max(left, top) + share <= 1 + 1e-6):
            raise TaktError(f"--crop {text}: shares of the frame, from 0 to 1, and not beyond its edge")
        side = round(share * size / 8) * 8
        if side < 16:
            raise TaktError(f"--crop {text}: at least 16 of the {size} pixels of a side are wanted")
        if (name and name not in cameras) or name in found:
            raise TaktError(f"--crop {text}: each of {', '.join(cameras)} once, or one for all of them")
        found[name] = (min(round(left * size), size - side), min(round(top * size), size - side), side)
    return tuple(found.get(camera, found.get("", (0, 0, size))) for camera in cameras) if found else ()


def _wide(channels: int, factor: float) -> int:
    """Whole groups of channels."""
    return max(1, round(channels * factor / plain.GROUPS)) * plain.GROUPS


def _same(config: plain.Config, body: Body, options: Flags) -> plain.Config:
    """The sizes of --init, if the data are of its body."""
    kinds = [
        [(d.name, d.unit, d.absolute) for d in each] for each in (config.actions, body.actions.dimensions)
    ]
    ours, theirs = (config.state, config.cameras, kinds[0]), (body.state, body.cameras, kinds[1])
    if ours != theirs or abs(round(config.dt * body.fps) / body.fps - config.dt) > 1e-9:
        raise TaktError(
            f"--init {options.init} is of another body or rate than the data: {ours} against {theirs}"
        )
    if options.rows or options.image_size or options.dt or options.crop or options.width != 1.0:
        raise TaktError(
            "--rows, --image-size, --crop, --dt and --width are for a new policy; --init has its own"
        )
    if options.committed is not None and not 0 <= options.committed < config.rows:
        raise TaktError(f"--committed is from 0 to {config.rows - 1} rows of the chunk's {config.rows}")
    return config if options.committed is None else replace(config, committed=options.committed)


def measure(model: plain.Plain, frames: Frames) -> None:
    """Set the model's normalisation from the data: of rows before an episode's end, a dimension at a time."""
    spread = frames.state.std(0, correction=0)
    model.state_mean.copy_(frames.state.mean(0))
    model.state_std.copy_(_floor(spread))
    model.later_std.copy_(_floor((frames.later - frames.state[:, None]).square().mean(0).sqrt()))
    offset = frames.chunk - model.origin(frames.state)[:, None]
    kept = offset[frames.valid > 0]
    # Steps of one kind whenever they come; targets lie the farther the later they are.
    steps = torch.tensor([not d.absolute for d in model.config.actions])
    count = frames.valid.sum(0)[:, None].clamp(min=1)
    mean = (offset * frames.valid[:, :, None]).sum(0) / count
    var = ((offset - mean) ** 2 * frames.valid[:, :, None]).sum(0) / count
    model.action_mean.copy_(torch.where(steps, kept.mean(0), mean))
    model.action_std.copy_(_floor(torch.where(steps, kept.std(0, correction=0), var.sqrt())))
    if frames.places is not None:
        there = frames.places[..., 3:]
        count, at = there.sum(0).clamp(min=1), frames.places[..., :3]
        model.place_mean.copy_((at * there).sum(0) / count)
        spread = (((at - model.place_mean) ** 2 * there).sum(0) / count).sqrt()
        model.place_std.copy_(spread.clamp(min=0.01))


def _floor(spread: Tensor) -> Tensor:
    """What hardly moves is not blown up: nothing below a hundredth of the largest; 1 where nothing moves."""
    largest = float(spread.max())
    return spread.clamp(min=largest * 0.01) if largest > 1e-9 else torch.ones_like(spread)


class Trainer(Loop):
    """The loop over plain demonstrations."""

    def __init__(self, options: Flags, model: plain.Plain, frames: Frames, every: int) -> None:
        super().__init__(options, model, list(model.parameters()), frames.weight)
        self.o, self.model, self.frames, self.every = options, model, frames, every
        if options.bf16:  # what is read from the maps, keypoints too, and the head keep their full precision
            for eye in model.eyes:
                sight = cast(plain.Eye, eye).sight
                half = torch.autocast("cpu", torch.bfloat16)
                sight.forward = half(sight.forward)  # type: ignore[method-assign]
        self.loss = torch.compile(plain_losses.loss) if options.compile else plain_losses.loss

    def losses(
        self, index: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> dict[str, Tensor]:
        batch = self.frames.batch(np.sort(index), rng, generator)
        return self.loss(self.model, batch, self.o.draws, generator, self.o.commit_share)

    def config(self) -> dict[str, Any]:
        return {"type": "plain", **self.model.config.to_json()}

    def provenance(self) -> dict[str, Any]:
        o = self.o
        taught = 0 if self.frames.places is None else self.model.config.taught
        names = [f"{path.name}:{weight:g}" for path, weight in map(weighted, o.data)]
        return {
            "init": o.init.name if o.init else None, "data": names, "frames": len(self.frames.said),
            "every": self.every, "steps": o.steps, "batch": o.batch, "draws": o.draws, "rate": o.rate,
            "seed": o.seed, "augment": o.augment, "committed": self.model.config.committed,
            "commit_share": o.commit_share, "taught": taught, "bf16": o.bf16,
        }  # fmt: skip


def load(folder: Path) -> plain.Plain:
    """A plain checkpoint.

    Raises:
        TaktError: the folder is none, or its weights do not fit its config.
    """
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise TaktError(f"{folder} is not a checkpoint: config.json and model.safetensors are wanted")
    try:
        config = jsonlib.loads((folder / "config.json").read_text())
        if config.pop("type", None) != "plain":
            raise TaktError(f"{folder}/config.json does not describe a plain policy")
        model = plain.Plain(plain.Config.from_json(config))
    except TaktError as error:
        raise TaktError(f"{folder}: {error}") from None
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise TaktError(f"{folder}/config.json is malformed: {one_line(error)}") from None
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise TaktError(f"{folder}/model.safetensors does not fit config.json: {one_line(error)}") from None
    return model


def _check(options: Flags) -> None:
    if not (0 <= options.augment <= 4 and 0.25 <= options.width <= 4):
        raise TaktError("--augment is from 0 to 4, --width from 0.25 to 4")
    if options.bf16 and options.compile:
        raise TaktError("--bf16 is not for --compile: choose one")
    every, rows = _or(options.every, 1), _or(options.rows, 1)
    if every < 1 or not 1 <= rows <= 1000:
        raise TaktError("--every is at least 1, --rows from 1 to 1000")
    size = _or(options.image_size, 128)
    if not 16 <= size <= 512 or size % 8:
        raise TaktError("--image-size is from 16 to 512 and a multiple of 8")


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
