"""The same SmolVLA with fewer operations: what is constant once the weights are known is worked out before.

- the gain of each RMS norm goes into the weights that read it
- queries, keys and values come of one product, and so do gate and up
- the projection of x and the layer after it are one, and the flow time of each step is a row of a table, in
  float32, so that no precision is lost in its angles (realtime-vla, arXiv 2510.26742, section 3)

Outputs differ from the plain model's by rounding alone.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.expert import each
from vla.layers import RMSNorm, activate, merge, rms, rope, sinusoids, split
from vla.smolvla import Layer, SmolVLA


class PlainNorm(nn.Module):
    """An RMS norm without a gain."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms(x, self.eps).to(x.dtype)


class FoldedLayer(nn.Module):
    """A `smolvla.Layer`, with its methods."""

    def __init__(self, layer: Layer, reads_own: bool) -> None:
        """`reads_own`: its keys and values are of its own states, not the prefix's."""
        super().__init__()
        attention, gain = layer.self_attn, layer.input_layernorm.weight
        self.head, self.input_layernorm = layer.head, PlainNorm(layer.input_layernorm.eps)
        whole = hasattr(layer, "mlp")
        parts = [attention.q_proj.weight] if whole else []
        parts += [attention.k_proj.weight, attention.v_proj.weight] if reads_own else []
        self.sizes = [len(part) for part in parts]
        self.into = nn.Parameter(torch.cat(parts) * gain)
        if not reads_own:
            self.k_proj, self.v_proj = attention.k_proj, attention.v_proj
        if whole:
            self.o_proj, self.post_attention_layernorm = (
                attention.o_proj,
                PlainNorm(layer.input_layernorm.eps),
            )
            both = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
            self.gate_up = nn.Parameter(both * layer.post_attention_layernorm.weight)
            self.down_proj, self.act = layer.mlp.down_proj, layer.mlp.act

    def queries(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        return rope(split(F.linear(x, self.into), self.head), tables)

    def keys_values(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        keys, values = F.linear(x, self.into).split(self.sizes, -1)
        return rope(split(keys, self.head), tables), split(values, self.head)

    def project(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = (split(y, self.head) for y in F.linear(x, self.into).split(self.sizes, -1))
        return rope(queries, tables), rope(keys, tables), values

    def reprojected(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return split(self.k_proj(merge(keys)), self.head), split(self.v_proj(merge(values)), self.head)

    def close(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.o_proj(merge(attended))
        gate, up = F.linear(self.post_attention_layernorm(x), self.gate_up).chunk(2, -1)
        return x + self.down_proj(activate(gate, self.act) * up)


class FoldedSmolVLA(SmolVLA):
    """Takes the place of the model it was made of, for a sampler of `steps` steps."""

    def __init__(self, model: SmolVLA, steps: int) -> None:
        nn.Module.__init__(self)
        whole = copy.deepcopy(model)
        self.config, self.steps = whole.config, steps
        self.of_state, self.of_actions = whole.of_state, whole.of_actions
        self.vision, self.connector, self.embed_tokens = whole.vision, whole.connector, whole.embed_tokens
        self.state_proj, self.action_time_mlp_out = whole.state_proj, whole.action_time_mlp_out
        self.register_buffer("causal", whole.causal, persistent=False)
        self.language = nn.ModuleList(FoldedLayer(layer, True) for layer in each(whole.language))
        self.expert = nn.ModuleList(
            FoldedLayer(layer, self.itself(i)) for i, layer in enumerate(each(whole.expert))
        )
        self.expert_norm = cast(RMSNorm, PlainNorm(whole.expert_norm.eps))
        self.action_out_proj = whole.action_out_proj
        self.action_out_proj.weight = nn.Parameter(whole.action_out_proj.weight * whole.expert_norm.weight)
        self._fold_times(whole)
        self.requires_grad_(False)

    inlet: Tensor
    times: Tensor

    def _fold_times(self, whole: SmolVLA) -> None:
        c, dtype = self.config, whole.action_in_proj.weight.dtype
        first, into = whole.action_time_mlp_in, whole.action_in_proj
        of_actions, of_time = first.weight.float().chunk(2, 1)
        t = torch.arange(self.steps, dtype=torch.float32) / self.steps
        times = sinusoids(1 - t, c.expert_width, c.shortest, c.longest) @ of_time.T
        times = times + of_actions @ into.bias.float() + first.bias.float()
        self.register_buffer("inlet", (of_actions @ into.weight.float()).to(dtype))
        self.register_buffer("times", times)

    def suffix(self, x: Tensor, t: Tensor) -> Tensor:
        row = self.times[(t * self.steps).round().long()]
        h = F.silu(F.linear(x.to(self.inlet.dtype), self.inlet) + row[:, None].to(self.inlet.dtype))
        return self.action_time_mlp_out(h)


def folded(model: SmolVLA, steps: int) -> SmolVLA:
    """The model with its constants worked out, for a sampler of `steps` steps; it itself is left alone."""
    return cast(SmolVLA, FoldedSmolVLA(model, steps).eval())
