"""A SmolVLA folder -> the model (smolvla.py). Sizes are read off the weights: config.json has few of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch

from vla import siglip, siglip_folder, smolvla
from vla.contract import TaktError
from vla.folder import ACTION, STATE, Folder, fill
from vla.processors import finite

VLM = "model.vlm_with_expert.vlm."
TEXT = VLM + "model.text_model."
EXPERT = "model.vlm_with_expert.lm_expert."
RENAMES = {
    "model.": "",
    VLM + "model.vision_model.": "vision.",
    VLM + "model.connector.modality_projection.": "connector.",
    TEXT + "embed_tokens.": "embed_tokens.",
    TEXT + "layers.": "language.",
    EXPERT + "layers.": "expert.",
    EXPERT + "norm.": "expert_norm.",
}
HEAD = 64  # width of a head, which no weight shows, in SmolVLM2 of every size


def made(folder: Folder, dtype: torch.dtype = torch.float32) -> smolvla.SmolVLA:
    """
    Raises:
        TaktError: the folder asks for what is not there, or its weights do not fit together.
    """
    config = sizes(folder)
    with torch.device("meta"):
        model = smolvla.SmolVLA(config)
    last = f"{TEXT}layers.{config.layers - 1}."
    rest = ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp")
    unused = (VLM + "lm_head.", TEXT + "norm.", *(last + name for name in rest))
    fill(model, folder, RENAMES, unused, dtype)
    model.of_state, model.of_actions = folder.normaliser(STATE), folder.normaliser(ACTION)
    return model.eval()


def sizes(folder: Folder) -> smolvla.Config:
    c, path = folder.config, folder.path
    if c.get("adapt_to_pi_aloha"):
        raise TaktError(f"{path} maps Aloha's joints (adapt_to_pi_aloha), which is not supported")
    if c.get("add_image_special_tokens"):
        raise TaktError(
            f"{path} puts special tokens around pictures (add_image_special_tokens): not supported"
        )
    vlm = _vlm(folder)
    vocabulary, width = folder.shape(TEXT + "embed_tokens.weight", 2)
    layers = folder.count(TEXT + "layers.")
    if folder.count(EXPERT + "layers.") != layers:
        raise TaktError(
            f"{folder.weights} has {folder.count(EXPERT + 'layers.')} layers of the expert for {layers} of "
            "the language model; as many are wanted"
        )
    text = vlm.get("text_config", {})
    head = folder.whole("head_dim", text.get("head_dim") or HEAD)
    vision = _vision(folder, vlm.get("vision_config", {}))
    size = c.get("resize_imgs_with_padding")
    if size is None or list(size) != [vision.pixels, vision.pixels]:
        raise TaktError(
            f"{path}/config.json: resize_imgs_with_padding is {size}, the weights are for pictures of "
            f"{vision.pixels} pixels a side"
        )
    projected = folder.shape(VLM + "model.connector.modality_projection.proj.weight", 2)[1]
    shuffle = round((projected / vision.width) ** 0.5)
    folder.parts("patches of a picture, a side,", vision.side, shuffle)
    heads, kv_heads = (
        folder.parts(f"{name}_proj", folder.shape(f"{TEXT}layers.0.self_attn.{name}_proj.weight", 2)[0], head)
        for name in "qk"
    )
    folder.parts("heads of queries", heads, kv_heads)
    padded = folder.number("max_state_dim", 32), folder.number("max_action_dim", 32)
    folder.check_vectors(*padded)
    return smolvla.Config(
        views=len(folder.cameras),
        words=folder.words(48),
        state=folder.width(STATE),
        actions=folder.width(ACTION),
        padded_state=padded[0],
        padded_actions=padded[1],
        rows=folder.number("chunk_size", 50),
        vocabulary=vocabulary,
        width=width,
        hidden=folder.shape(TEXT + "layers.0.mlp.gate_proj.weight", 2)[0],
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        expert_width=folder.shape(EXPERT + "norm.weight", 1)[0],
        expert_hidden=folder.shape(EXPERT + "layers.0.mlp.gate_proj.weight", 2)[0],
        shuffle=shuffle,
        every=_every(folder),
        shortest=folder.real("min_period", 4e-3),
        longest=folder.real("max_period", 4.0),
        eps=finite(path, "rms_norm_eps", text.get("rms_norm_eps", 1e-5), positive=True),
        vision=vision,
    )


def _vision(folder: Folder, vlm: dict[str, Any]) -> siglip.Config:
    known = vlm.get("num_attention_heads")
    heads = None if known is None else folder.whole("num_attention_heads", known)
    found = siglip_folder.sizes(folder, VLM + "model.vision_model.", heads, HEAD)
    # LeRobot keeps the vision tower in bfloat16 where it took SmolVLM's own weights, and there the slip
    # of float32 does not happen.
    slips = not folder.config.get("load_vlm_weights", False)
    eps = finite(folder.path, "layer_norm_eps", vlm.get("layer_norm_eps", 1e-6), positive=True)
    return replace(found, eps=eps, shifted=bool(folder.extra.get("shifted", slips)))


def _every(folder: Folder) -> int:
    if "cross" not in str(folder.config.get("attention_mode", "cross_attn")):
        return 1
    return max(0, folder.number("self_attn_every_n_layers", 2, least=-1))


def _vlm(folder: Folder) -> dict[str, Any]:
    """The language model's own config.json, where `vlm_model_name` is a folder, from this one on or whole."""
    name = folder.config.get("vlm_model_name")
    file = folder.path / str(name) / "config.json"
    if not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text())
    except ValueError as error:
        raise TaktError(f"{file} is malformed: {error}") from None
    return data if isinstance(data, dict) else {}
