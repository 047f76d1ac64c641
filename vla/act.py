"""ACT, the action chunking transformer (Zhao et al. 2023, arXiv 2304.13705), as LeRobot trains and stores it.

    views -- ResNet -- 1x1 --+
    joint state ------------ +-- encoder -- decoder, one query a row -- actions
    latent, always zero -----+

It has no words and no noise: the prefix decides, and its one step hands out what was decided. The encoder
of its training (a variational one, which has seen the actions) is not needed and not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla import resnet
from vla.layers import merge, split
from vla.normalise import Normalise


@dataclass(frozen=True)
class Config:
    """Sizes: `state` is 0 and `views` empty where there is none; `rows` a chunk; `views` are (h, w)."""

    views: tuple[tuple[int, int], ...] = ((480, 640),)
    state: int = 6
    actions: int = 6
    rows: int = 100
    width: int = 512
    heads: int = 8
    hidden: int = 3200
    encoders: int = 4
    decoders: int = 1
    latent: int = 32
    pre_norm: bool = False
    act: str = "relu"
    backbone: resnet.Config = resnet.NAMED["resnet18"]


def tiny(views: int = 2) -> Config:
    """For tests."""
    backbone = resnet.Config(blocks=(1, 1, 1, 1), widths=(8, 8, 8, 16))
    return Config(
        views=((64, 96),) * views,
        rows=10,
        width=16,
        heads=2,
        hidden=24,
        encoders=2,
        latent=4,
        backbone=backbone,
    )


class Attention(nn.Module):
    """Multi-head attention with the three projections in one matrix."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3 * c.width, c.width) * c.width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * c.width))
        self.out_proj = nn.Linear(c.width, c.width)
        self.head = c.width // c.heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All (B, L, width)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            split(F.linear(x, w, b), self.head) for x, w, b in zip((q, k, v), weights, biases, strict=True)
        )
        return self.out_proj(merge(F.scaled_dot_product_attention(q, k, v)))


class Layer(nn.Module):
    """What encoder and decoder layers share: residual parts with the norm before (pre-norm) or after."""

    def __init__(self, c: Config, norms: int) -> None:
        super().__init__()
        self.self_attn = Attention(c)
        self.linear1, self.linear2 = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)
        for i in range(1, norms + 1):
            setattr(self, f"norm{i}", nn.LayerNorm(c.width))
        self.pre, self.norms = c.pre_norm, norms
        self.act = F.relu if c.act == "relu" else F.gelu

    def before(self, x: Tensor, part: int) -> Tensor:
        return getattr(self, f"norm{part}")(x) if self.pre else x

    def after(self, x: Tensor, part: int) -> Tensor:
        return x if self.pre else getattr(self, f"norm{part}")(x)

    def close(self, x: Tensor) -> Tensor:
        """The feed-forward part."""
        h = self.linear2(self.act(self.linear1(self.before(x, self.norms))))
        return self.after(x + h, self.norms)


class EncoderLayer(Layer):
    def __init__(self, c: Config) -> None:
        super().__init__(c, 2)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """x (B, L, width); places (1, L, width), added to what is compared and not to what is passed on."""
        h = self.before(x, 1)
        x = self.after(x + self.self_attn(h + places, h + places, h), 1)
        return self.close(x)


class DecoderLayer(Layer):
    def __init__(self, c: Config) -> None:
        super().__init__(c, 3)
        self.multihead_attn = Attention(c)

    def forward(self, x: Tensor, seen: Tensor, queries: Tensor, places: Tensor) -> Tensor:
        h = self.before(x, 1)
        x = self.after(x + self.self_attn(h + queries, h + queries, h), 1)
        h = self.before(x, 2)
        x = self.after(x + self.multihead_attn(h + queries, seen + places, seen), 2)
        return self.close(x)


class Stack(nn.Module):
    """Layers, and where it is wanted a norm at the end."""

    def __init__(self, layers: list[Layer], norm: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, *rest)
        return self.norm(x)


class Memory(NamedTuple):
    """actions: (B, H, A), physical."""

    actions: Tensor


class ACT(nn.Module):
    """
    Attributes:
        of_state, of_actions, of_views: normalisation, as the folder has it.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        if c.views:
            self.backbone = resnet.ResNet(c.backbone)
            self.encoder_img_feat_input_proj = nn.Conv2d(c.backbone.channels, c.width, 1)
        if c.state:
            self.encoder_robot_state_input_proj = nn.Linear(c.state, c.width)
        self.encoder_latent_input_proj = nn.Linear(c.latent, c.width)
        self.encoder_1d_feature_pos_embed = nn.Embedding(2 if c.state else 1, c.width)
        ending = nn.LayerNorm(c.width) if c.pre_norm else nn.Identity()
        self.encoder = Stack([EncoderLayer(c) for _ in range(c.encoders)], ending)
        self.decoder = Stack([DecoderLayer(c) for _ in range(c.decoders)], nn.LayerNorm(c.width))
        self.decoder_pos_embed = nn.Embedding(c.rows, c.width)
        self.action_head = nn.Linear(c.width, c.actions)
        self.of_state, self.of_actions = Normalise(c.state), Normalise(c.actions)
        self.of_views = nn.ModuleList(Normalise(3) for _ in c.views)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Of one draw, which has no influence."""
        return self.config.rows, self.config.actions

    def prefix(
        self, frames: list[Tensor], present: Tensor, state: Tensor, ids: Tensor, mask: Tensor
    ) -> Memory:
        """
        Args:
            frames: one (B, h, w, 3) uint8 tensor a view. state: (B, S), physical.
            present, ids, mask: not looked at; they are there for policies with words.
        """
        tokens, places = self.embed(frames, state)
        return Memory(self.of_actions.inverse(self.decode(self.encoder(tokens, places), places).float()))

    def embed(self, frames: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, width) and their places (1, L, width): latent, state, then cell by cell each view."""
        dtype = self.action_head.weight.dtype
        latent = torch.zeros(state.shape[0], self.config.latent, dtype=dtype, device=state.device)
        tokens = [self.encoder_latent_input_proj(latent)[:, None]]
        places = [self.encoder_1d_feature_pos_embed.weight[None]]
        if self.config.state:
            tokens.append(self.encoder_robot_state_input_proj(self.of_state(state).to(dtype))[:, None])
        for normal, view in zip(self.of_views, frames, strict=True):
            seen = self.look(normal(view.float() / 255).to(dtype))
            places.append(grid_places(seen.shape[2], seen.shape[3], self.config.width).to(seen))
            tokens.append(seen.flatten(2).transpose(1, 2))
        return torch.cat(tokens, 1), torch.cat(places, 1)

    def look(self, view: Tensor) -> Tensor:
        """A normalised view (B, h, w, 3) -> (B, width, h / 32, w / 32)."""
        return self.encoder_img_feat_input_proj(self.backbone(view.permute(0, 3, 1, 2)))

    def decode(self, seen: Tensor, places: Tensor) -> Tensor:
        """Normalised actions (B, H, A) of what the encoder says."""
        queries = self.decoder_pos_embed.weight[None]
        x = torch.zeros_like(queries).expand(seen.shape[0], -1, -1)
        return self.action_head(self.decoder(x, seen, queries, places))

    def step(
        self, memory: Memory, x: Tensor, t: Tensor, dt: Tensor, kept: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x as it came, and the actions that the prefix decided, (B, H, A), physical."""
        return x, memory.actions


def grid_places(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of a cell's row, then of its column, (1, rows * columns, width), float32.

    Counted from 1 and scaled to end at 2 pi (DETR, Carion et al. 2020, arXiv 2005.12872).
    """
    half = width // 2
    frequency = 10_000 ** (2 * (torch.arange(half, dtype=torch.float32) // 2) / half)

    def line(count: int) -> Tensor:
        at = torch.arange(1, count + 1, dtype=torch.float32)
        angle = (at / (count + 1e-6) * 2 * torch.pi)[:, None] / frequency
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], -1).flatten(1)

    down, across = line(rows)[:, None].expand(-1, columns, -1), line(columns)[None].expand(rows, -1, -1)
    return torch.cat([down, across], -1).flatten(0, 1)[None]
