"""A pi0 or pi0.5 folder as openpi's PyTorch code writes it -> what LeRobot's folders are read to (folder.py).

    model.safetensors                       keys start with paligemma_with_expert.
    assets/<asset_id>/norm_stats.json       mean, std, q01, q99 of "state" and "actions"
    config.json                             where a JAX checkpoint was converted: action_dim, action_horizon
    metadata.pt, optimizer.pt               where openpi trained it: pickles, which are not looked at
    tokenizer.json, takt.json               yours (docs/checkpoints.md)

What kind of policy it is and how wide it is shows in the weights; which robot's numbers it speaks does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla import siglip_folder
from vla.contract import TaktError
from vla.folder import ACTION, IMAGES, STATE, Feature, Folder
from vla.pi0_folder import EXPERT, VISION, WITH
from vla.processors import mask_of
from vla.stored import object_of, shapes_of

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")  # openpi's preprocessing knows no others
ROWS = 50  # action_horizon, where nothing says it
EPS = 1e-6  # of openpi's transforms.Normalize
OWN = {STATE: "state", ACTION: "actions"}  # what openpi calls them


def fits(path: Path) -> bool:
    """Whether a folder is one of these: openpi's keys, and no config.json that names a type.

    Raises:
        TaktError: it is a JAX checkpoint of openpi's.
    """
    weights = path / "model.safetensors"
    if not weights.is_file():
        if (path / "params").is_dir() and not (path / "config.json").is_file():
            raise TaktError(
                f"{path} is a JAX checkpoint: convert it with openpi's "
                "examples/convert_jax_model_to_pytorch.py"
            )
        return False
    if (path / "config.json").is_file() and "type" in object_of(path / "config.json"):
        return False
    return any(key.startswith(WITH) for key in shapes_of(weights)[0])


def read(path: Path, extra: dict[str, Any]) -> Folder:
    """
    Args:
        extra: what takt.json says.

    Raises:
        TaktError: something is missing or malformed; the line names it.
    """
    shapes, keys = shapes_of(path / "model.safetensors")
    said = object_of(path / "config.json") if (path / "config.json").is_file() else {}
    folder = Folder(path, {}, shapes, {}, {}, {}, {}, EPS, extra=extra, form="openpi", keys=keys)
    adaptive = f"{WITH}{EXPERT}norm.dense.weight" in shapes
    mode = "QUANTILES" if adaptive else "MEAN_STD"
    width = folder.shape("action_in_proj.weight", 2)[1]
    if said.get("action_dim", width) != width:
        raise TaktError(f"{path}/config.json: action_dim is {said['action_dim']!r}, the weights have {width}")
    rows = folder.whole("rows", extra.get("rows", said.get("action_horizon", ROWS)))
    folder.config |= {
        "type": "pi05" if adaptive else "pi0",
        "chunk_size": rows,
        "n_action_steps": rows,
        "max_action_dim": width,
        "max_state_dim": width if adaptive else folder.shape("state_proj.weight", 2)[1],
    }
    folder.modes = {"STATE": mode, "ACTION": mode, "VISUAL": "IDENTITY"}
    folder.stats = _statistics(path, extra)
    widths = {name: _cut(folder, name) for name in OWN}
    pixels = siglip_folder.sizes(folder, WITH + VISION, 1, 1).pixels
    folder.inputs[STATE] = Feature("STATE", (widths[STATE],))
    folder.inputs |= {IMAGES + name: Feature("VISUAL", (3, pixels, pixels)) for name in CAMERAS}
    folder.outputs[ACTION] = Feature("ACTION", (widths[ACTION],))
    folder.relative = mask_of(folder, extra.get("relative", []))
    return folder


def _statistics(path: Path, extra: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    assets = path / "assets"
    files = {str(f.parent.relative_to(assets)): f for f in sorted(assets.rglob("norm_stats.json"))}
    asset = extra.get("asset", next(iter(files), None))
    if not files:
        raise TaktError(
            f"{path} has no assets/<asset_id>/norm_stats.json, by which its numbers are normalised: copy the "
            "assets folder of the checkpoint it comes from into it"
        )
    if asset not in files or (len(files) > 1 and "asset" not in extra):
        raise TaktError(
            f"{path} has statistics of {', '.join(files)}; takt.json says which are meant: "
            f'"asset": "{next(iter(files))}"'
        )
    file = files[asset]
    try:
        of = object_of(file)["norm_stats"]
        return {name: _tensors(of[own]) for name, own in OWN.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise TaktError(
            f"{file} is malformed: norm_stats of state and actions are wanted, each lists of numbers"
        ) from None


def _tensors(of: dict[str, Any]) -> dict[str, Tensor]:
    found = {name: torch.tensor(of[name], dtype=torch.float32) for name in ("mean", "std")}
    found |= {
        name: torch.tensor(of[name], dtype=torch.float32)
        for name in ("q01", "q99")
        if of.get(name) is not None
    }
    if len({tuple(value.shape) for value in found.values()}) != 1 or found["mean"].ndim != 1:
        raise ValueError
    return found


def _cut(folder: Folder, name: str) -> int:
    """How many numbers the robot has: as takt.json names, else as there are statistics."""
    own, stats = OWN[name], folder.stats[name]
    names, most = folder.extra.get(own), len(stats["mean"])
    width = len(names) if isinstance(names, list) else most
    if not 0 < width <= most:
        raise TaktError(f"{folder.path}/takt.json names {width} of {own}; there are statistics of {most}")
    folder.stats[name] = {statistic: value[:width] for statistic, value in stats.items()}
    return width
