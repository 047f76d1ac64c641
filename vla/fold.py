"""The same policy with fewer operations: what is constant once the weights are known is worked out before.

- the gain of each RMS norm goes into the weights that read it (Gemma's gain is 1 + its weight)
- queries, keys and values come of one product, and so do gate and up
- SmolVLA, pi0: the projection of x and the layer after it are one, and each flow time is a row
  of a table, in float32, so that no precision is lost in its angles (realtime-vla, arXiv 2510.26742,
  section 3)
- pi0.5: what its adaptive norms are told is a function of the flow time alone, so that gain, shift and gate
  of each norm are a row of a table as well, and the layers that made them are gone

Outputs differ from the plain model's by rounding alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla import pi0, smolvla
from vla.contract import TaktError
from vla.expert import AttentionLayer, ExpertPolicy, each
from vla.layers import GatedMLP, Projections, RMSNorm, activate, rms, rope, sinusoids, split
from vla.pi0 import AdaptiveNorm, Pi0
from vla.smolvla import SmolVLA

Model = TypeVar("Model", bound=ExpertPolicy)


class PlainNorm(nn.Module):
    """An RMS norm without a gain."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms(x, self.eps).to(x.dtype)


class TabledNorm(nn.Module):
    """A `pi0.AdaptiveNorm` that is told the number of the flow time, shape (1,), and no condition."""

    gain: Tensor
    shift: Tensor
    gate: Tensor

    def __init__(self, norm: AdaptiveNorm, conditions: Tensor) -> None:
        """`conditions`: of each flow time, (T, width)."""
        super().__init__()
        gain, shift, gate = norm.dense(conditions).chunk(3, -1)
        self.register_buffer("gain", 1 + gain.float())
        self.register_buffer("shift", shift.float())
        self.register_buffer("gate", gate.clone())

    def forward(self, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        gain, shift, gate = (part[step][:, None] for part in (self.gain, self.shift, self.gate))
        return torch.addcmul(shift, rms(x, pi0.EPS), gain).to(x.dtype), gate


class FoldedMLP(nn.Module):
    """A `layers.GatedMLP` whose gate and up are one product."""

    def __init__(self, mlp: GatedMLP, norm: nn.Module) -> None:
        """`norm`: of what it reads; its gain goes into it."""
        super().__init__()
        self.gate_up = joined([mlp.gate_proj.weight, mlp.up_proj.weight], norm)
        self.down_proj, self.act = mlp.down_proj, mlp.act

    def forward(self, x: Tensor) -> Tensor:
        gate, up = F.linear(x, self.gate_up).chunk(2, -1)
        return self.down_proj(activate(gate, self.act) * up)


class FoldedLayer(AttentionLayer):
    """What folded layers share: one product for what attention wants of the layer's own states."""

    def __init__(self, layer: AttentionLayer, norm: nn.Module, reads_own: bool = True) -> None:
        """`norm`: of those states. `reads_own`: keys and values are of them, not of the prefix's."""
        nn.Module.__init__(self)  # and of no layer that is not folded
        attention = layer.self_attn
        parts = [attention.q_proj.weight] if hasattr(attention, "q_proj") else []
        parts += [attention.k_proj.weight, attention.v_proj.weight] if reads_own else []
        self.head, self.sizes = layer.head, [len(part) for part in parts]
        self.into, self.self_attn = joined(parts, norm), cast(Projections, nn.Module())
        if hasattr(attention, "o_proj"):
            self.self_attn.o_proj = attention.o_proj
        if not reads_own:
            self.self_attn.k_proj, self.self_attn.v_proj = attention.k_proj, attention.v_proj

    def queries(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        return rope(split(F.linear(x, self.into[: self.sizes[0]]), self.head), tables)

    def keys_values(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        keys, values = F.linear(x, self.into[-sum(self.sizes[-2:]) :]).split(self.sizes[-2:], -1)
        return rope(split(keys, self.head), tables), split(values, self.head)

    def project(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = (split(y, self.head) for y in F.linear(x, self.into).split(self.sizes, -1))
        return rope(queries, tables), rope(keys, tables), values


class FoldedSmolLayer(FoldedLayer, smolvla.Layer):
    """A `smolvla.Layer`."""

    def __init__(self, layer: smolvla.Layer, reads_own: bool) -> None:
        FoldedLayer.__init__(self, layer, layer.input_layernorm, reads_own)
        self.input_layernorm = cast(RMSNorm, PlainNorm(layer.input_layernorm.eps))
        if hasattr(layer, "mlp"):
            self.mlp = cast(GatedMLP, FoldedMLP(layer.mlp, layer.post_attention_layernorm))
            self.post_attention_layernorm = cast(RMSNorm, PlainNorm(layer.input_layernorm.eps))


class FoldedPiLayer(FoldedLayer, pi0.Layer):
    """A `pi0.Layer`, whose condition is the number of the flow time where it is adaptive."""

    def __init__(self, layer: pi0.Layer, conditions: Tensor) -> None:
        FoldedLayer.__init__(self, layer, layer.input_layernorm)
        self.adaptive = layer.adaptive
        self.input_layernorm = told(layer.input_layernorm, conditions)
        if hasattr(layer, "mlp"):
            self.mlp = cast(GatedMLP, FoldedMLP(layer.mlp, layer.post_attention_layernorm))
            self.post_attention_layernorm = told(layer.post_attention_layernorm, conditions)


class FoldedTimes:
    """Of models that put the flow time into each token: a table in its place."""

    config: Any
    action_time_mlp_out: nn.Linear
    grid: Tensor
    inlet: Tensor
    times: Tensor

    def tabled(self, x: Tensor, t: Tensor) -> Tensor:
        """The expert's tokens, (B, H, expert_width)."""
        row = self.times[number(t, self.grid)][:, None].to(self.inlet.dtype)
        h = F.silu(F.linear(x.to(self.inlet.dtype), self.inlet) + row)
        return self.action_time_mlp_out(h)

    def _fold_times(self, whole: SmolVLA | Pi0) -> tuple[Tensor, Tensor]:
        """What x is multiplied by, of the weights' precision, and what is added, (T, expert_width)."""
        first, into = whole.action_time_mlp_in, whole.action_in_proj
        of_actions, of_time = first.weight.float().chunk(2, 1)
        c = self.config
        times = sinusoids(1 - self.grid, c.expert_width, c.shortest, c.longest) @ of_time.T
        times = times + of_actions @ into.bias.float() + first.bias.float()
        return (of_actions @ into.weight.float()).to(into.weight.dtype), times


class FoldedSmolVLA(FoldedTimes, SmolVLA):
    """Takes the place of the model it was made of, for a sampler of up to `steps` steps."""

    def __init__(self, whole: SmolVLA, steps: int) -> None:
        nn.Module.__init__(self)
        self.config = whole.config
        self.register_buffer("grid", grid(steps))
        self.of_state, self.of_actions = whole.of_state, whole.of_actions
        self.vision, self.connector, self.embed_tokens = whole.vision, whole.connector, whole.embed_tokens
        self.state_proj, self.action_time_mlp_out = whole.state_proj, whole.action_time_mlp_out
        self.register_buffer("causal", whole.causal, persistent=False)
        self.language = nn.ModuleList(FoldedSmolLayer(layer, True) for layer in each(whole.language))
        self.expert = nn.ModuleList(
            FoldedSmolLayer(layer, self.itself(i)) for i, layer in enumerate(each(whole.expert))
        )
        self.expert_norm = cast(RMSNorm, PlainNorm(whole.expert_norm.eps))
        self.action_out_proj = whole.action_out_proj
        self.action_out_proj.weight = joined([whole.action_out_proj.weight], whole.expert_norm)
        inlet, times = self._fold_times(whole)
        self.register_buffer("inlet", inlet)
        self.register_buffer("times", times)

    def suffix(self, x: Tensor, t: Tensor) -> Tensor:
        return self.tabled(x, t)


class FoldedPi0(FoldedTimes, Pi0):
    """Takes the place of the model it was made of, pi0 or pi0.5, for a sampler of up to `steps` steps."""

    def __init__(self, whole: Pi0, steps: int) -> None:
        nn.Module.__init__(self)
        self.config = whole.config
        self.register_buffer("grid", grid(steps))
        self.of_state, self.of_actions = whole.of_state, whole.of_actions
        self.vision, self.projector, self.embed_tokens = whole.vision, whole.projector, whole.embed_tokens
        conditions = self._conditions(whole)
        self.language, self.expert = (
            nn.ModuleList(FoldedPiLayer(layer, conditions) for layer in each(layers))
            for layers in (whole.language, whole.expert)
        )
        self.expert_norm = cast(RMSNorm, told(whole.expert_norm, conditions))
        self.action_out_proj = whole.action_out_proj
        self.action_out_proj.weight = joined([whole.action_out_proj.weight], whole.expert_norm)
        if self.config.adaptive:
            self.action_in_proj = whole.action_in_proj
            return
        self.state_proj, self.action_time_mlp_out = whole.state_proj, whole.action_time_mlp_out
        inlet, times = self._fold_times(whole)
        self.register_buffer("inlet", inlet)
        self.register_buffer("times", times)

    def _conditions(self, whole: Pi0) -> Tensor:
        """What the adaptive norms are told at each flow time, (T, expert_width); of no use to pi0."""
        if not self.config.adaptive:
            return torch.zeros(0)
        x = torch.zeros(1, 1, self.config.padded_actions)
        return torch.cat([cast(Tensor, whole.suffix(x, t[None])[1]) for t in self.grid])

    def suffix(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.config.adaptive:
            return self.action_in_proj(x.to(self.action_in_proj.weight.dtype)), number(t, self.grid)
        return self.tabled(x, t), None


def joined(weights: Sequence[Tensor], norm: nn.Module) -> nn.Parameter:
    """Weights that read the same states as one, with the gain of those states' norm in it."""
    both = torch.cat(list(weights))
    if isinstance(norm, RMSNorm):
        both = (both.float() * (norm.offset + norm.weight.float())).to(both.dtype)
    return nn.Parameter(both)


def told(norm: nn.Module, conditions: Tensor) -> nn.Module:
    """A norm without its gain, or with a table of what an adaptive one is told."""
    if isinstance(norm, AdaptiveNorm):
        return TabledNorm(norm, conditions)
    return PlainNorm(cast(RMSNorm, norm).eps)


def grid(steps: int) -> Tensor:
    """Every flow time at which a step begins when 1, 2 ... or `steps` of them are made, (T,), float32: a
    sampler that is short of time makes fewer."""
    times = {i / n for n in range(1, steps + 1) for i in range(n)}
    return torch.tensor(sorted(times), dtype=torch.float32)


def number(t: Tensor, grid: Tensor) -> Tensor:
    """Which time of the grid each flow time (B,) is."""
    return (t[:, None] - grid).abs().argmin(1)


@torch.no_grad()
def folded(model: Model, steps: int) -> Model:
    """The model with its constants worked out, for a sampler of up to `steps` steps; it itself
    is left alone.

    Raises:
        TaktError: it is neither a SmolVLA nor a pi0 or pi0.5.
    """
    whole = copy.deepcopy(model)
    if isinstance(whole, SmolVLA):
        made: ExpertPolicy = FoldedSmolVLA(whole, steps)
    elif isinstance(whole, Pi0):
        made = FoldedPi0(whole, steps)
    else:
        raise TaktError(f"a {type(model).__name__} has nothing to fold: a SmolVLA, a pi0 or a pi0.5 has")
    return cast(Model, made.eval().requires_grad_(False))
