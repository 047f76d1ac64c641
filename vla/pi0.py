"""pi0 (Black et al. 2024, arXiv 2410.24164) and pi0.5 (arXiv 2504.16054), as openpi and LeRobot store them.

    prefix   views, words (and pi0: joint state) -> keys and values of every layer
    step     those, x, tau -> next x                                                   (10 times)

    views ---- SigLIP -- projection --+
    words ---- embeddings ------------+-- Gemma 2B: keys and values  (the last layer makes no more)
                                                   |
    state ---- projection ------------ expert -- keys and values     (pi0)
                                                   |
    x -------- projection ------------ expert, which attends to all of those and to itself -- velocity
    tau ------ in each token (pi0), or in the expert's norms (pi0.5, which reads the state as words)

The state's token sees the prefix and itself, and neither x nor tau: its keys and values are the same in
every step, so they are made once, in the prefix.

Both models' time runs from 1, noise, to 0; here it is 1 - tau.
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
    rms,
    rope_tables,
    sinusoids,
)
from vla.normalise import Normalise

EPS = 1e-6


@dataclass(frozen=True)
class Config:
    """Sizes, of pi0 where nothing else is said.

    Attributes:
        adaptive: pi0.5: the flow time is in the expert's norms, the state in the words.
        views, words (tokens that are read), state, actions: of the robot.
        padded_state, padded_actions: of the model. rows: H.
        bars: what fills a picture that is not square: -1, black. LeRobot before 0.5 has -3: it pads pictures
            of 0 .. 1 with the black of -1 .. 1 and scales them after it.
        smooth: pictures are shrunk as PIL does it, which openpi's policies ask, and not as LeRobot does.
    """

    adaptive: bool = False
    views: int = 3
    words: int = 48
    state: int = 8
    actions: int = 7
    padded_state: int = 32
    padded_actions: int = 32
    rows: int = 50
    vocabulary: int = 257152
    width: int = 2048
    hidden: int = 16384
    layers: int = 18
    heads: int = 8
    kv_heads: int = 1
    head: int = 256
    expert_width: int = 1024
    expert_hidden: int = 4096
    shortest: float = 4e-3
    longest: float = 4.0
    bars: float = -1.0
    smooth: bool = False
    vision: siglip.Config = field(
        default_factory=lambda: siglip.Config(width=1152, hidden=4304, layers=27, heads=16, patch=14, side=16)
    )


def tiny(adaptive: bool = False, views: int = 2) -> Config:
    """For tests: everything that is there, very thin."""
    vision = siglip.Config(width=32, hidden=48, layers=2, heads=2, patch=8, side=4)
    return Config(
        adaptive=adaptive, views=views, words=200 if adaptive else 40, state=6, actions=6, rows=10,
        vocabulary=128, width=48, hidden=64, layers=3, heads=8, head=8, expert_width=32, expert_hidden=40,
        vision=vision,
    )  # fmt: skip


class AdaptiveNorm(nn.Module):
    """RMS norm whose gain and shift, and the gate of what follows, come from a condition (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        gain, shift, gate = self.dense(condition)[:, None].chunk(3, -1)
        return (rms(x, EPS) * (1 + gain.float()) + shift.float()).to(x.dtype), gate


class Layer(AttentionLayer):
    """A Gemma layer, of the language model or of the expert.

    Args:
        whole: False where only keys and values are wanted of it.
    """

    def __init__(
        self, c: Config, width: int, hidden: int, adaptive: bool = False, whole: bool = True
    ) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return AdaptiveNorm(width) if adaptive else RMSNorm(width, EPS, offset=1.0)

        self.adaptive, self.head = adaptive, c.head
        self.input_layernorm = norm()
        self.self_attn = Projections(width, c.heads, c.kv_heads, c.head, whole=whole)
        if whole:
            self.post_attention_layernorm = norm()
            self.mlp = GatedMLP(width, hidden, "gelu")

    def open(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Normed states, and the gate of their attention."""
        return self._normed(self.input_layernorm, x, condition)

    def close(self, x: Tensor, attended: Tensor, gate: Tensor | None, condition: Tensor | None) -> Tensor:
        """What is left of the layer once its attention is known."""
        x = x + _gated(self.self_attn.o_proj(merge(attended)), gate)
        normed, gate = self._normed(self.post_attention_layernorm, x, condition)
        return x + _gated(self.mlp(normed), gate)

    def _normed(self, norm: nn.Module, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return norm(x, condition) if self.adaptive else (norm(x), None)


def _gated(x: Tensor, gate: Tensor | None) -> Tensor:
    return x if gate is None else x * gate


class Pi0(ExpertPolicy):
    """See expert.py for what is common to these policies."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.vision = siglip.Tower(c.vision)
        self.projector = nn.Linear(c.vision.width, c.width)
        self.embed_tokens = nn.Embedding(c.vocabulary, c.width)
        self.language = nn.ModuleList(
            Layer(c, c.width, c.hidden, whole=i < c.layers - 1) for i in range(c.layers)
        )
        self.expert = nn.ModuleList(
            Layer(c, c.expert_width, c.expert_hidden, c.adaptive) for _ in range(c.layers)
        )
        self.expert_norm = AdaptiveNorm(c.expert_width) if c.adaptive else RMSNorm(c.expert_width, EPS, 1.0)
        self.action_in_proj = nn.Linear(c.padded_actions, c.expert_width)
        self.action_out_proj = nn.Linear(c.expert_width, c.padded_actions)
        if c.adaptive:
            self.time_mlp_in = nn.Linear(c.expert_width, c.expert_width)
            self.time_mlp_out = nn.Linear(c.expert_width, c.expert_width)
        else:
            self.state_proj = nn.Linear(c.padded_state, c.expert_width)
            self.action_time_mlp_in = nn.Linear(2 * c.expert_width, c.expert_width)
            self.action_time_mlp_out = nn.Linear(c.expert_width, c.expert_width)
        self.of_state, self.of_actions = Normalise(c.state), Normalise(c.actions)

    # -- prefix

    def prefix(
        self, frames: list[Tensor], present: Tensor, state: Tensor, ids: Tensor, mask: Tensor
    ) -> Memory:
        """
        Args:
            frames: one (B, h, w, 3) uint8 tensor a view, of any size. present: (B, views), bool.
            state: (B, S), physical. ids, mask: (B, L), int64; words stand at the left.
        """
        x, there = self.embed(frames, present, ids, mask)
        keys, values = self.remember(x, there)
        if not self.config.adaptive:
            keys, values = self._with_state(keys, values, there, self.of_state(state))
            there = torch.cat([there, torch.ones_like(there[:, :1])], 1)
        return Memory(keys, values, hide(there)[:, None, None], *self.after(there), state)

    def embed(
        self, frames: list[Tensor], present: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, P, width), and which are there (B, P), bool; all of those see each other."""
        views = self.views(frames)
        parts = [*views, self.embed_tokens(ids) * self.config.width**0.5]
        shown = [present[:, i : i + 1].expand(-1, v.shape[1]) for i, v in enumerate(views)]
        return torch.cat(parts, 1), torch.cat([*shown, mask.bool()], 1)

    def look(self, frames: Tensor) -> Tensor:
        """One view (B, h, w, 3), uint8 -> its tokens (B, V, width)."""
        c = self.config
        return self.projector(self.vision(pictures(frames, c.vision.pixels, c.bars, c.smooth)))

    def remember(self, x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """The language model, of which only keys and values are kept, (B, layers, kv_heads, P, head)."""
        tables = rope_tables(places(there), self.config.head)
        bias, kept = hide(there)[:, None, None], []
        for i, layer in enumerate(each(self.language)):
            normed, _ = layer.open(x, None)
            if i < len(self.language) - 1:
                queries, keys, values = layer.project(normed, tables)
                x = layer.close(x, attend(queries, keys, values, bias), None, None)
            else:
                keys, values = layer.keys_values(normed, tables)
            kept.append((keys, values))
        keys, values = (torch.stack(part, 1) for part in zip(*kept, strict=True))
        return keys, values

    def _with_state(
        self, keys: Tensor, values: Tensor, there: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keys and values with those of the state's token after them, which the expert makes."""
        state = padded(state, self.config.padded_state)
        h = self.state_proj(state.to(self.state_proj.weight.dtype))[:, None]
        tables = rope_tables(there.sum(1, keepdim=True), self.config.head)
        bias = F.pad(hide(there)[:, None, None], (0, 1))
        all_keys, all_values = [], []
        for i, layer in enumerate(each(self.expert)):
            normed, _ = layer.open(h, None)
            queries, own_keys, own_values = layer.project(normed, tables)
            all_keys.append(torch.cat([keys[:, i], own_keys], 2))
            all_values.append(torch.cat([values[:, i], own_values], 2))
            if i < len(self.expert) - 1:
                h = layer.close(h, attend(queries, all_keys[-1], all_values[-1], bias), None, None)
        return torch.stack(all_keys, 1), torch.stack(all_values, 1)

    # -- step

    def velocity(self, memory: Memory, x: Tensor, t: Tensor) -> Tensor:
        """Towards the action, (B, H, padded_actions)."""
        h, condition = self.suffix(x, t)
        tables, bias = (memory.cos, memory.sin), F.pad(memory.bias, (0, self.config.rows))
        for i, layer in enumerate(each(self.expert)):
            normed, gate = layer.open(h, condition)
            queries, own_keys, own_values = layer.project(normed, tables)
            keys = torch.cat([memory.keys[:, i], own_keys], 2)
            values = torch.cat([memory.values[:, i], own_values], 2)
            h = layer.close(h, attend(queries, keys, values, bias), gate, condition)
        h = self.expert_norm(h, condition)[0] if self.config.adaptive else self.expert_norm(h)
        return -self.action_out_proj(h).float()

    def suffix(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """The expert's tokens, (B, H, expert_width); what its norms are told (pi0.5), (1, expert_width)."""
        c, actions = self.config, self.action_in_proj(x.to(self.action_in_proj.weight.dtype))
        time = sinusoids(1 - t, c.expert_width, c.shortest, c.longest).to(actions.dtype)
        if c.adaptive:
            return actions, F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(time))))
        both = torch.cat([actions, time[:, None].expand_as(actions)], 2)
        return self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both))), None


def pictures(frames: Tensor, pixels: int, bars: float, smooth: bool = False) -> Tensor:
    """Frames (B, h, w, 3), uint8 -> (B, 3, pixels, pixels), -1 .. 1: shrunk or grown with their aspect kept,
    in the middle, with `bars` beside or above and below it. `smooth`: see `Config`.
    """
    x = frames.permute(0, 3, 1, 2).float()
    h, w = x.shape[2:]
    if (h, w) == (pixels, pixels):
        return x / 255 * 2 - 1
    ratio = max(h / pixels, w / pixels)
    size = (int(h / ratio), int(w / ratio))
    x = smoothed(x, size) / 255 if smooth else _resized(x / 255, size)
    top, left = (pixels - size[0]) // 2, (pixels - size[1]) // 2
    around = (left, pixels - size[1] - left, top, pixels - size[0] - top)
    return F.pad(x * 2 - 1, around, value=bars)


def smoothed(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (B, 3, h, w) of 0 .. 255 -> (B, 3, *size): each pixel a weighted mean of all that it covers,
    across and then down, with whole numbers after each, as PIL's BILINEAR of pictures in uint8.
    """
    for part in ((x.shape[2], size[1]), size):
        x = _resized(x, part, antialias=True).add(0.5).floor().clamp(0, 255)
    return x


def _resized(x: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=antialias)
