"""The SigLIP vision tower (Zhai et al. 2023, arXiv 2303.15343): pictures -> patch states.

A ViT without a class token: patches, learned positions, pre-norm layers, a norm at the end. SmolVLA and
the pi policies both look through one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.layers import activate, merge, split


@dataclass(frozen=True)
class Config:
    """Sizes: `side` patches of `patch` pixels a side; `hidden` of the feed-forward layers.

    `shifted`: rows and columns of patches have the positions 0, 0, 1, 2 ... instead of 0, 1, 2 ..., as
    transformers from 4.55.1 on has it for SmolVLM in float32 by a rounding slip (its issue 41190).
    """

    width: int = 768
    hidden: int = 3072
    layers: int = 12
    heads: int = 12
    patch: int = 16
    side: int = 32
    eps: float = 1e-6
    shifted: bool = False

    @property
    def pixels(self) -> int:
        """Pixels a side of the (square) picture."""
        return self.patch * self.side


class Attention(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(c.width, c.width) for _ in range(4))
        self.head = c.width // c.heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split(project(x), self.head) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(merge(F.scaled_dot_product_attention(q, k, v)))


class FeedForward(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(activate(self.fc1(x), "gelu"))


class Layer(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.layer_norm1, self.self_attn = nn.LayerNorm(c.width, c.eps), Attention(c)
        self.layer_norm2, self.mlp = nn.LayerNorm(c.width, c.eps), FeedForward(c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    order: Tensor

    def __init__(self, c: Config) -> None:
        super().__init__()
        line = (torch.arange(c.side, device="cpu") - int(c.shifted)).clamp(min=0)
        order = (line[:, None] * c.side + line).flatten()
        self.register_buffer("order", order, persistent=False)
        self.patch_embedding = nn.Conv2d(3, c.width, c.patch, c.patch)
        self.position_embedding = nn.Embedding(c.side**2, c.width)

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.patch_embedding.weight.dtype)
        return self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding(self.order)


class Encoder(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Tower(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings, self.encoder = Embeddings(config), Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, config.eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, pixels, pixels), -1 .. 1 -> (B, side^2, width), rows of patches from the top."""
        return self.post_layernorm(self.encoder(self.embeddings(pixels)))
