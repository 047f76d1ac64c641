"""What is compared with LeRobot: policies of every kind, small, with what their configs can vary."""

from __future__ import annotations

from typing import Any

MIN_MAX = {"VISUAL": "IDENTITY", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
QUANTILES = {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILE10"}
PLAIN = {"VISUAL": "IDENTITY", "STATE": "IDENTITY", "ACTION": "IDENTITY"}

TINY: list[tuple[str, str, str, dict[str, Any]]] = [
    ("smolvla-1", "smolvla", "tiny", {"cameras": 1}),
    ("smolvla-2", "smolvla", "tiny", {"cameras": 2, "normalization_mapping": MIN_MAX}),
    ("smolvla-3", "smolvla", "tiny", {"cameras": 3, "empty_cameras": 1}),
    (
        "smolvla-every",
        "smolvla",
        "tiny",
        {"self_attn_every_n_layers": 3, "num_steps": 4, "prefix_length": 96},
    ),
    ("smolvla-self", "smolvla", "tiny", {"attention_mode": "self_attn", "normalization_mapping": PLAIN}),
    ("pi0-1", "pi0", "tiny", {"cameras": 1}),
    ("pi0-2", "pi0", "tiny", {"cameras": 2, "normalization_mapping": QUANTILES}),
    ("pi0-3", "pi0", "tiny", {"cameras": 3, "num_inference_steps": 5}),
    ("pi05-1", "pi05", "tiny", {"cameras": 1, "tokenizer_max_length": 150}),
    ("pi05-2", "pi05", "tiny", {"cameras": 2, "normalization_mapping": MIN_MAX}),
    ("pi05-3", "pi05", "tiny", {"cameras": 3}),
    ("act-1", "act", "tiny", {"cameras": 1, "n_decoder_layers": 2}),
    ("act-2", "act", "tiny", {"cameras": 2, "pre_norm": True, "feedforward_activation": "gelu"}),
    ("act-3", "act", "tiny", {"cameras": 3, "use_vae": False, "vision_backbone": "resnet50"}),
]
FULL = [(f"smolvla-full-{n}", "smolvla", "full", {"cameras": n}) for n in (1, 2, 3)]
