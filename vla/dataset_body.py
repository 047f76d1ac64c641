"""Whose actions a data set holds: names, units, limits, and whether each is a target or a step.

LeRobotDataset v3 names the numbers of a state and of an action and says no more. What it leaves out is read
from meta/takt.json, which our own writers add and others overlook,

    {"actions": [{"name": "dx", "unit": "1", "lower": -1, "upper": 1, "absolute": false}, ...]}

or is told by whoever trains. Targets that are named like the state's numbers need no telling.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla import atomic
from vla.contract import ActionSpace, Dimension, TaktError
from vla.dataset_format import one_line
from vla.dataset_reader import Dataset

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
# What a simulator alone knows of K things: x, y, z [m] and 1 where there is such a thing, K times; and of
# each camera u, v across the frame, -1 .. 1 rightwards and downwards, and the same 1.
PLACES, POINTS = "privileged.places", "privileged.points."
# 1 in the rows whose frames were taken then, 0 where they are those of a row before: cameras that are slower
# than the control. A data set without this column has new frames in every row.
FRESH = "camera.fresh"
FILE = Path("meta/takt.json")
SUFFIX = ".pos"  # what LeRobot adds to the name of a joint
TURN = 2 * math.pi
MARGIN = 0.05  # of a range that was seen, on either side, where nobody says the limits


@dataclass(frozen=True)
class Told:
    """What a user says of actions.

    Attributes:
        absolute: every action is a target.
        relative: names of those that are steps; "all" for every one. None: nothing was said.
        units: of every action, or of each.
    """

    absolute: bool = False
    relative: tuple[str, ...] | None = None
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Body:
    """What data sets that are trained on together have in common.

    Attributes:
        fps: frames a second. state: names of its numbers. cameras: names, in the data set's order.
    """

    fps: int
    state: tuple[str, ...]
    actions: ActionSpace
    cameras: tuple[str, ...]


def write(root: Path, actions: ActionSpace) -> None:
    """Add to a data set what its actions are."""
    atomic.write_json(root / FILE, {"actions": actions.to_json()}, indent=4)


def read(data: Dataset, told: Told, cameras: Sequence[str] | None = None) -> Body:
    """
    Args:
        cameras: the ones to look at; None for all.

    Raises:
        TaktError: a state, an action or a camera is missing, or it is not said what the actions are.
    """
    state, names = _names(data, STATE), _names(data, ACTION)
    there = tuple(
        n.removeprefix(IMAGES) for n, f in data.features.items() if n.startswith(IMAGES) and f.visual
    )
    if not there:
        raise TaktError(f"{data.root} has no {IMAGES}NAME; its columns are {', '.join(data.features)}")
    unknown = [name for name in cameras or () if name not in there]
    if unknown:
        raise TaktError(f"{data.root} has no camera {unknown[0]!r}; valid: {', '.join(there)}")
    space = _said(data, names) if (data.root / FILE).is_file() else _space(data, names, state, told)
    return Body(data.fps, state, space, tuple(cameras or there))


def places(data: Dataset, cameras: Sequence[str]) -> int:
    """Of how many things the data set says where they are and where these cameras see them."""
    wanted = {PLACES: 4, **{POINTS + camera: 3 for camera in cameras}}
    counts = {
        data.features[name].shape[0] / size if name in data.features else 0 for name, size in wanted.items()
    }
    return int(counts.pop()) if len(counts) == 1 else 0


def fresh(data: Dataset) -> np.ndarray:
    """Whether a row has new frames, shape (N,), bool; an episode's first has in any case.

    Raises:
        TaktError: the column is none of numbers.
    """
    if FRESH not in data.features:
        return np.ones(len(data), bool)
    feature = data.features[FRESH]
    if feature.shape != (1,) or feature.dtype == "string":
        raise TaktError(f"{data.root}: {FRESH} is {feature.dtype} {feature.shape}, not a number a row")
    found = data.columns([FRESH])[FRESH][:, 0] > 0.5
    found[[episode["dataset_from_index"] for episode in data.episodes]] = True
    return found


def same(bodies: Sequence[Body], roots: Sequence[Path]) -> Body:
    """The one body of several data sets, with limits that hold all of theirs.

    Raises:
        TaktError: two of them differ, with what in.
    """
    first = bodies[0]
    for body, root in zip(bodies, roots, strict=True):
        kinds = [[(d.name, d.unit, d.absolute) for d in b.actions.dimensions] for b in (body, first)]
        pairs = {"fps": (body.fps, first.fps), "state": (body.state, first.state)}
        pairs |= {"actions": (kinds[0], kinds[1]), "cameras": (body.cameras, first.cameras)}
        for what, (theirs, ours) in pairs.items():
            if theirs != ours:
                raise TaktError(f"{root} differs from {roots[0]} in {what}: {theirs}, not {ours}")
    low = np.min([b.actions.lower for b in bodies], 0)
    high = np.max([b.actions.upper for b in bodies], 0)
    dimensions = (
        Dimension(d.name, d.unit, float(a), float(b), d.absolute)
        for d, a, b in zip(first.actions.dimensions, low, high, strict=True)
    )
    return Body(first.fps, first.state, ActionSpace(tuple(dimensions)), first.cameras)


def _names(data: Dataset, feature: str) -> tuple[str, ...]:
    """Of a vector's numbers, without LeRobot's suffix; numbered where there are none."""
    if feature not in data.features:
        raise TaktError(f"{data.root} has no {feature}; its columns are {', '.join(data.features)}")
    f = data.features[feature]
    if len(f.shape) != 1 or not f.dtype.startswith("float"):
        raise TaktError(f"{data.root}: {feature} is {f.dtype} {f.shape}; a vector of floats is wanted")
    names = f.names
    if names is None or len(names) != f.shape[0]:
        return tuple(f"{feature.split('.')[-1]}_{i}" for i in range(f.shape[0]))
    found = tuple(str(name).removesuffix(SUFFIX) for name in names)
    if len(set(found)) != len(found):
        raise TaktError(f"{data.root}: {feature} has a name twice: {', '.join(found)}")
    return found


def _said(data: Dataset, names: tuple[str, ...]) -> ActionSpace:
    """Of meta/takt.json."""
    try:
        space = ActionSpace.from_json(json.loads((data.root / FILE).read_text())["actions"])
        fine = all(-math.inf < d.lower < d.upper < math.inf for d in space.dimensions)
        fine = fine and all(
            isinstance(d.absolute, bool) and isinstance(d.unit, str) for d in space.dimensions
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaktError(f"{data.root / FILE} is malformed: {one_line(error)}") from None
    if not fine:
        raise TaktError(f"{data.root / FILE}: every action has a unit, absolute, and lower < upper")
    if space.names != names:
        raise TaktError(f"{data.root / FILE} names the actions {list(space.names)}, info.json {list(names)}")
    return space


def _space(data: Dataset, names: tuple[str, ...], state: tuple[str, ...], told: Told) -> ActionSpace:
    """As told, as named, and within what was seen."""
    absolute = _kinds(data, names, state, told)
    rows = data.columns([ACTION])[ACTION].astype(np.float64)
    if not len(rows) or not np.isfinite(rows).all():
        raise TaktError(f"{data.root}: it has no actions, or some that are not finite")
    low, high = rows.min(0), rows.max(0)
    room = np.maximum((high - low) * MARGIN, 1e-3)
    angles = all(absolute) and bool((np.abs(rows) <= TURN).all())
    units = told.units or (("rad",) if angles else ("1",))
    if len(units) not in (1, len(names)):
        raise TaktError(f"--unit is one for all actions or one for each of {', '.join(names)}")
    units = units * len(names) if len(units) == 1 else units
    each = zip(names, units, (low - room).tolist(), (high + room).tolist(), absolute, strict=True)
    return ActionSpace(tuple(Dimension(*row) for row in each))


def _kinds(data: Dataset, names: tuple[str, ...], state: tuple[str, ...], told: Told) -> tuple[bool, ...]:
    """Which actions are targets."""
    if told.absolute and told.relative is not None:
        raise TaktError("--absolute says that every action is a target, --relative that some are not")
    if told.relative is not None:
        steps = names if told.relative == ("all",) else told.relative
        unknown = [name for name in steps if name not in names]
        if unknown:
            raise TaktError(f"{data.root} has no action {unknown[0]!r}; valid: {', '.join(names)}")
        return tuple(name not in steps for name in names)
    if told.absolute or all(name in state for name in names):
        return (True,) * len(names)
    raise TaktError(
        f"{data.root} does not say what its actions {', '.join(names)} are: --absolute where each is a "
        "target, else --relative NAME,NAME (or all) for those that are steps"
    )
