"""Words and frames become the arrays a graph takes. numpy and tokenizers only.

Scaling, normalising and their inverses live inside the graphs; here frames stay uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from vla.contract import CameraSpec, Observation, PolicySpec, Prefix, TaktError


class Words:
    """A tokenizer with a fixed length, so that graphs keep static shapes."""

    def __init__(self, path: Path, length: int, strip: bool = True) -> None:
        """`strip`: leave out what is blank around a text."""
        self.length, self._strip = length, strip
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise TaktError(f"{path} is no tokenizer ({error}): export the policy again") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """ids and mask, each shape (1, length), int64.

        Raises:
            TaktError: the text has more tokens; what comes last would not be read.
        """
        ids = self._tokenizer.encode(text.strip() if self._strip else text).ids
        if len(ids) > self.length:
            raise TaktError(
                f"the instruction has {len(ids)} tokens, the policy reads {self.length}: say it shorter"
            )
        row = np.zeros((1, self.length), np.int64)
        row[0, : len(ids)] = ids
        mask = np.zeros((1, self.length), np.int64)
        mask[0, : len(ids)] = 1
        return row, mask


def line(text: str, state: np.ndarray) -> str:
    """A text that ends with the end of a line, as SmolVLA and pi0 read it."""
    return text if text.endswith("\n") else text + "\n"


def tidy(text: str) -> str:
    """An instruction as openpi has it, on one line."""
    return text.strip().replace("_", " ").replace("\n", " ")


def tidied(text: str, state: np.ndarray) -> str:
    """What openpi's pi0 reads."""
    return tidy(text) + "\n"


def with_state(text: str, state: np.ndarray) -> str:
    """What pi0.5 reads (arXiv 2504.16054): the instruction, and the state as numbers.

    Args:
        state: normalised, the robot's numbers, after which there may be zeros; -1 .. 1 become 0 .. 255.
    """
    edges = np.linspace(-1, 1, 257)[:-1]
    bins = np.searchsorted(edges, state.astype(np.float64), side="right") - 1
    return f"Task: {tidy(text)}, State: {' '.join(map(str, bins.tolist()))};\nAction: "


def plain(text: str, state: np.ndarray) -> str:
    return text


# How an instruction and the normalised state become the text that a policy reads.
FORMS: dict[str, Callable[[str, np.ndarray], str]] = {
    "plain": plain, "line": line, "tidied": tidied, "with_state": with_state,
}  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """
    Attributes:
        form: of FORMS.
        shift, gain, offset: of the state's normalisation, (state - shift) * gain + offset, each (S,).
        width: the normalised state is filled up with zeros to it.
    """

    form: str
    shift: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    width: int

    @staticmethod
    def from_json(data: Mapping[str, Any], states: int) -> Prompt:
        """Of policy.json's "prompt", for a state of `states` numbers; a ValueError says what is wrong."""
        form, width = str(data.get("form", "plain")), int(data.get("width", states))
        if form not in FORMS:
            raise ValueError(f"prompt has the form {form!r}; known: {', '.join(FORMS)}")
        starts = {"shift": 0.0, "gain": 1.0, "offset": 0.0}
        rows = [
            np.asarray(data.get(name, [start] * states), np.float32).reshape(-1)
            for name, start in starts.items()
        ]
        if not all(row.shape == (states,) and np.isfinite(row).all() for row in rows):
            raise ValueError(f"prompt has a shift, gain or offset that is not {states} numbers")
        if not states <= width <= 10_000:
            raise ValueError(f"prompt has the width {width} for a state of {states}")
        return Prompt(form, rows[0], rows[1], rows[2], width)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        if self.form != "with_state":
            return {"form": self.form}
        rows = {name: getattr(self, name).tolist() for name in ("shift", "gain", "offset")}
        return {"form": self.form, "width": self.width, **rows}

    @property
    def strips(self) -> bool:
        """Whether blanks around the text are no part of it."""
        return self.form == "plain"

    def __call__(self, observation: Observation) -> str:
        """The text to read."""
        return self.of(observation.instruction, np.asarray(observation.state, np.float32))

    def of(self, text: str, physical: np.ndarray) -> str:
        """The text to read for a state (S,), physical."""
        state = np.zeros(self.width, np.float32)
        if self.form == "with_state":
            state[: len(physical)] = (physical - self.shift) * self.gain + self.offset
        return FORMS[self.form](text, state)


def frame(observation: Observation, camera: CameraSpec) -> np.ndarray:
    """One camera's frame at the policy's size, shape (1, height, width, 3), uint8.

    A frame of another size is resized: whole factors by area averaging, others by nearest pixel.

    Raises:
        TaktError: the camera is missing, or the frame is not uint8 RGB.
    """
    image = picture(observation, camera.name)
    if image.shape[:2] != (camera.height, camera.width):
        image = resize(image, camera.height, camera.width)
    return np.ascontiguousarray(image)[None]


def picture(observation: Observation, camera: str) -> np.ndarray:
    """One camera's frame as it came, shape (h, w, 3), uint8.

    Raises:
        TaktError: the camera is missing, or the frame is not uint8 RGB.
    """
    image = observation.frames.get(camera)
    if image is None:
        raise TaktError(
            f"camera {camera!r} is missing from the observation; it has {sorted(observation.frames)}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise TaktError(
            f"camera {camera!r} gave {image.dtype} {image.shape}; wanted uint8 (height, width, 3)"
        )
    return np.ascontiguousarray(image)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shape (h, w, 3) -> (height, width, 3), uint8."""
    h, w = image.shape[:2]
    if h % height == 0 and w % width == 0:
        blocks = image.reshape(height, h // height, width, w // width, 3)
        return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    rows = (np.arange(height) + 0.5) * h / height
    columns = (np.arange(width) + 0.5) * w / width
    return image[rows.astype(int)][:, columns.astype(int)]


def state(observation: Observation, spec: PolicySpec) -> np.ndarray:
    """Shape (1, S), float32.

    Raises:
        TaktError: the length differs from the policy's, or a value is not finite.
    """
    row = np.asarray(observation.state, np.float32)
    if row.shape != (len(spec.state),):
        raise TaktError(f"state has shape {row.shape}; the policy wants {list(spec.state)}")
    if not np.isfinite(row).all():
        raise TaktError("state holds a value that is not finite")
    return row[None]


def check_prefix(prefix: Prefix, spec: PolicySpec) -> None:
    """Compare the rows of a running plan with the policy's.

    Raises:
        TaktError: the shapes differ, a value is not finite, or a weight is outside 0 .. 1.
    """
    shape = (spec.chunk_length, spec.actions.size)
    if prefix.actions.shape != shape or prefix.weights.shape != shape[:1]:
        raise TaktError(f"a prefix has actions {shape} and a weight a row, got {prefix.actions.shape}")
    if not (np.isfinite(prefix.actions).all() and ((prefix.weights >= 0) & (prefix.weights <= 1)).all()):
        raise TaktError("a prefix has finite actions and weights from 0 to 1")
