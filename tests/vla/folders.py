"""Policy folders in LeRobot's form, with weights of our tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from vla import act, pi0, resnet, smolvla, smolvla_folder
from vla.pi0_folder import EXPERT, TEXT, VISION, WITH

KINDS = ("smolvla", "pi0", "pi05", "act")
FRAME = (64, 96)


def model(kind: str, seed: int = 0, views: int = 2) -> Any:
    torch.manual_seed(seed)
    if kind == "act":
        made: Any = act.ACT(act.Config(
            views=(FRAME,) * views, rows=10, width=16, heads=2, hidden=24, encoders=2, latent=4,
            backbone=resnet.NAMED["resnet18"],
        ))  # fmt: skip
    elif kind == "smolvla":
        made = smolvla.SmolVLA(smolvla.tiny(views))
    else:
        made = pi0.Pi0(pi0.tiny(kind == "pi05", views))
    for parameter in made.parameters():  # no bias of 0, no gain of 1
        parameter.data += 0.02 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


def renames(kind: str) -> dict[str, str]:
    """A prefix of ours -> LeRobot's."""
    if kind == "act":
        return {"": "model."}
    if kind == "smolvla":
        return {ours or "": theirs for theirs, ours in smolvla_folder.RENAMES.items()}
    root = f"model.{WITH}"
    return {
        "": "model.",
        "vision.": root + VISION,
        "projector.": f"{root}paligemma.model.multi_modal_projector.linear.",
        "embed_tokens.": f"{root}{TEXT}embed_tokens.",
        "language.": f"{root}{TEXT}layers.",
        "expert.": f"{root}{EXPERT}layers.",
        "expert_norm.": f"{root}{EXPERT}norm.",
    }


def weights(kind: str, made: Any) -> dict[str, torch.Tensor]:
    """By LeRobot's keys."""
    table = renames(kind)
    out = {}
    for name, value in made.state_dict().items():
        prefix = max((p for p in table if name.startswith(p)), key=len)
        out[table[prefix] + name[len(prefix) :]] = value.clone().contiguous()
    return out


def config(kind: str, made: Any) -> dict[str, Any]:
    c = made.config
    views = len(c.views) if kind == "act" else c.views
    inputs: dict[str, Any] = {"observation.state": {"type": "STATE", "shape": [c.state]}}
    for i in range(views):
        inputs[f"observation.images.camera{i}"] = {"type": "VISUAL", "shape": [3, *FRAME]}
    found = {
        "type": kind, "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [c.actions]}},
        "chunk_size": c.rows, "n_action_steps": c.rows,
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    }  # fmt: skip
    if kind == "act":
        return found | {
            "dim_model": c.width, "n_heads": c.heads, "dim_feedforward": c.hidden, "latent_dim": c.latent,
            "n_encoder_layers": c.encoders,
        }  # fmt: skip
    found |= {
        "max_state_dim": c.padded_state,
        "max_action_dim": c.padded_actions,
        "tokenizer_max_length": c.words,
    }
    if kind == "smolvla":
        return found | {"resize_imgs_with_padding": [c.vision.pixels] * 2, "vlm_model_name": "vlm"}
    return found | {"image_resolution": [c.vision.pixels] * 2}


def write(path: Path, kind: str, seed: int = 0, views: int = 2) -> Any:
    """A whole folder; the model that is in it."""
    made = model(kind, seed, views)
    path.mkdir(parents=True)
    save_file(weights(kind, made), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config(kind, made)))
    c = made.config
    stats = {}
    for name, width in (("observation.state", c.state), ("action", c.actions)):
        stats |= {f"{name}.mean": torch.linspace(-1, 1, width), f"{name}.std": torch.linspace(0.5, 1, width)}
        stats |= {f"{name}.min": torch.full((width,), -2.0), f"{name}.max": torch.full((width,), 2.0)}
    step = {
        "registry_name": "normalizer_processor",
        "config": {"eps": 1e-8},
        "state_file": "stats.safetensors",
    }
    (path / "policy_preprocessor.json").write_text(
        json.dumps({"name": "policy_preprocessor", "steps": [step]})
    )
    save_file(stats, path / "stats.safetensors")
    if kind != "act":
        words(path / "tokenizer.json")
    if kind == "smolvla":
        heads = {"text_config": {"head_dim": c.head}, "vision_config": {"num_attention_heads": 2}}
        (path / "vlm").mkdir()
        (path / "vlm" / "config.json").write_text(json.dumps(heads))
    return made


def words(path: Path) -> None:
    """A tokenizer of bytes, whose numbers are below 128 for ASCII."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = [c for c in alphabet if ord(c) < 127] + ["Ġ", "Ċ"]
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(printable)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
