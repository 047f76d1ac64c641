"""The graphs of SmolVLA and the pi policies: prefix and step.

What the prefix hands on is what the action expert reads: keys and values of every layer, what hides those
that are not there, and the actions' positions as sines and cosines, float32 in every precision. The step
looks the flow time up in a table, for the same reason. Where actions were learned as distances from the
state, the state is handed on as well, and they come out absolute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from export.graph import Part, frames
from vla.contract import CameraSpec
from vla.expert import ExpertPolicy, Memory

MEMORY = ("memory_keys", "memory_values", "memory_bias", "memory_cos", "memory_sin")


def memory(model: ExpertPolicy) -> tuple[str, ...]:
    """What the prefix hands on, in the order of `Memory`."""
    return MEMORY if model.of_actions.relative is None else (*MEMORY, "memory_state")


class _Prefix(nn.Module):
    """Frames of the cameras that are there; what is not there needs no place, since positions count those
    that are."""

    model: Any

    def __init__(self, model: ExpertPolicy, cameras: int) -> None:
        super().__init__()
        self.model, self.cameras = model, cameras

    def forward(self, *inputs: Tensor) -> Any:
        frames, (state, ids, mask) = list(inputs[: self.cameras]), inputs[self.cameras :]
        present = torch.ones_like(state[:, :1], dtype=torch.bool).expand(-1, self.cameras)
        found = self.model.prefix(frames, present, state, ids, mask)
        # An output must not be an input itself.
        return found._replace(state=state + 0.0)[: len(memory(self.model))]


class _Step(nn.Module):
    def __init__(self, model: ExpertPolicy) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Any:
        *known, x, t, dt, kept, kept_mask = inputs
        if len(known) == len(MEMORY):
            known.append(kept)  # no step reads the state
        return self.model.step(Memory(*known), x, t, dt, kept, kept_mask)


def prefix(model: ExpertPolicy, cameras: Sequence[CameraSpec]) -> Part:
    """For frames of the cameras' sizes; they are brought to the model's in the graph."""
    c = model.config

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        used = torch.arange(batch)[:, None] + c.words // 2
        mask = (torch.arange(c.words)[None] < used).long()
        return frames(cameras, batch, g) | {
            "state": torch.randn(batch, c.state, generator=g) * 0.3,
            "ids": torch.randint(1, c.vocabulary, (batch, c.words), generator=g) * mask,
            "mask": mask,
        }

    return Part("prefix", _Prefix(model, len(cameras)), inputs, memory(model))


def step(model: ExpertPolicy, cameras: Sequence[CameraSpec], t: float) -> Part:
    """`t`: a flow time that the model's table has."""
    c, before = model.config, prefix(model, cameras)

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        with torch.inference_mode():
            found = before.module(*before.inputs(batch).values())
        # Clones: what inference mode made cannot be traced.
        return {name: value.clone() for name, value in zip(before.outputs, found, strict=True)} | {
            "x": torch.randn(batch, c.rows, c.padded_actions, generator=g),
            "t": torch.tensor([t]),
            "dt": torch.tensor([t]),
            "kept": torch.randn(batch, c.rows, c.actions, generator=g),
            "kept_mask": torch.rand(batch, c.rows, generator=g),
        }

    return Part("step", _Step(model), inputs, ("x_next", "actions"))
