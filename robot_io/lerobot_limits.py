"""What LeRobot does not say of a robot: the limits of its actions, and the units of its numbers. A JSON file:

    {"shoulder_pan.pos": {"unit": "deg", "lower": -100, "upper": 100,
                          "velocity": 100, "acceleration": 500, "lead": 12},
     "gripper.pos": {"unit": "percent", "lower": 0, "upper": 100, ...,
                     "name": "gripper"},
     "base.current": {"unit": "1"}}

Numbers are in the unit that stands beside them, the one in which this robot's LeRobot reads and takes them.
Takt computes in SI: si = scale * factor of the unit * number + offset.

| unit | in SI | |
|---|---|---|
| deg, rad | rad | |
| mm, m | m | |
| percent | 1 | LeRobot's 0 to 100 and -100 to 100 |
| 1 | 1 | |
| deg/s, rad/s, m/s | rad/s, m/s | a speed: held is 0, and nothing but its range is limited |

`scale` (1) and `offset` (0, in SI) are for zeros and turns that a policy has elsewhere; `name` is what it
calls the dimension. A number that is only read needs none of it, and then is handed on as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.contract import ActionSpace, CameraSpec, Dimension, RobotSpec, TaktError

UNITS: dict[str, tuple[str, float]] = {
    "deg": ("rad", math.pi / 180.0),
    "rad": ("rad", 1.0),
    "mm": ("m", 1e-3),
    "m": ("m", 1.0),
    "percent": ("1", 0.01),
    "1": ("1", 1.0),
    "deg/s": ("rad/s", math.pi / 180.0),
    "rad/s": ("rad/s", 1.0),
    "m/s": ("m/s", 1.0),
}
RANGE = ("lower", "upper")
RATES = ("velocity", "acceleration", "lead")
KEYS = ("unit", *RANGE, *RATES, "name", "scale", "offset")


@dataclass(frozen=True)
class Axis:
    """One number of a robot's and what it is in SI: si = gain * number + offset."""

    name: str
    unit: str
    gain: float = 1.0
    offset: float = 0.0

    @property
    def speed(self) -> bool:
        return self.unit.endswith("/s")


@dataclass(frozen=True)
class Body:
    """A robot as both sides see it.

    Attributes:
        spec: in SI.
        state, actions: shape (2, S) and (2, A): gain and offset of every number.
        lower, upper: shape (A,); the ranges of the file, in LeRobot's own numbers.
        moving: features that are speeds.
    """

    spec: RobotSpec
    state: np.ndarray
    actions: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    moving: tuple[str, ...]

    def seen(self, numbers: np.ndarray) -> np.ndarray:
        """LeRobot's state, shape (S,), in SI, float32."""
        return (self.state[0] * numbers + self.state[1]).astype(np.float32)

    def command(self, si: np.ndarray) -> np.ndarray:
        """A command in SI, shape (A,), in LeRobot's numbers, within the file's ranges."""
        return np.clip((si - self.actions[1]) / self.actions[0], self.lower, self.upper)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The file.

    Raises:
        TaktError: it cannot be read, or is of another form.
    """
    try:
        rows = json.loads(path.read_text())
    except OSError as error:
        raise TaktError(f"cannot read the limits {path}: {error.strerror}") from None
    except ValueError as error:
        raise TaktError(f"{path} is no JSON: {error}") from None
    if not (isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values())):
        raise TaktError(
            f'{path}: limits are {{"FEATURE": {{"unit": ..., "lower": ...}}}}, see docs/robots.md'
        )
    for feature, row in rows.items():
        if unknown := [key for key in row if key not in KEYS]:
            raise TaktError(f"{path}: {feature} has no {unknown[0]!r}; valid: {', '.join(KEYS)}")
    return rows


def body(about: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> Body:
    """The robot that LeRobot describes, with the limits of a file.

    Args:
        about: what robot_io/lerobot_host.py says of it.

    Raises:
        TaktError: an action lacks a limit or a unit, or one makes no sense.
    """
    features: Sequence[str] = about["actions"]
    if strange := sorted(set(rows) - {*features, *about["state"]}):
        raise TaktError(
            f"limits: the robot has no {strange[0]!r}; "
            f"it has {', '.join(dict.fromkeys([*features, *about['state']]))}"
        )
    axes = {f: _axis(f, rows.get(f, {}), about["units"].get(f, "")) for f in (*about["state"], *features)}
    wanted = {f: ("unit", *RANGE) if axes[f].speed else ("unit", *RANGE, *RATES) for f in features}
    missing = [
        f"{f} ({', '.join(lacks)})"
        for f in features
        if (
            lacks := [
                k for k in wanted[f] if k not in rows.get(f, {}) and not (k == "unit" and f in about["units"])
            ]
        )
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise TaktError(
            f"LeRobot knows no limits, and nothing moves without: give --options limits=FILE.json with "
            f"{', '.join(missing[:3])}{more} (docs/robots.md)"
        )
    dimensions, rates = [], []
    for feature in features:
        axis, row = axes[feature], rows[feature]
        lower, upper = (_number(feature, row, key) for key in RANGE)
        if not lower < upper or (axis.speed and not lower <= 0.0 <= upper):
            raise TaktError(
                f"limits: {feature}: lower is below upper{', with 0 between' if axis.speed else ''}"
            )
        low, high = sorted(axis.gain * end + axis.offset for end in (lower, upper))
        dimensions.append(Dimension(axis.name, axis.unit, low, high, not axis.speed))
        # Of a speed nothing but its range is limited; that of others is asked for.
        made = [high - low if axis.speed else abs(axis.gain) * _number(feature, row, key) for key in RATES]
        if min(made) <= 0:
            raise TaktError(f"limits: {feature}: {', '.join(RATES)} are above 0")
        rates.append(made)
    velocity, acceleration, lead = (tuple(column) for column in zip(*rates, strict=True))
    spec = RobotSpec(
        name=str(about["type"]),
        state=tuple(axes[f].name for f in about["state"]),
        actions=ActionSpace(tuple(dimensions)),
        cameras=tuple(CameraSpec(name, *size) for name, size in about["cameras"].items()),
        max_velocity=velocity,
        max_acceleration=acceleration,
        max_lead=lead,
        rest=tuple(min(max(0.0, d.lower), d.upper) for d in dimensions),
    )
    for kind, names in (("state", spec.state), ("actions", spec.actions.names)):
        if len(set(names)) < len(names):
            raise TaktError(f"limits: two of the robot's {kind} have one name: {', '.join(names)}")
    return Body(
        spec,
        _lines(axes, about["state"]),
        _lines(axes, features),
        np.array([float(rows[f]["lower"]) for f in features]),
        np.array([float(rows[f]["upper"]) for f in features]),
        tuple(f for f in features if axes[f].speed),
    )


def _lines(axes: Mapping[str, Axis], features: Sequence[str]) -> np.ndarray:
    """Gain and offset of each, shape (2, N)."""
    return np.array([(axes[f].gain, axes[f].offset) for f in features]).reshape(-1, 2).T


def _axis(feature: str, row: Mapping[str, Any], known: str) -> Axis:
    unit = row.get("unit", known or "1")
    if unit not in UNITS:
        raise TaktError(f"limits: {feature} is in {unit!r}; valid: {', '.join(UNITS)}")
    if known and unit != known:
        raise TaktError(f"limits: {feature} is in {unit!r}, but LeRobot's configuration makes it {known!r}")
    si, factor = UNITS[unit]
    gain = factor * (_number(feature, row, "scale") if "scale" in row else 1.0)
    if gain == 0.0:
        raise TaktError(f"limits: {feature}: its scale is not 0")
    offset = _number(feature, row, "offset") if "offset" in row else 0.0
    return Axis(str(row.get("name", feature)), si, gain, offset)


def _number(feature: str, row: Mapping[str, Any], key: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TaktError(f"limits: {feature}: its {key} is a finite number, not {value!r}")
    return float(value)
