"""What takt.json and the statistics say about a folder's numbers: names, units, limits, cameras, rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vla.contract import ActionSpace, CameraSpec, Dimension, PolicySpec, TaktError
from vla.folder import ACTION, OBSERVATION, STATE, Folder
from vla.folder import camera as called

SO101 = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
EMPTY = "empty_camera_"  # what LeRobot calls the cameras it trains without pictures
FPS = 30.0
QUANTILES = (("q01", "q99"), ("q10", "q90"))


@dataclass(frozen=True)
class Camera:
    """A policy's camera: the robot's name for it, None where it has none, and its trained size."""

    robot: str | None
    height: int
    width: int


def cameras(read: Folder) -> list[Camera]:
    names = _renamed(read) | _object(read, "cameras")
    unknown = sorted(set(names) - set(read.cameras))
    if unknown:
        raise TaktError(
            f"{read.path}/takt.json names a camera {unknown[0]!r}; there are {', '.join(read.cameras)}"
        )
    found = []
    for camera, feature in read.pictures.items():
        robot = names.get(camera, None if camera.startswith(EMPTY) else camera)
        shape = read.inputs[feature].shape
        if len(shape) != 3 or shape[0] != 3 or not (robot is None or isinstance(robot, str)):
            raise TaktError(f"{read.path}: camera {camera!r} has shape {list(shape)} and the name {robot!r}")
        found.append(Camera(robot, shape[1], shape[2]))
    if not any(c.robot for c in found):
        raise TaktError(f"{read.path}: no camera is left")
    if read.kind == "act" and not all(c.robot for c in found):
        raise TaktError(f"{read.path}: an ACT policy cannot do without one of its cameras")
    return found


def _renamed(read: Folder) -> dict[str, Any]:
    """Cameras that the preprocessor renames: the policy's name -> the robot's."""
    table = read.steps.get("rename_observations_processor", {}).get("rename_map") or {}
    if not isinstance(table, dict) or not all(
        isinstance(name, str) and name.startswith(f"{OBSERVATION}image") for p in table.items() for name in p
    ):
        raise TaktError(
            f"{read.path}/policy_preprocessor.json: rename_map may rename cameras alone, not {table}"
        )
    return {called(ours): called(robots) for robots, ours in table.items()}


def _object(read: Folder, name: str) -> dict[str, Any]:
    value = read.extra.get(name, {})
    if not isinstance(value, dict):
        raise TaktError(f"{read.path}/takt.json: {name} is no object")
    return value


def _list(read: Folder, name: str, width: int, default: Sequence[Any], kind: type) -> list[Any]:
    value = read.extra.get(name, list(default))
    good = isinstance(value, list) and len(value) == width
    if not good or not all(isinstance(v, (int, float) if kind is float else kind) for v in value):
        raise TaktError(f"{read.path}/takt.json: {name} is a list of {width}, got {value!r}")
    return value


def _units(read: Folder, name: str) -> tuple[Tensor, Tensor]:
    """Of a feature's numbers into SI units: what each is multiplied by, what is then added; (width,).

    Where state and actions are not equally long, the longer one has the list and the other its beginning.
    """
    most = max(read.width(each) for each in (STATE, ACTION) if each in {**read.inputs, **read.outputs})
    scale, shift = (_list(read, key, most, [v] * most, float) for key, v in (("scale", 1.0), ("shift", 0.0)))
    if not all(math.isfinite(v) and v for v in scale) or not all(math.isfinite(v) for v in shift):
        raise TaktError(f"{read.path}/takt.json: scale or shift has what is not finite, or scale a 0")
    width = read.width(name)
    return torch.tensor(scale[:width]).float(), torch.tensor(shift[:width]).float()


def rescale(read: Folder, model: Any) -> None:
    """Let the model's numbers be SI units."""
    for name, normal in ((STATE, model.of_state), (ACTION, model.of_actions)):
        if name in read.inputs or name in read.outputs:
            normal.rescale(*_units(read, name))


def spec(read: Folder, cameras: Sequence[Camera], rows: int) -> PolicySpec:
    width = read.width(ACTION)
    states = read.width(STATE) if STATE in read.inputs else 0
    names = _list(read, "actions", width, _names(width), str)
    fps = read.extra.get("fps", FPS)
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < 1e4:
        raise TaktError(f"{read.path}/takt.json: fps is {fps!r}")
    lower, upper, units = _range(read, width)
    dimensions = [Dimension(*each) for each in zip(names, units, lower, upper, strict=True)]
    taken = read.number("n_action_steps", rows)
    if not 1 <= taken <= rows:
        raise TaktError(f"{read.path}/config.json: n_action_steps is {taken}, of {rows} rows")
    return PolicySpec(
        name=f"{read.kind} {read.title}",
        state=tuple(_list(read, "state", states, _names(states), str)),
        actions=ActionSpace(tuple(dimensions)),
        cameras=tuple(CameraSpec(c.robot, c.height, c.width) for c in cameras if c.robot is not None),
        chunk_length=rows,
        dt=1.0 / fps,
        replan=taken / fps,
        joining="none" if read.kind == "act" else "guided",
    )


def _names(width: int) -> tuple[str, ...]:
    return SO101 if width == len(SO101) else tuple(f"joint_{i}" for i in range(width))


def _range(read: Folder, width: int) -> tuple[list[float], list[float], list[str]]:
    """Limits and units of the actions: what they were in training; rad where that is within a turn."""
    scale, shift = _units(read, ACTION)
    turn = torch.full((width,), 2 * math.pi)
    known = _reach(read, ACTION)
    if known is not None and read.relative:  # from where a joint was, as far as it went from there
        known = _from_states(known, read)
    one, two = ((each * scale + shift) for each in (known or (-turn, turn)))
    low, high = torch.minimum(one, two), torch.maximum(one, two)
    # openpi's actions may be relative to the state, which its folders do not tell: those are small as well.
    rad = read.form == "lerobot" and known is not None
    rad = rad and bool((low >= -turn).all() and (high <= turn).all())
    units = _list(read, "unit", width, ["rad" if rad else "1"] * width, str)
    return low.tolist(), high.tolist(), units


def _from_states(distances: tuple[Tensor, Tensor], read: Folder) -> tuple[Tensor, Tensor] | None:
    states = _reach(read, STATE)
    if states is None:
        return None
    width, mask = len(distances[0]), torch.tensor(read.relative).float()
    starts = [F.pad(each, (0, max(0, width - len(each))))[:width] * mask for each in states]
    return distances[0] + starts[0], distances[1] + starts[1]


def _reach(read: Folder, feature: str) -> tuple[Tensor, Tensor] | None:
    """From where to where a feature's numbers went in training, by the statistics that are there."""
    width = read.width(feature)
    stats = {name: value.float().reshape(-1) for name, value in read.stats.get(feature, {}).items()}
    stats = {
        name: value for name, value in stats.items() if value.shape == (width,) and value.isfinite().all()
    }
    pairs = [(stats[one], stats[two]) for one, two in QUANTILES if one in stats and two in stats]
    if "min" in stats and "max" in stats:
        return stats["min"], stats["max"]
    if "mean" in stats and "std" in stats:  # a quantile leaves out what lies beyond it
        pairs.append((stats["mean"] - 3 * stats["std"], stats["mean"] + 3 * stats["std"]))
    if not pairs:
        return None
    lows, highs = (torch.stack(each) for each in zip(*pairs, strict=True))
    return lows.amin(0), highs.amax(0)
