"""An ACT folder -> the model (act.py)."""

from __future__ import annotations

import torch

from vla import act, resnet
from vla.contract import TaktError
from vla.folder import ACTION, STATE, Folder, fill

# What only training needs: the encoder that sees the actions.
UNUSED = ("model.vae_encoder",)
ACTS = ("relu", "gelu")


def made(folder: Folder, dtype: torch.dtype = torch.float32) -> act.ACT:
    """
    Raises:
        TaktError: the folder asks for what is not there, or its weights do not fit together.
    """
    with torch.device("meta"):
        model = act.ACT(sizes(folder))
    fill(model, folder, {"model.": ""}, UNUSED, dtype)
    if model.config.state:
        model.of_state = folder.normaliser(STATE)
    model.of_actions = folder.normaliser(ACTION)
    model.of_views = torch.nn.ModuleList(folder.normaliser(name) for name in folder.pictures.values())
    return model.eval()


def sizes(folder: Folder) -> act.Config:
    c, path = folder.config, folder.path
    name, activation = c.get("vision_backbone", "resnet18"), c.get("feedforward_activation", "relu")
    if name not in resnet.NAMED:
        raise TaktError(f"{path}/config.json: no vision_backbone {name!r}; known: {', '.join(resnet.NAMED)}")
    if activation not in ACTS:
        raise TaktError(
            f"{path}/config.json: no feedforward_activation {activation!r}; known: {', '.join(ACTS)}"
        )
    if c.get("replace_final_stride_with_dilation"):
        raise TaktError(
            f"{path}: a ResNet with dilation (replace_final_stride_with_dilation) is not supported"
        )
    extra = [name for name, f in folder.inputs.items() if f.kind not in ("STATE", "VISUAL")]
    if extra or not folder.cameras:
        raise TaktError(f"{path}: ACT policies with cameras are supported, and no {extra or 'other'} inputs")
    width = folder.number("dim_model", 512)
    heads = folder.number("n_heads", 8)
    folder.parts("dim_model", width, heads)
    return act.Config(
        views=tuple(_size(folder, name) for name in folder.pictures.values()),
        state=folder.width(STATE) if STATE in folder.inputs else 0,
        actions=folder.width(ACTION),
        rows=folder.number("chunk_size", 100),
        width=width,
        heads=heads,
        hidden=folder.number("dim_feedforward", 3200),
        encoders=folder.number("n_encoder_layers", 4),
        decoders=folder.number("n_decoder_layers", 1),
        latent=folder.number("latent_dim", 32),
        pre_norm=bool(c.get("pre_norm", False)),
        act=activation,
        backbone=resnet.NAMED[name],
    )


def _size(folder: Folder, name: str) -> tuple[int, int]:
    shape = folder.inputs[name].shape
    if len(shape) != 3 or shape[0] != 3:
        raise TaktError(f"{folder.path}/config.json: {name} has shape {list(shape)}, not (3, height, width)")
    return shape[1], shape[2]
