"""What LeRobot 0.4's pi policies want of a patched transformers, for oracle.py."""

from __future__ import annotations

from typing import Any

import torch


def gated(x: Any, y: Any, gate: Any) -> Any:
    return x + y if gate is None else x + y * gate


def gemmas(size: str) -> tuple[Any, Any]:
    """PaliGemma and Gemma as the patched transformers has them: norms that may be adaptive and give a gate,
    no scaling of embeddings or of picture features. Attention, feed-forward and rotary parts are
    transformers' own.
    """
    from torch import nn
    from transformers import GemmaForCausalLM, PaliGemmaForConditionalGeneration
    from transformers.cache_utils import DynamicCache
    from transformers.modeling_outputs import BaseModelOutputWithPast
    from transformers.models.gemma import modeling_gemma as gemma

    class Norm(nn.Module):
        def __init__(self, width: int, eps: float, condition: int | None) -> None:
            super().__init__()
            self.eps = eps
            if condition is None:
                self.weight = nn.Parameter(torch.zeros(width))
            else:
                self.dense = nn.Linear(condition, 3 * width)

        def forward(self, x: Any, cond: Any = None) -> Any:
            normed = x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
            if not hasattr(self, "dense"):
                return (normed * (1 + self.weight.float())).to(x.dtype), None
            scale, shift, gate = self.dense(cond).unsqueeze(1).chunk(3, -1)
            return (normed * (1 + scale.float()) + shift.float()).to(x.dtype), gate.to(x.dtype)

    class Decoder(nn.Module):
        def __init__(self, config: Any, index: int, condition: int | None) -> None:
            super().__init__()
            self.self_attn = gemma.GemmaAttention(config, index)
            self.mlp = gemma.GemmaMLP(config)
            self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps, condition)
            self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps, condition)

    class PiGemma(gemma.GemmaModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            condition = config.adarms_cond_dim if getattr(config, "use_adarms", False) else None
            self.layers = nn.ModuleList(
                Decoder(config, i, condition) for i in range(config.num_hidden_layers)
            )
            self.norm = Norm(config.hidden_size, config.rms_norm_eps, condition)

        def forward(
            self, inputs_embeds: Any, attention_mask: Any, position_ids: Any, past_key_values: Any = None,
            use_cache: bool = False, adarms_cond: Any = None, **rest: Any,
        ) -> Any:  # fmt: skip
            self.config._attn_implementation = "eager"
            cache = DynamicCache() if use_cache and past_key_values is None else past_key_values
            if past_key_values is not None and not use_cache:
                # The patched one leaves the prefix's cache as it was.
                cache = DynamicCache()
                for i, layer in enumerate(past_key_values.layers):
                    cache.update(layer.keys, layer.values, i)
            x, places = inputs_embeds, self.rotary_emb(inputs_embeds, position_ids)
            for layer in self.layers:
                h, gate = layer.input_layernorm(x, adarms_cond)
                h, _ = layer.self_attn(
                    hidden_states=h,
                    position_embeddings=places,
                    attention_mask=attention_mask,
                    past_key_values=cache,
                )
                x = gated(x, h, gate)
                h, gate = layer.post_attention_layernorm(x, adarms_cond)
                x = gated(x, layer.mlp(h), gate)
            x, _ = self.norm(x, adarms_cond)
            return BaseModelOutputWithPast(last_hidden_state=x, past_key_values=cache if use_cache else None)

    class Causal(GemmaForCausalLM):
        def __init__(self, config: Any) -> None:
            if size != "full":
                config.vocab_size = 400
            super().__init__(config)
            self.model = PiGemma(config)

    class PaliGemma(PaliGemmaForConditionalGeneration):
        def __init__(self, config: Any) -> None:
            if size != "full":
                config._vocab_size = config.text_config.vocab_size = 400
                config.image_token_index = config.image_token_id = 399
                config.vision_config.hidden_size = 32
                config.vision_config.intermediate_size = 48
                config.vision_config.num_hidden_layers = 2
                config.vision_config.num_attention_heads = 2
                config.vision_config.patch_size = 8
                config.vision_config.projection_dim = config.text_config.hidden_size
            super().__init__(config)
            self.model.language_model = PiGemma(config.text_config)

        @property
        def language_model(self) -> Any:
            return self.model.language_model

    def picture_features(self: Any, pixels: Any) -> Any:
        return self.multi_modal_projector(self.vision_tower(pixels).last_hidden_state)

    from transformers.models.paligemma import modeling_paligemma

    modeling_paligemma.PaliGemmaModel.get_image_features = picture_features
    return PaliGemma, Causal
