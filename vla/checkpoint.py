"""A folder people have -> a policy. Entry point `checkpoint` of `takt.policies`.

Folders say what a policy computes and not what its numbers are: names, units and the rate of rows are its
data set's. A file `takt.json` in the folder says them; all of it is optional:

    {"fps": 30,                                rows a second
     "state": ["shoulder_pan", ...],           names, in order
     "actions": ["shoulder_pan", ...],
     "scale": [0.01745, ...], "shift": [...],  number * scale + shift = SI unit, for state and actions
     "unit": ["rad", ...],
     "absolute": [false, ...],                 false: a step, as simulation suites have them; not a target
     "cameras": {"top": "front", "wrist": null},   the policy's name -> the robot's; null: not there
     "tokenizer": "tokenizer.json", "steps": 10, "dtype": "bfloat16",
     "prompt_state": "padded",                 pi0.5: what of the state is in its words (pi0_folder.py)
     "asset": "droid",                         of which robot, where there are statistics of several
     "rows": 10, "relative": [true, false],    openpi's folders: action_horizon, DeltaActions
     "hub": "OWNER/NAME@COMMIT"}               the rest of the folder is there (hub.py)

Without it a vector of six is an SO-101's joints, in rad where its statistics are within a turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vla import (
    act_folder,
    fold,
    folder,
    folder_spec,
    hub,
    openpi_folder,
    pi0_folder,
    preprocess,
    smolvla_folder,
)  # fmt: skip
from vla.contract import ActionChunk, CameraSpec, Observation, PolicySpec, Prefix, TaktError
from vla.folder import Folder
from vla.folder_spec import Camera
from vla.graphed import Pieces
from vla.policy import TorchSampler, sampled
from vla.preprocess import Prompt, Words
from vla.stored import object_of

MAKERS: dict[str, Callable[[Folder, torch.dtype], Any]] = {
    "smolvla": smolvla_folder.made,
    "pi0": pi0_folder.made,
    "pi05": pi0_folder.made,
    "act": act_folder.made,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What torch and arithmetic raise where numbers of a folder do not fit together.
MISFITS = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError)


# The keys of takt.json.
EXTRA = (
    "fps", "state", "actions", "scale", "shift", "unit", "absolute", "cameras", "tokenizer", "steps", "dtype",
    "bars", "shifted", "prompt_state", "hub", "asset",
)  # fmt: skip
OPENPI = ("rows", "relative")  # of openpi's folders alone


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


class CheckpointPolicy(TorchSampler):
    """A model of a folder, with its words and its sampler, as a `Policy`; run by torch.

    Attributes:
        prompt: how an instruction becomes what is read.
    """

    def __init__(
        self,
        model: Model,
        spec: PolicySpec,
        cameras: Sequence[Camera],
        kind: str,
        words: Words | None,
        steps: int,
        clock: Callable[[], float] = time.monotonic,
        prompt: Prompt | None = None,
        whole: bool = False,
    ) -> None:
        """
        Args:
            cameras: in the model's order. kind: of MAKERS. words: None for a policy without. steps: of the
                sampler. prompt: how an instruction becomes what is read, by default SmolVLA's way.
            whole: a chunk is one piece (`graphed.Graphed`), on the model's device; a deadline cannot end it.
        """
        super().__init__(spec, spec.joining, clock)
        self._whole: Pieces | None = Pieces(model, steps) if whole else None
        self._model, self._cameras, self._kind = model, cameras, kind
        self._words, self._steps = words, steps
        self.prompt = prompt or Prompt.from_json({"form": "line"}, len(spec.state))

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
        rows, x = self._rows(prefix), self._noise(self._model.noise_shape)
        seconds: list[float] = []
        if self._whole is None:
            memory = self._model.prefix(frames, present, state, ids, mask)
            marks.append(self._clock())
            due = None if deadline is None else marks[0] + deadline
            actions, seconds = sampled(self._model.step, memory, x, self._steps, rows, due, self._clock)
        else:
            marks.append(self._clock())  # all of it is counted as steps
            actions = self._whole(frames, present, state, ids, mask, x, *rows)
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
        ids, mask = self._words(self.prompt.of(text, state[0].numpy()))
        if ids.max() >= self._model.config.vocabulary:
            raise TaktError(
                f"the tokenizer gave token {ids.max()}, policy {self.spec.name!r} knows "
                f"{self._model.config.vocabulary}: it is another model's tokenizer.json"
            )
        return torch.from_numpy(ids), torch.from_numpy(mask)


def open_folder(place: str, threads: int = 1, device: str = "cpu") -> CheckpointPolicy:
    """The policy of a folder.

    Args:
        place: the folder, or hub:OWNER/NAME@COMMIT.
        threads: of torch, in the whole process.
        device: what torch runs it on, cpu or cuda; on a GPU a chunk is one CUDA graph of the folded model.

    Raises:
        TaktError: it is none that is known, or something in it is wrong; one line that names it.
    """
    try:
        return _open(place, threads, device)
    except TaktError as e:  # a folder's own words may hold newlines
        raise TaktError(" ".join(str(e).split())) from None
    except MISFITS as e:
        # A number in the folder that no check above has foreseen.
        what = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise TaktError(f"{place}: its files do not fit together ({what})") from None


def _open(place: str, threads: int, device: str) -> CheckpointPolicy:
    if device == "cuda" and not torch.cuda.is_available():
        raise TaktError(f"torch {torch.__version__} sees no GPU here: leave --engine cuda out")
    read = found(place)
    torch.set_num_threads(threads)
    if read.kind in ("nano", "plain"):
        raise TaktError(
            f"{place} is a {read.kind} checkpoint: make a bundle of it first, takt export {place} OUT"
        )
    if read.kind not in MAKERS:
        raise TaktError(f"{place} is a policy of type {read.kind!r}; known: {', '.join(sorted(MAKERS))}")
    dtype = str(read.extra.get("dtype", "float32"))
    if dtype not in DTYPES:
        raise TaktError(f"{place}/takt.json: no dtype {dtype!r}; known: {', '.join(DTYPES)}")
    model = MAKERS[read.kind](read, DTYPES[dtype])
    folder_spec.rescale(read, model)
    cameras = folder_spec.cameras(read)
    steps, words = 1, None  # ACT has neither noise nor words
    if read.kind != "act":
        steps = _count(read, "num_steps" if read.kind == "smolvla" else "num_inference_steps")
        words = Words(tokenizer(read), model.config.words, strip=False)
    prompt = pi0_folder.prompt(read, model) if read.kind.startswith("pi") else None
    spec = folder_spec.spec(read, cameras, model.config.rows)
    if device != "cpu":
        model = (model if read.kind == "act" else fold.folded(model, steps)).to(device)
    whole = device != "cpu"
    return CheckpointPolicy(model, spec, cameras, read.kind, words, steps, prompt=prompt, whole=whole)


def found(place: str) -> Folder:
    """A folder of LeRobot's or of openpi's, checked, before anything is built of it.

    Args:
        place: the folder; hub:OWNER/NAME@COMMIT; or a folder whose takt.json names such a place.

    Raises:
        TaktError: it is neither, or something in it is wrong; one line that names it.
    """
    there = place if place.startswith(hub.START) else ""
    home = hub.fetched(there) if there else Path(place)
    extra = object_of(home / "takt.json") if (home / "takt.json").is_file() else {}
    if "hub" in extra and not there:
        there = f"{hub.START}{extra['hub']}"
    path = hub.fetched(there) if there else home
    openpi = openpi_folder.fits(path)
    known = (*EXTRA, *(OPENPI if openpi else ()))
    strange = sorted(set(extra) - set(known))
    if strange:
        raise TaktError(f"{home}/takt.json: no key {strange[0]!r}; known: {', '.join(known)}")
    read = openpi_folder.read(path, extra) if openpi else folder.read(path, extra)
    read.home, read.title = home, hub.title(there) if there else read.title
    return read


def _count(read: Folder, name: str) -> int:
    return read.whole("steps", read.extra["steps"]) if "steps" in read.extra else read.number(name, 10)


def tokenizer(read: Folder) -> Path:
    """Where a folder's tokenizer is: as takt.json says, which may be on the hub; in it; or in the local
    folder it was trained with.

    Raises:
        TaktError: nowhere.
    """
    named = read.steps.get("tokenizer_processor", {}).get("tokenizer_name") or read.config.get(
        "vlm_model_name"
    )
    places = [read.home / "tokenizer.json", read.path / "tokenizer.json"]
    said = str(read.extra.get("tokenizer", ""))
    if said.startswith(hub.START):
        places.insert(0, hub.fetched(said, ("tokenizer.json",)) / "tokenizer.json")
    elif said:
        places.insert(0, read.home / said)
    if named:
        places.append(read.path / str(named) / "tokenizer.json")
    for place in places:
        if place.is_file():
            return place
    usual = "google/paligemma-3b-pt-224" if read.kind.startswith("pi") else "its language model"
    if read.home == read.path and read.title != read.path.resolve().name:  # of the hub alone
        raise TaktError(
            f"hub:{read.title} has no tokenizer: in a folder of yours write a takt.json with its place as "
            f'"hub" and "tokenizer": "hub:{named or usual}@COMMIT", and open that folder'
        )
    raise TaktError(f"{read.home} has no tokenizer: put the tokenizer.json of {named or usual} into it")
