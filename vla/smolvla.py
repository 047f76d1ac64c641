"""SmolVLA (Shukor et al. 2025, arXiv 2506.01844), as LeRobot trains and stores it.

    prefix   views, words, joint state -> what the action expert attends to, of every layer
    step     that, x, tau -> next x                                         (10 times)

    views ---- SigLIP -- pixel shuffle -- projection --+
    words ---- embeddings -----------------------------+-- SmolLM2, 16 layers: keys and values
    state ---- projection -----------------------------+            |      (the last one makes no more)
                                                                    v
    x, tau --- projections -- expert, 16 layers, which attend to themselves and the prefix in turn
                              with layers that attend to the prefix alone -- velocity

All shapes are fixed: a view that is missing and words that are not there are masked, and positions count
what is there. What the prefix hands on is ready for the expert: where the expert has projections of its own
for the prefix's keys and values, they are applied once a chunk and not in every step.

LeRobot's time runs from 1, noise, to 0; here it is 1 - tau.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla import siglip
from vla.expert import AttentionLayer, ExpertPolicy, Memory, each, padded
from vla.layers import (
    GatedMLP,
    Projections,
    RMSNorm,
    attend,
    hide,
    merge,
    places,
    rope_tables,
    sinusoids,
    split,
)
from vla.normalise import Normalise


@dataclass(frozen=True)
class Config:
    """Sizes.

    Attributes:
        views: how many cameras. words: L, tokens that are read. state, actions: of the robot.
        padded_state, padded_actions: of the model. rows: H. shuffle: patches that become one token, a side.
        every: an expert's layer whose number is a multiple of it attends to itself as well; 0 for none that
            attends to the prefix alone.
    """

    views: int = 2
    words: int = 48
    state: int = 6
    actions: int = 6
    padded_state: int = 32
    padded_actions: int = 32
    rows: int = 50
    vocabulary: int = 49280
    width: int = 960
    hidden: int = 2560
    layers: int = 16
    heads: int = 15
    kv_heads: int = 5
    head: int = 64
    expert_width: int = 720
    expert_hidden: int = 2048
    shuffle: int = 4
    every: int = 2
    shortest: float = 4e-3
    longest: float = 4.0
    eps: float = 1e-5
    vision: siglip.Config = field(default_factory=siglip.Config)


def tiny(views: int = 2) -> Config:
    """For tests: everything that is there, very thin."""
    vision = siglip.Config(width=32, hidden=48, layers=2, heads=2, patch=8, side=8)
    return Config(
        views=views, words=12, vocabulary=128, width=48, hidden=64, layers=4, heads=6, kv_heads=2, head=8,
        expert_width=36, expert_hidden=40, rows=10, vision=vision,
    )  # fmt: skip


class Connector(nn.Module):
    """Patches (B, side^2, width) -> tokens: shuffle x shuffle patches become one (pixel shuffle)."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.shuffle, self.side = c.shuffle, c.vision.side
        self.proj = nn.Linear(c.vision.width * c.shuffle**2, c.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, s = self.side // self.shuffle, self.shuffle
        x = x.unflatten(1, (n, s, n, s)).permute(0, 1, 3, 2, 4, 5)
        return self.proj(x.flatten(3).flatten(1, 2))


class Layer(AttentionLayer):
    """Of the language model or of the expert: attention, then a gated MLP, each after a norm.

    Args:
        source: width of what keys and values are made of, where they are not of the layer's own states.
        whole: False where only keys and values are wanted of it.
    """

    def __init__(
        self, c: Config, width: int, hidden: int, source: int | None = None, whole: bool = True
    ) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(width, c.eps)
        self.self_attn = Projections(width, c.heads, c.kv_heads, c.head, source, whole)
        self.head = c.head
        if whole:
            self.post_attention_layernorm = RMSNorm(width, c.eps)
            self.mlp = GatedMLP(width, hidden)

    def reprojected(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The prefix's keys and values as this layer wants them: its projections read them as states."""
        projections = (self.self_attn.k_proj, self.self_attn.v_proj)
        parts = (keys, values)
        made = [split(project(merge(x)), self.head) for project, x in zip(projections, parts, strict=True)]
        return made[0], made[1]

    def close(self, x: Tensor, attended: Tensor) -> Tensor:
        """What is left of the layer once its attention is known."""
        x = x + self.self_attn.o_proj(merge(attended))
        return x + self.mlp(self.post_attention_layernorm(x))


class SmolVLA(ExpertPolicy):
    """See expert.py for what is common to these policies."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.vision, self.connector = siglip.Tower(c.vision), Connector(c)
        self.embed_tokens = nn.Embedding(c.vocabulary, c.width)
        self.language = nn.ModuleList(
            Layer(c, c.width, c.hidden, whole=i < c.layers - 1) for i in range(c.layers)
        )
        source = c.kv_heads * c.head
        self.expert = nn.ModuleList(
            Layer(c, c.expert_width, c.expert_hidden, None if self.itself(i) else source)
            for i in range(c.layers)
        )
        self.expert_norm = RMSNorm(c.expert_width, c.eps)
        self.state_proj = nn.Linear(c.padded_state, c.width)
        self.action_in_proj = nn.Linear(c.padded_actions, c.expert_width)
        self.action_out_proj = nn.Linear(c.expert_width, c.padded_actions)
        self.action_time_mlp_in = nn.Linear(2 * c.expert_width, c.expert_width)
        self.action_time_mlp_out = nn.Linear(c.expert_width, c.expert_width)
        self.of_state, self.of_actions = Normalise(c.state), Normalise(c.actions)
        causal = torch.ones(c.rows, c.rows, dtype=torch.bool, device="cpu").tril()
        self.register_buffer("causal", hide(causal)[None, None], persistent=False)

    causal: Tensor

    def itself(self, layer: int) -> bool:
        """Whether the expert's layer attends to itself as well as to the prefix."""
        return self.config.every == 0 or layer % self.config.every == 0

    # -- prefix

    def prefix(
        self, frames: list[Tensor], present: Tensor, state: Tensor, ids: Tensor, mask: Tensor
    ) -> Memory:
        """
        Args:
            frames: one (B, h, w, 3) uint8 tensor a view, of any size. present: (B, views), bool.
            state: (B, S), physical. ids, mask: (B, L), int64; words stand at the left.
        """
        x, there, sees = self.embed(frames, present, self.of_state(state), ids, mask)
        return self.remember(x, there, sees, state)

    def embed(
        self, frames: list[Tensor], present: Tensor, state: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, P, width); which are there (B, P), bool; which sees which (B, P, P), bool.

        Views and words see each other, and only the state's token, the last one, sees itself.
        """
        parts, there = [], []
        for i, seen in enumerate(self.views(frames)):
            parts.append(seen)
            there.append(present[:, i : i + 1].expand(-1, parts[-1].shape[1]))
        parts.append(self.embed_tokens(ids) * self.config.width**0.5)
        there.append(mask.bool())
        known = padded(state, self.config.padded_state).to(self.state_proj.weight.dtype)
        parts.append(self.state_proj(known)[:, None])
        there.append(torch.ones_like(present[:, :1]))
        x, here = torch.cat(parts, 1), torch.cat(there, 1)
        # A token that is not there sees nothing that counts, and nothing sees it.
        last = torch.arange(x.shape[1], device=x.device) == x.shape[1] - 1
        sees = here[:, None, :] & here[:, :, None] & (last[:, None] | ~last)
        return x, here, sees

    def look(self, frames: Tensor) -> Tensor:
        """One view (B, h, w, 3), uint8 -> its tokens (B, V, width)."""
        tokens = self.connector(self.vision(pictures(frames, self.config.vision.pixels)))
        return tokens * self.config.width**0.5

    def remember(self, x: Tensor, there: Tensor, sees: Tensor, state: Tensor) -> Memory:
        """The language model, of which only keys and values are kept."""
        tables = rope_tables(places(there), self.config.head)
        bias, kept = hide(sees)[:, None], []
        for i, (layer, expert) in enumerate(zip(each(self.language), each(self.expert), strict=True)):
            normed = layer.input_layernorm(x)
            if i < len(self.language) - 1:
                queries, keys, values = layer.project(normed, tables)
                x = layer.close(x, attend(queries, keys, values, bias))
            else:
                keys, values = layer.keys_values(normed, tables)
            kept.append((keys, values) if self.itself(i) else expert.reprojected(keys, values))
        keys, values = (torch.stack(part, 1) for part in zip(*kept, strict=True))
        return Memory(keys, values, hide(there)[:, None, None], *self.after(there), state)

    # -- step

    def velocity(self, memory: Memory, x: Tensor, t: Tensor) -> Tensor:
        """Towards the action, (B, H, padded_actions)."""
        h, here = self.suffix(x, t), torch.arange(self.config.rows, device=x.device)[None]
        own, after = rope_tables(here, self.config.head), (memory.cos, memory.sin)
        whole = torch.cat([memory.bias.expand(-1, -1, x.shape[1], -1), self._causal(x)], -1)
        for i, layer in enumerate(each(self.expert)):
            normed = layer.input_layernorm(h)
            keys, values = memory.keys[:, i], memory.values[:, i]
            if self.itself(i):
                queries, more_keys, more_values = layer.project(normed, after)
                keys, values = torch.cat([keys, more_keys], 2), torch.cat([values, more_values], 2)
                attended = attend(queries, keys, values, whole)
            else:
                attended = attend(layer.queries(normed, own), keys, values, memory.bias)
            h = layer.close(h, attended)
        return -self.action_out_proj(self.expert_norm(h)).float()

    def _causal(self, x: Tensor) -> Tensor:
        return self.causal.expand(x.shape[0], -1, -1, -1)

    def suffix(self, x: Tensor, t: Tensor) -> Tensor:
        """The expert's tokens, (B, H, expert_width): actions with the flow time in each."""
        c, actions = self.config, self.action_in_proj(x.to(self.action_in_proj.weight.dtype))
        time = sinusoids(1 - t, c.expert_width, c.shortest, c.longest).to(actions.dtype)
        both = torch.cat([actions, time[:, None].expand_as(actions)], 2)
        return self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both)))


def pictures(frames: Tensor, pixels: int) -> Tensor:
    """Frames (B, h, w, 3), uint8 -> (B, 3, pixels, pixels), -1 .. 1: shrunk or grown with their aspect kept,
    black at the left and at the top of what is too short.
    """
    x = frames.permute(0, 3, 1, 2).float() / 255
    h, w = x.shape[2:]
    ratio = max(h / pixels, w / pixels)
    size = (int(h / ratio), int(w / ratio))
    if size != (h, w):
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
    x = F.pad(x, (pixels - size[1], 0, pixels - size[0], 0))
    return x * 2 - 1
