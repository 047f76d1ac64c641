"""A gymnasium environment as a suite, described by a file: `takt eval --suite gym:FILE.json` (or .toml).

What each key means is in docs/suites.md. Everything is checked here, before a simulator starts; that the
environment has what the file says is checked where it runs (sim/foreign/worlds/gym_world.py).
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.contract import CameraSpec, Dimension, TaktError

REQUIRED = ("id", "rate", "seconds", "instruction", "state", "actions", "success")
OPTIONAL = ("kwargs", "python", "settle", "frames", "packages")
SUCCESS = ("info", "reward", "return", "terminated")
FLIPS = ("vertical", "horizontal", "both")


@dataclass(frozen=True)
class Mapping:
    """
    Attributes:
        path: of the file.
        python: the interpreter that has the environment.
        rate: control steps a second. seconds: of an episode. settle: so long success must last, s.
        state: names of the state's components. cameras: what frames it has. actions: the command space.
        rest: what absolute dimensions hold before the first command.
        world: what sim/foreign/worlds/gym_world.py is made with.
        text: the instruction, "" where the environment words it.
    """

    path: Path
    python: Path
    rate: float
    seconds: float
    settle: float
    state: tuple[str, ...]
    cameras: tuple[CameraSpec, ...]
    actions: tuple[Dimension, ...]
    rest: tuple[float, ...]
    world: dict[str, Any]
    text: str


def read(place: str) -> Mapping:
    """The mapping in a file.

    Raises:
        TaktError: there is no such file, or a key of it is missing, unknown or not understood.
    """
    path = Path(place)
    data = _parsed(path)
    missing = [key for key in REQUIRED if key not in data]
    unknown = sorted(set(data) - {*REQUIRED, *OPTIONAL})
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}"
        raise TaktError(f"{path} {what}; keys: {', '.join(REQUIRED)}; and {', '.join(OPTIONAL)}")
    try:
        return _mapping(path, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TaktError(f"{path}: {' '.join(str(error).split())}; see docs/suites.md") from None


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except OSError as error:
        raise TaktError(f"--suite gym:{path}: {error.strerror}; name a mapping file") from None
    except ValueError:
        raise TaktError(f"{path} is no UTF-8 text") from None
    try:
        if path.suffix == ".toml":
            if sys.version_info < (3, 11):
                raise TaktError(f"{path}: reading TOML takes Python 3.11; write it as JSON")
            import tomllib

            return tomllib.loads(text)
        data = json.loads(text)
    except ValueError as error:
        raise TaktError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise TaktError(f"{path} is no object of keys")
    return data


def _mapping(path: Path, data: dict[str, Any]) -> Mapping:
    rate = _number(data, "rate", 1.0, 240.0)
    states = [_state(part) for part in data["state"]]
    actions, rest = zip(*map(_action, data["actions"]), strict=True)
    frames = {str(name): _frame(name, where) for name, where in data.get("frames", {}).items()}
    instruction = _one_of(data["instruction"], "instruction", ("text", "observation", "info"))
    success = _one_of(data["success"], "success", SUCCESS)
    names = [name for part in states for name in part["names"]] + [a.name for a in actions]
    settle = _number(data, "settle", 0.0, 3600.0) if "settle" in data else 0.0
    seconds = _number(data, "seconds", 1.0 / rate, 3600.0)
    if settle >= seconds:
        raise ValueError(f"settle is below seconds, {seconds:g}, not {settle:g}: nothing could succeed")
    for key in ("reward", "return"):
        if key in success:
            _number(success, key, -1e300, 1e300)
    for some in (names[: -len(actions)], names[-len(actions) :]):
        if len(set(some)) < len(some):
            raise ValueError(f"names are different ones, not {', '.join(some)}")
    python = data.get("python")
    world = {
        "name": str(data["id"]), "kwargs": dict(data.get("kwargs", {})), "state": states, "frames": frames,
        "instruction": instruction, "success": success, "packages": list(data.get("packages", [])),
        "size": len(actions),
    }  # fmt: skip
    return Mapping(
        path,
        path.parent / python if python else Path(sys.executable),
        rate,
        seconds,
        settle,
        tuple(name for part in states for name in part["names"]),
        tuple(CameraSpec(name, *where["size"]) for name, where in frames.items()),
        actions,
        rest,
        world,
        str(data["instruction"].get("text", "")),
    )


def _number(data: dict[str, Any], key: str, low: float, high: float) -> float:
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{key} is a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def _one_of(where: dict[str, Any], name: str, valid: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(where, dict) or len(where) != 1 or next(iter(where)) not in valid:
        raise ValueError(f"{name} is an object with one of {', '.join(valid)}, not {where!r}")
    return where


def _state(part: dict[str, Any]) -> dict[str, Any]:
    names = [str(name) for name in part["names"]]
    begin, end = part.get("slice", [0, len(names)])
    if not names or end - begin != len(names) or begin < 0:
        raise ValueError(f"slice {[begin, end]} of the state does not have the length of its names {names}")
    return {"observation": str(part.get("observation", "")), "slice": [begin, end], "names": names}


def _frame(name: str, where: dict[str, Any]) -> dict[str, Any]:
    height, width = (int(v) for v in where["size"])
    source: dict[str, Any] = {key: where[key] for key in ("observation", "render") if key in where}
    if len(source) != 1 or where.get("flip", "both") not in FLIPS or min(height, width) < 1:
        raise ValueError(
            f"frame {name!r} has a size, one of observation, render, and flip: {'|'.join(FLIPS)}"
        )
    return {**source, "size": [height, width], "flip": where.get("flip", "")}


def _action(one: dict[str, Any]) -> tuple[Dimension, float]:
    lower, upper, rest = float(one["lower"]), float(one["upper"]), float(one.get("rest", 0.0))
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise ValueError(f"action {one['name']!r} goes from {lower} to {upper}")
    dimension = Dimension(
        str(one["name"]), str(one.get("unit", "1")), lower, upper, bool(one.get("absolute", True))
    )
    return dimension, min(max(rest, lower), upper) if dimension.absolute else 0.0
