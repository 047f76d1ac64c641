"""A plain checkpoint's graphs: prefix and step; its words are nano's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from export.graph import Part, frames
from vla import plain, train_data
from vla.contract import CameraSpec


class _Prefix(nn.Module):
    def __init__(self, model: plain.Plain) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Any:
        *seen, state, tokens, mask = inputs
        return self.model.prefix(seen, state, tokens, mask)


class _Step(nn.Module):
    """The step with a hard prefix."""

    def __init__(self, model: plain.Plain) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, cond: Tensor, origin: Tensor, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, kept_mask: Tensor
    ) -> Any:
        return self.model.step(cond, origin, x, t, dt, kept, kept_mask)


def prefix(model: plain.Plain, length: int = train_data.TOKENS) -> Part:
    """For words of `length` tokens."""
    c = model.config
    cameras = [CameraSpec(name, c.size, c.size) for name in c.cameras]

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        used = torch.arange(batch)[:, None] + 12
        return frames(cameras, batch, g) | {
            "state": model.state_mean + torch.randn(batch, len(c.state), generator=g) * model.state_std,
            "tokens": torch.randn(batch, length, c.words, generator=g),
            "mask": (torch.arange(length)[None] < used).long(),
        }

    return Part("prefix", _Prefix(model), inputs, ("memory_cond", "memory_origin"))


def step(model: plain.Plain) -> Part:
    c = model.config

    def inputs(batch: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(batch)
        chunk = (batch, c.rows, len(c.actions))
        return {
            "memory_cond": torch.randn(batch, c.known, generator=g),
            "memory_origin": torch.randn(batch, len(c.actions), generator=g),
            "x": torch.randn(chunk, generator=g),
            "t": torch.tensor([0.25]),
            "dt": torch.tensor([0.25]),
            "kept": torch.randn(chunk, generator=g),
            "kept_mask": (torch.arange(c.rows)[None] < 2).float().repeat(batch, 1),
        }

    return Part("step", _Step(model), inputs, ("x_next", "actions"))
