"""What the transformers of several policies share: norms, rotary positions, attention, gated layers.

Names of parameters are those of the checkpoints people have, so that loading is no translation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE = 10_000.0


class RMSNorm(nn.Module):
    """x / rms(x) * gain, over the last axis, in float32 (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        offset: the gain is `offset + weight`: 0 in Llama's family, 1 in Gemma's.
    """

    def __init__(self, width: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        return (rms(x, self.eps) * (self.offset + self.weight.float())).to(x.dtype)


def rms(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last axis, float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class GatedMLP(nn.Module):
    """down(act(gate x) * up x) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, act: str = "silu") -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(activate(self.gate_proj(x), self.act) * self.up_proj(x))


def activate(x: Tensor, act: str) -> Tensor:
    """ "silu", or "gelu" in its tanh form."""
    return F.silu(x) if act == "silu" else F.gelu(x, approximate="tanh")


class Projections(nn.Module):
    """The four of an attention layer: queries of `heads`, keys and values of `kv_heads`, without biases.

    Args:
        width: of the states that ask. source: of what keys and values are made of, the same by default.
        whole: False where only keys and values are wanted.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head: int,
        source: int | None = None,
        whole: bool = True,
    ) -> None:
        super().__init__()
        if whole:
            self.q_proj = nn.Linear(width, heads * head, bias=False)
            self.o_proj = nn.Linear(heads * head, width, bias=False)
        self.k_proj = nn.Linear(source or width, kv_heads * head, bias=False)
        self.v_proj = nn.Linear(source or width, kv_heads * head, bias=False)


def split(x: Tensor, head: int) -> Tensor:
    """(B, L, heads * head) -> (B, heads, L, head)."""
    return x.unflatten(-1, (-1, head)).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    """(B, heads, L, head) -> (B, L, heads * head)."""
    return x.transpose(1, 2).flatten(2)


def rope_tables(positions: Tensor, head: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (B, 1, L, head / 2), float32, of positions (B, L): angles reach far, so they
    are never taken in a lower precision (Su et al. 2021, arXiv 2104.09864).
    """
    half = head // 2
    exponents = torch.arange(half, dtype=torch.float32, device=positions.device) * (2.0 / head)
    angles = positions[:, None, :, None].float() / ROPE_BASE**exponents
    return angles.cos(), angles.sin()


def rope(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x (B, heads, L, head) turned by its positions; halves are paired, not neighbours."""
    cos, sin = tables
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention in float32 whose values keep their precision; groups of queries share keys (GQA,
    arXiv 2305.13245) without a copy of them.

    Args:
        q: (B, heads, L, head). k, v: (B, kv_heads, K, head). bias: (B, 1, L or 1, K), 0 or `HIDDEN`.

    Returns:
        (B, heads, L, head), of v's precision.
    """
    groups = q.shape[1] // k.shape[1]
    q = q.unflatten(1, (-1, groups)).float()  # (B, kv_heads, groups, L, head)
    scores = q @ k[:, :, None].float().transpose(-1, -2) * q.shape[-1] ** -0.5
    weights = (scores + bias[:, :, None]).softmax(-1).to(v.dtype)
    return (weights @ v[:, :, None]).flatten(1, 2)


HIDDEN = (
    torch.finfo(torch.float32).min / 2
)  # added to a score that must not count; half, so that sums stay finite


def places(there: Tensor) -> Tensor:
    """Bool (B, P) -> the positions of those that are there, counted from 0, (B, P), float32."""
    return there.float().cumsum(1) - 1


def hide(visible: Tensor) -> Tensor:
    """Bool -> what `attend` adds: 0 where visible, else HIDDEN, float32."""
    return torch.zeros_like(visible, dtype=torch.float32).masked_fill(~visible, HIDDEN)


def sinusoids(t: Tensor, width: int, shortest: float, longest: float) -> Tensor:
    """Flow times t (B,) as sines and cosines (B, width) of periods from `shortest` to `longest`, float32.

    Computed in float64: the argument reaches 2 pi / shortest.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=t.device)
    period = shortest * (longest / shortest) ** fraction
    angle = 2 * torch.pi / period * t[:, None].double()
    return torch.cat([angle.sin(), angle.cos()], 1).float()


def guided_step(
    x: Tensor, velocity: Tensor, target: Tensor, t: Tensor, dt: Tensor, weights: Tensor, beta: float
) -> Tensor:
    """An Euler step that known rows pull at (arXiv 2506.07339, equation 2, with the identity in place of
    the denoiser's Jacobian, so that it can be exported); with weights 0, a plain one.

    Args:
        x, velocity, target: (B, H, A), normalised; time runs from 0, noise, to 1.
        t, dt: (1,). weights: (B, H). beta: bound of the guidance.
    """
    clean = x + (1 - t) * velocity
    error = weights[:, :, None] * (target - clean)
    return x + dt * velocity + error * pull(t, dt, beta)


def pull(t: Tensor, dt: Tensor, beta: float) -> Tensor:
    """How much of the error a guided step takes back: dt times `flow.guidance`, at most all of it.

    Without that bound a step of dt > 1 / beta, such as the last one of a sampler that ends early, would
    shoot past the known rows.
    """
    spread = (t * t + (1 - t) * (1 - t)) / (t * (1 - t)).clamp(min=1e-6)
    return (dt * spread.clamp(max=beta)).clamp(max=1.0)
