"""What SmolVLA and the pi policies share: an action expert that attends to what a language model has read.

prefix(frames, present, state, ids, mask) -> Memory: keys and values of every layer, once a chunk
velocity(memory, x, t), of the model's own                                    in every step
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.layers import Projections, guided_step, rope, rope_tables, split
from vla.normalise import Normalise

BETA = 10.0  # bound of the guidance, as LeRobot's


class Memory(NamedTuple):
    """What a step needs of the prefix.

    keys, values: (B, layers, kv_heads, P, head). bias: (B, 1, 1, P), what hides prefix tokens that are not
    there. cos, sin: (B, 1, H, head / 2), of the positions of the actions, which come after those that are
    there; float32 in every precision. state: (B, S), physical.
    """

    keys: Tensor
    values: Tensor
    bias: Tensor
    cos: Tensor
    sin: Tensor
    state: Tensor


class AttentionLayer(nn.Module):
    """A layer of the language model or of the expert, whose attention is worked out outside it."""

    self_attn: Projections
    head: int

    def queries(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Of normed states x."""
        return rope(split(self.self_attn.q_proj(x), self.head), tables)

    def keys_values(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Of normed states x."""
        keys = rope(split(self.self_attn.k_proj(x), self.head), tables)
        return keys, split(self.self_attn.v_proj(x), self.head)

    def project(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of normed states x."""
        return self.queries(x, tables), *self.keys_values(x, tables)


class ExpertPolicy(nn.Module):
    """
    Attributes:
        language, expert: their layers, as many of the one as of the other.
        of_state, of_actions: normalisation, as the folder has it.
    """

    config: Any
    language: nn.ModuleList
    expert: nn.ModuleList
    of_state: Normalise
    of_actions: Normalise

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Of one draw."""
        return self.config.rows, self.config.padded_actions

    def look(self, frames: Tensor) -> Tensor:
        """One view (B, h, w, 3), uint8 -> its tokens (B, V, width)."""
        raise NotImplementedError

    def views(self, frames: list[Tensor]) -> list[Tensor]:
        """The tokens of each view, (B, V, width); views of one size are looked at together."""
        if len({tuple(view.shape[1:]) for view in frames}) > 1:
            return [self.look(view) for view in frames]
        tokens = self.look(torch.stack(frames, 1).flatten(0, 1))
        return list(tokens.unflatten(0, (-1, len(frames))).unbind(1))

    def after(self, there: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the actions' positions, after the prefix's tokens that are there (B, P)."""
        rows = torch.arange(self.config.rows, device=there.device)[None]
        return rope_tables(there.sum(1, keepdim=True) + rows, self.config.head)

    def velocity(self, memory: Memory, x: Tensor, t: Tensor) -> Tensor:
        """Towards the action, (B, H, padded_actions)."""
        raise NotImplementedError

    def step(
        self, memory: Memory, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One Euler step of the flow, guided by the rows that weigh; next x, and actions in physical units.

        Args:
            x: (B, H, padded_actions). t, dt: (1,), flow time, 0 .. 1, and its step.
            kept: (B, H, A), physical. weights: (B, H), 0 .. 1.

        Returns:
            (B, H, padded_actions) and (B, H, A).
        """
        velocity = self.velocity(memory, x, t)
        origin = self.of_actions.origin(memory.state)
        kept = kept if origin is None else kept - origin
        target = padded(self.of_actions(kept), self.config.padded_actions)
        x = guided_step(x, velocity, target, t, dt, weights, BETA)
        actions = self.of_actions.inverse(x[..., : self.config.actions])
        return x, actions if origin is None else actions + origin


def each(layers: nn.ModuleList) -> list[Any]:
    """The layers of a list, whatever they are."""
    return list(layers)


def padded(x: Tensor, width: int) -> Tensor:
    """Zeros after the last axis up to `width`."""
    return F.pad(x, (0, width - x.shape[-1]))
