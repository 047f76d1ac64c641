"""A folder people have -> a policy. Entry point `checkpoint` of `takt.policies`.

LeRobot's folders say what a policy computes and not what its numbers are: names, units and the rate of rows
are its data set's. A file `takt.json` in the folder says them; all of it is optional:

    {"fps": 30,                                rows a second
     "state": ["shoulder_pan", ...],           names, in order
     "actions": ["shoulder_pan", ...],
     "scale": [0.01745, ...], "shift": [...],  number * scale + shift = SI unit, for state and actions
     "unit": ["rad", ...],
     "cameras": {"top": "front", "wrist": null},   the policy's name -> the robot's; null: not there
     "tokenizer": "tokenizer.json", "steps": 10, "dtype": "bfloat16"}

Without it a vector of six is an SO-101's joints, in rad where its statistics are within a turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vla import act_folder, folder, pi0, pi0_folder, preprocess, smolvla_folder
from vla.contract import (
    ActionChunk,
    ActionSpace,
    CameraSpec,
    Dimension,
    Observation,
    PolicySpec,
    Prefix,
    TaktError,
)
from vla.folder import ACTION, IMAGES, STATE, Folder
from vla.policy import TorchSampler, sampled
from vla.preprocess import Words

SO101 = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
MAKERS: dict[str, Callable[[Folder, torch.dtype], Any]] = {
    "smolvla": smolvla_folder.made,
    "pi0": pi0_folder.made,
    "pi05": pi0_folder.made,
    "act": act_folder.made,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EMPTY = "empty_camera_"  # what LeRobot calls the cameras it trains without pictures
FPS = 30.0
# What torch and arithmetic raise where numbers of a folder do not fit together.
MISFITS = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError)


# The keys of takt.json.
EXTRA = (
    "fps", "state", "actions", "scale", "shift", "unit", "cameras", "tokenizer", "steps", "dtype", "bars",
    "shifted",
)  # fmt: skip


class Model(Protocol):
    """What smolvla.SmolVLA, pi0.Pi0 and act.ACT have in common."""

    of_state: Any
    config: Any

    @property
    def noise_shape(self) -> tuple[int, int]: ...

    def prefix(
        self, frames: list[Tensor], present: Tensor, state: Tensor, ids: Tensor, mask: Tensor
    ) -> Any: ...

    def step(self, memory: Any, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, weights: Tensor) -> Any: ...


@dataclass(frozen=True)
class Camera:
    """A policy's camera: the robot's name for it, None where it has none, and its trained size."""

    robot: str | None
    height: int
    width: int


class CheckpointPolicy(TorchSampler):
    """A model of a folder, with its words and its sampler, as a `Policy`; run by torch."""

    def __init__(
        self,
        model: Model,
        spec: PolicySpec,
        cameras: Sequence[Camera],
        kind: str,
        words: Words | None,
        steps: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            cameras: in the model's order. kind: of MAKERS. words: None for a policy without. steps: of the
                sampler.
        """
        super().__init__(spec, spec.joining, clock)
        self._model, self._cameras, self._kind = model, cameras, kind
        self._words, self._steps = words, steps

    @property
    def model(self) -> Any:
        """What `takt export` makes graphs of."""
        return self._model

    @property
    def kind(self) -> str:
        """Of MAKERS."""
        return self._kind

    @property
    def steps(self) -> int:
        """Of the sampler."""
        return self._steps

    @torch.inference_mode()
    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        """A chunk of shape (H, A).

        Near the `deadline` (s from now) a step is the last when twice the slowest so far does not fit.

        Raises:
            TaktError: the observation or the prefix does not fit the spec.
        """
        marks = [self._clock()]
        frames, present = self._frames(observation)
        state = torch.from_numpy(preprocess.state(observation, self.spec))
        marks.append(self._clock())
        ids, mask = self._tokens(observation.instruction, state)
        marks.append(self._clock())
        memory = self._model.prefix(frames, present, state, ids, mask)
        marks.append(self._clock())
        due = None if deadline is None else marks[0] + deadline
        rows, x = self._rows(prefix), self._noise(self._model.noise_shape)
        actions, seconds = sampled(self._model.step, memory, x, self._steps, rows, due, self._clock)
        marks.append(self._clock())
        answer = actions[0].float().numpy()
        if not np.isfinite(answer).all():
            raise TaktError(
                f"policy {self.spec.name!r} gave actions that are not finite: look at its weights"
            )
        names = ("preprocess", "words", "prefix", "steps")
        stages = dict(zip(names, np.diff(marks).tolist(), strict=True))
        return ActionChunk(observation.time, self.spec.dt, answer, stages, tuple(seconds), marks[0])

    def _frames(self, observation: Observation) -> tuple[list[Tensor], Tensor]:
        """One frame a camera, black where it is not there, and which are, (1, views)."""
        sized = self._kind == "act"  # the others bring a frame to their size with its aspect kept
        frames, present = [], []
        for camera in self._cameras:
            there = camera.robot is not None
            if camera.robot is not None and sized:
                image = preprocess.frame(observation, CameraSpec(camera.robot, camera.height, camera.width))
            elif camera.robot is not None:
                image = preprocess.picture(observation, camera.robot)[None]
            else:
                image = np.zeros((1, camera.height, camera.width, 3), np.uint8)
            frames.append(torch.from_numpy(image))
            present.append(there)
        return frames, torch.tensor([present])

    def _tokens(self, text: str, state: Tensor) -> tuple[Tensor, Tensor]:
        if self._words is None:
            return torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, dtype=torch.int64)
        if self._kind == "pi05":
            c = self._model.config
            normal = F.pad(self._model.of_state(state)[0], (0, c.padded_state - c.state))
            text = pi0.prompt(text, normal)
        elif not text.endswith("\n"):
            text += "\n"
        ids, mask = self._words(text)
        if ids.max() >= self._model.config.vocabulary:
            raise TaktError(
                f"the tokenizer gave token {ids.max()}, policy {self.spec.name!r} knows "
                f"{self._model.config.vocabulary}: it is another model's tokenizer.json"
            )
        return torch.from_numpy(ids), torch.from_numpy(mask)


def open_folder(place: str, threads: int = 1) -> CheckpointPolicy:
    """The policy of a folder.

    Args:
        threads: of torch, in the whole process.

    Raises:
        TaktError: it is none that is known, or something in it is wrong; one line that names it.
    """
    try:
        return _open(place, threads)
    except MISFITS as e:
        # A number in the folder that no check above has foreseen.
        what = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise TaktError(f"{place}: its files do not fit together ({what})") from None


def _open(place: str, threads: int) -> CheckpointPolicy:
    read = folder.read(Path(place))
    torch.set_num_threads(threads)
    strange = sorted(set(read.extra) - set(EXTRA))
    if strange:
        raise TaktError(f"{place}/takt.json: no key {strange[0]!r}; known: {', '.join(EXTRA)}")
    if read.kind == "nano":
        raise TaktError(f"{place} is a nano checkpoint: make a bundle of it first, takt export {place} OUT")
    if read.kind not in MAKERS:
        raise TaktError(f"{place} is a policy of type {read.kind!r}; known: {', '.join(sorted(MAKERS))}")
    dtype = str(read.extra.get("dtype", "float32"))
    if dtype not in DTYPES:
        raise TaktError(f"{place}/takt.json: no dtype {dtype!r}; known: {', '.join(DTYPES)}")
    model = MAKERS[read.kind](read, DTYPES[dtype])
    _rescale(read, model)
    cameras = _cameras(read)
    steps, words = 1, None  # ACT has neither noise nor words
    if read.kind != "act":
        steps = _count(read, "num_steps" if read.kind == "smolvla" else "num_inference_steps")
        words = Words(tokenizer(read), model.config.words, strip=False)
    return CheckpointPolicy(model, _spec(read, cameras, model.config.rows), cameras, read.kind, words, steps)


def _count(read: Folder, name: str) -> int:
    steps = read.extra.get("steps", read.number(name, 10))
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise TaktError(f"{read.path}: {steps!r} is no number of steps")
    return steps


def tokenizer(read: Folder) -> Path:
    """Where a folder's tokenizer is: as takt.json says, in it, or in the local folder it was trained with.

    Raises:
        TaktError: nowhere.
    """
    named = read.steps.get("tokenizer_processor", {}).get("tokenizer_name") or read.config.get(
        "vlm_model_name"
    )
    places = [read.path / "tokenizer.json"]
    if "tokenizer" in read.extra:
        places.insert(0, read.path / str(read.extra["tokenizer"]))
    if named:
        places.append(read.path / str(named) / "tokenizer.json")
    for place in places:
        if place.is_file():
            return place
    raise TaktError(
        f"{read.path} has no tokenizer: put the tokenizer.json of {named or 'its language model'} into it"
    )


def _cameras(read: Folder) -> list[Camera]:
    names = _renamed(read) | _object(read, "cameras")
    unknown = sorted(set(names) - set(read.cameras))
    if unknown:
        raise TaktError(
            f"{read.path}/takt.json names a camera {unknown[0]!r}; there are {', '.join(read.cameras)}"
        )
    found = []
    for camera in read.cameras:
        robot = names.get(camera, None if camera.startswith(EMPTY) else camera)
        shape = read.inputs[IMAGES + camera].shape
        if len(shape) != 3 or shape[0] != 3 or not (robot is None or isinstance(robot, str)):
            raise TaktError(f"{read.path}: camera {camera!r} has shape {list(shape)} and the name {robot!r}")
        found.append(Camera(robot, shape[1], shape[2]))
    if not any(c.robot for c in found):
        raise TaktError(f"{read.path}: no camera is left")
    if read.kind == "act" and not all(c.robot for c in found):
        raise TaktError(f"{read.path}: an ACT policy cannot do without one of its cameras")
    return found


def _renamed(read: Folder) -> dict[str, Any]:
    """Cameras that the preprocessor renames: the policy's name -> the robot's."""
    table = read.steps.get("rename_observations_processor", {}).get("rename_map") or {}
    if not isinstance(table, dict) or not all(
        isinstance(name, str) and name.startswith(IMAGES) for pair in table.items() for name in pair
    ):
        raise TaktError(
            f"{read.path}/policy_preprocessor.json: rename_map may rename cameras alone, not {table}"
        )
    return {ours.removeprefix(IMAGES): robots.removeprefix(IMAGES) for robots, ours in table.items()}


def _object(read: Folder, name: str) -> dict[str, Any]:
    value = read.extra.get(name, {})
    if not isinstance(value, dict):
        raise TaktError(f"{read.path}/takt.json: {name} is no object")
    return value


def _list(read: Folder, name: str, width: int, default: Sequence[Any], kind: type) -> list[Any]:
    value = read.extra.get(name, list(default))
    good = isinstance(value, list) and len(value) == width
    if not good or not all(isinstance(v, (int, float) if kind is float else kind) for v in value):
        raise TaktError(f"{read.path}/takt.json: {name} is a list of {width}, got {value!r}")
    return value


def _units(read: Folder, width: int) -> tuple[Tensor, Tensor]:
    """Of the policy's numbers into SI units: what each is multiplied by, what is then added; (width,)."""
    scale = _list(read, "scale", width, [1.0] * width, float)
    if not all(math.isfinite(v) and v for v in scale):
        raise TaktError(f"{read.path}/takt.json: scale has a 0 or what is not finite")
    return torch.tensor(scale), torch.tensor(_list(read, "shift", width, [0.0] * width, float))


def _rescale(read: Folder, model: Any) -> None:
    """Let the model's numbers be SI units."""
    for name, normal in ((STATE, model.of_state), (ACTION, model.of_actions)):
        if name in read.inputs or name in read.outputs:
            normal.rescale(*_units(read, read.width(name)))


def _spec(read: Folder, cameras: Sequence[Camera], rows: int) -> PolicySpec:
    width = read.width(ACTION)
    states = read.width(STATE) if STATE in read.inputs else 0
    names = _list(read, "actions", width, _names(width), str)
    fps = read.extra.get("fps", FPS)
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < 1e4:
        raise TaktError(f"{read.path}/takt.json: fps is {fps!r}")
    lower, upper, units = _range(read, width)
    dimensions = [Dimension(*each) for each in zip(names, units, lower, upper, strict=True)]
    taken = read.number("n_action_steps", rows)
    if not 1 <= taken <= rows:
        raise TaktError(f"{read.path}/config.json: n_action_steps is {taken}, of {rows} rows")
    return PolicySpec(
        name=f"{read.kind} {read.path.resolve().name}",
        state=tuple(_list(read, "state", states, _names(states), str)),
        actions=ActionSpace(tuple(dimensions)),
        cameras=tuple(CameraSpec(c.robot, c.height, c.width) for c in cameras if c.robot is not None),
        chunk_length=rows,
        dt=1.0 / fps,
        replan=taken / fps,
        joining="none" if read.kind == "act" else "guided",
    )


def _names(width: int) -> tuple[str, ...]:
    return SO101 if width == len(SO101) else tuple(f"joint_{i}" for i in range(width))


def _range(read: Folder, width: int) -> tuple[list[float], list[float], list[str]]:
    """Limits and units of the actions: what they were in training; rad where that is within a turn."""
    scale, shift = _units(read, width)
    turn = torch.full((width,), 2 * math.pi)
    known = _reach(read, width)
    one, two = ((each * scale + shift) for each in (known or (-turn, turn)))
    low, high = torch.minimum(one, two), torch.maximum(one, two)
    rad = known is not None and bool((low >= -turn).all() and (high <= turn).all())
    units = _list(read, "unit", width, ["rad" if rad else "1"] * width, str)
    return low.tolist(), high.tolist(), units


def _reach(read: Folder, width: int) -> tuple[Tensor, Tensor] | None:
    """From where to where the actions went in training, by the statistics that are there."""
    stats = {name: value.float().reshape(-1) for name, value in read.stats.get(ACTION, {}).items()}
    stats = {
        name: value for name, value in stats.items() if value.shape == (width,) and value.isfinite().all()
    }
    for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
        if low in stats and high in stats:
            return stats[low], stats[high]
    if "mean" in stats and "std" in stats:
        return stats["mean"] - 3 * stats["std"], stats["mean"] + 3 * stats["std"]
    return None
