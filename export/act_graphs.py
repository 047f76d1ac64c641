"""The graphs of ACT: a prefix that decides the actions, and a step that hands them on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from export.graph import Part, frames
from vla.act import ACT
from vla.contract import CameraSpec


class _Prefix(nn.Module):
    def __init__(self, model: ACT) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        *frames, state = inputs
        nothing = torch.zeros(1, 0, dtype=torch.int64)  # neither words nor which cameras are there
        return self.model.prefix(frames, nothing, state, nothing, nothing).actions


class _Step(nn.Module):
    def forward(self, actions: Tensor, x: Tensor) -> Any:
        return x + 0.0, actions + 0.0  # an output must not be an input itself


def prefix(model: ACT, cameras: Sequence[CameraSpec]) -> Part:
    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        return frames(cameras, batch, g) | {
            "state": torch.randn(batch, model.config.state, generator=g) * 0.3
        }

    return Part("prefix", _Prefix(model), inputs, ("memory_actions",))


def step(model: ACT) -> Part:
    shape = model.noise_shape

    def inputs(batch: int) -> dict[str, Tensor]:
        return {"memory_actions": torch.randn(batch, *shape), "x": torch.randn(batch, *shape)}

    return Part("step", _Step(), inputs, ("x_next", "actions"))
