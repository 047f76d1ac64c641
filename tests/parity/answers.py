"""What LeRobot said, and the same asked of our model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vla import folder
from vla.checkpoint import MAKERS
from vla.folder import Folder

SIZE = (60, 80)  # of the frames, height and width
LEROBOT = {"bars": -3.0}  # what LeRobot 0.4 fills pictures with


class Case:
    """One question: what was given, what parts said ("part.NAME"), and the actions.

    Attributes:
        words: the instruction. cameras: those that were there.
    """

    def __init__(self, given: dict[str, Tensor], asked: dict[str, Any]) -> None:
        self.given, self.words, self.cameras = given, str(asked["text"]), list(asked["cameras"])

    def __getitem__(self, name: str) -> Tensor:
        return self.given[name]

    def frames(self, views: int) -> list[Tensor]:
        """One a view, black where there was none."""
        black = torch.zeros(*SIZE, 3, dtype=torch.uint8)
        return [self.given.get(f"camera{i}", black)[None] for i in range(views)]

    def inputs(self, views: int, words: int) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
        """What `prefix` takes; `words` is the length that is read, 0 for a policy without."""
        present = torch.tensor([[i in self.cameras for i in range(views)]])
        tokens = torch.zeros(2, 1, words, dtype=torch.int64)
        if words:
            read = self.given["ids"].shape[1]
            tokens[0, :, :read], tokens[1, :, :read] = self.given["ids"], self.given["mask"]
        return self.frames(views), present, self.given["state"][None], tokens[0], tokens[1]


class Answers:
    """A folder of LeRobot's, and what it answered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors = load_file(path / "answers.safetensors")
        self._asked = json.loads((path / "cases.json").read_text())

    def __iter__(self) -> Iterator[Case]:
        for i, asked in enumerate(self._asked):
            start = f"{i}."
            named = {k[len(start) :]: v for k, v in self._tensors.items() if k.startswith(start)}
            yield Case(named, asked)

    def folder(self) -> Folder:
        read = folder.read(self.path)
        read.extra = dict(LEROBOT)
        return read

    def model(self) -> Any:
        read = self.folder()
        return MAKERS[read.kind](read, torch.float32)

    @property
    def steps(self) -> int:
        config = self.folder().config
        return int(config.get("num_steps", config.get("num_inference_steps", 1)))


def sample(model: Any, case: Case, steps: int) -> Tensor:
    """Actions of our model from the case's noise, (1, H, A)."""
    c = model.config
    views = c.views if isinstance(c.views, int) else len(c.views)
    memory = model.prefix(*case.inputs(views, getattr(c, "words", 0)))
    x = case.given.get("noise", torch.zeros(1, *model.noise_shape))
    free = (torch.zeros(1, c.rows, c.actions), torch.zeros(1, c.rows))
    actions = torch.zeros(0)
    for i in range(steps):
        x, actions = model.step(memory, x, torch.tensor([i / steps]), torch.tensor([1 / steps]), *free)
    return actions


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())
