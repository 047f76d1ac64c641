"""A pi0 or pi0.5 folder -> the model (pi0.py). Sizes are read off the weights."""

from __future__ import annotations

import torch

from vla import pi0, siglip_folder
from vla.contract import TaktError
from vla.folder import ACTION, STATE, Folder, fill
from vla.preprocess import Prompt
from vla.processors import finite

WITH = "paligemma_with_expert."
VISION, TEXT = "paligemma.model.vision_tower.vision_model.", "paligemma.model.language_model."
EXPERT = "gemma_expert.model."
HEADS = 8  # of queries, in Gemma 2B and 300M, which no weight shows
VISION_HEAD = 16  # width of a head of other towers


def made(folder: Folder, dtype: torch.dtype = torch.float32) -> pi0.Pi0:
    """
    Raises:
        TaktError: the folder asks for what is not there, or its weights do not fit together.
    """
    config, root = sizes(folder), prefix(folder)
    with torch.device("meta"):
        model = pi0.Pi0(config)
    renames = {
        root: "",
        f"{root}{WITH}{VISION}": "vision.",
        f"{root}{WITH}paligemma.model.multi_modal_projector.linear.": "projector.",
        f"{root}{WITH}{TEXT}embed_tokens.": "embed_tokens.",
        f"{root}{WITH}{TEXT}layers.": "language.",
        f"{root}{WITH}{EXPERT}layers.": "expert.",
        f"{root}{WITH}{EXPERT}norm.": "expert_norm.",
    }
    mine, other = ("time_mlp", "action_time_mlp")[:: 1 if config.adaptive else -1]
    if f"{root}{mine}_in.weight" not in folder.shapes:  # the one called as the other, as LeRobot reads it too
        present = [end for end in ("in", "out") if f"{root}{other}_{end}.weight" in folder.shapes]
        renames |= {f"{root}{other}_{end}.": f"{mine}_{end}." for end in present}
    if not any(key.startswith(f"{root}{WITH}{TEXT}embed_tokens.") for key in folder.shapes):
        renames[f"{root}{WITH}paligemma.lm_head."] = "embed_tokens."  # the two are one weight, stored once
    last = f"{root}{WITH}{TEXT}layers.{config.layers - 1}."
    rest = ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp")
    heads = tuple(
        h for h in ("paligemma.lm_head.", "gemma_expert.lm_head.") if f"{root}{WITH}{h}" not in renames
    )
    unused = (
        *(f"{root}{WITH}{h}" for h in heads),
        f"{root}{WITH}{TEXT}norm.",
        *(last + name for name in rest),
        *((f"{root}state_proj.",) if config.adaptive else ()),
    )
    fill(model, folder, renames, unused, dtype)
    model.of_state, model.of_actions = folder.normaliser(STATE), folder.normaliser(ACTION)
    return model.eval()


def prompt(folder: Folder, model: pi0.Pi0) -> Prompt:
    """How an instruction becomes what the policy reads.

    pi0.5 reads the state as words: the robot's numbers ("plain"), zeros after them as wide as the model
    ("padded", as LeRobot before 0.5 has it), or, where it was trained without, none ("none").

    Raises:
        TaktError: takt.json asks for a fourth way, or for pi0 to read the state.
    """
    openpi, c = folder.form == "openpi", model.config
    if folder.kind == "pi0":
        usual = "none"
    else:  # LeRobot from 0.5.1 on writes the key, and since 0.5.0 it pads no more
        usual = "plain" if openpi or "use_relative_actions" in folder.config else "padded"
    said = folder.extra.get("prompt_state", usual)
    valid = ("plain", "padded", "none") if folder.kind == "pi05" else ("none",)
    if said not in valid:
        raise TaktError(f"{folder.path}/takt.json: prompt_state is one of {', '.join(valid)}, got {said!r}")
    if said == "none":
        return Prompt.from_json({"form": "tidied" if openpi else "line"}, c.state)
    normal, width = model.of_state, c.padded_state if said == "padded" else c.state
    return Prompt("with_state", normal.shift.numpy(), normal.gain.numpy(), normal.offset.numpy(), width)


def prefix(folder: Folder) -> str:
    """What stands before every key: LeRobot's "model.", or nothing as in openpi."""
    return "model." if any(key.startswith("model." + WITH) for key in folder.shapes) else ""


def sizes(folder: Folder) -> pi0.Config:
    root = prefix(folder) + WITH
    text, expert = root + TEXT + "layers.", root + EXPERT + "layers."
    embed = root + TEXT + "embed_tokens.weight"
    vocabulary, width = folder.shape(
        embed if embed in folder.shapes else root + "paligemma.lm_head.weight", 2
    )
    vision = siglip_folder.sizes(folder, root + VISION, None, VISION_HEAD)
    size = folder.config.get("image_resolution", [vision.pixels] * 2)
    if list(size) != [vision.pixels, vision.pixels]:
        raise TaktError(
            f"{folder.path}/config.json: image_resolution is {size}, the weights are for pictures of "
            f"{vision.pixels} pixels a side"
        )
    queries = folder.shape(text + "0.self_attn.q_proj.weight", 2)[0]
    layers = folder.count(text)
    if folder.count(expert) != layers:
        raise TaktError(f"{folder.weights}: the expert has {folder.count(expert)} layers for {layers}")
    adaptive = folder.kind == "pi05"
    head = folder.parts("queries", queries, HEADS)
    keys = folder.shape(text + "0.self_attn.k_proj.weight", 2)[0]
    padded = folder.number("max_state_dim", 32), folder.number("max_action_dim", 32)
    folder.check_vectors(*padded)
    return pi0.Config(
        adaptive=adaptive,
        views=len(folder.cameras),
        words=folder.words(200 if adaptive else 48),
        state=folder.width(STATE),
        actions=folder.width(ACTION),
        padded_state=padded[0],
        padded_actions=padded[1],
        rows=folder.number("chunk_size", 50),
        vocabulary=vocabulary,
        width=width,
        hidden=folder.shape(text + "0.mlp.gate_proj.weight", 2)[0],
        layers=layers,
        heads=HEADS,
        kv_heads=folder.parts("keys", keys, head),
        head=head,
        expert_width=folder.shape(expert + "0.self_attn.q_proj.weight", 2)[1],
        expert_hidden=folder.shape(expert + "0.mlp.gate_proj.weight", 2)[0],
        shortest=folder.real("min_period", 4e-3),
        longest=folder.real("max_period", 4.0),
        bars=finite(folder.path, "bars", folder.extra.get("bars", -1.0)),
        smooth=folder.form == "openpi",
        vision=vision,
    )
