"""Where things can stand, which of them words mean, and whether there is room to push one.

Positions are (x, y) [m] in the frame of the robot's base: x ahead of it, y to its left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.tabletop.kinematics import PAN_X, cylindrical
from sim.tabletop.meaning import BESIDES, Task, Thing
from sim.tabletop.scene import BOWL_INNER, ZONE_HALF

RHO = (0.150, 0.265)  # things stand this far from the pan axis [m]
SWEEP = 0.75  # and within +- this angle of straight ahead [rad]
SIDE_Y = 0.100  # past this a thing lies at the side of the table [m]
CLEAR = 0.020  # spatial words tell two things apart by at least this [m]
_BOWL, _SMALL = BOWL_INNER + 0.006, 0.019  # outer radii [m]
_JAW = 0.030  # between things, for the jaws [m]
_ROOM = 0.032  # what is pushed, with the jaws around it, keeps this far from every other thing [m]


@dataclass(frozen=True)
class Spots:
    """Positions of things, shape (n, 2), and of zones, shape (m, 2) [m]."""

    things: np.ndarray
    zones: np.ndarray


def radius(kind: str) -> float:
    """How far a kind reaches from its centre, for keeping apart [m]."""
    return {"bowl": _BOWL, "zone": ZONE_HALF}.get(kind, _SMALL)


def draw(rng: np.random.Generator, things: Sequence[Thing], zones: int) -> Spots | None:
    """Positions by rejection, large things first; None where there is no room."""
    kinds = ["zone"] * zones + [t.kind for t in things]
    order = sorted(range(len(kinds)), key=lambda i: -radius(kinds[i]))
    for _ in range(20):
        xy = _scatter(rng, [kinds[i] for i in order])
        if xy is not None:
            out = np.empty((len(kinds), 2))
            out[order] = xy
            return Spots(out[zones:], out[:zones])
    return None


def _scatter(rng: np.random.Generator, kinds: list[str]) -> np.ndarray | None:
    placed: list[tuple[np.ndarray, str]] = []
    for kind in kinds:
        for _ in range(40):
            rho, a = rng.uniform(*RHO), rng.uniform(-SWEEP, SWEEP)
            xy = np.array([PAN_X + rho * np.cos(a), rho * np.sin(a)])
            if all(np.hypot(*(xy - other)) > radius(kind) + radius(k) + _gap(kind, k) for other, k in placed):
                placed.append((xy, kind))
                break
        else:
            return None
    return np.array([xy for xy, _ in placed])


def _gap(one: str, two: str) -> float:
    if "zone" in (one, two):
        return 0.004
    return 0.024 if "bowl" in (one, two) else _JAW


def resolve(things: Sequence[Thing], xy: np.ndarray, task: Task) -> int | None:
    """Which thing the task means, by index; None where none or more than one fits."""
    found = [i for i, t in enumerate(things) if t == task.thing]
    if not task.relation:
        return found[0] if len(found) == 1 else None
    if len(found) != 2:
        return None
    if task.relation in BESIDES:
        marks = [i for i, t in enumerate(things) if t == task.landmark]
        if len(marks) != 1:
            return None
        return _beside(found, xy, xy[marks[0]], task.relation)
    return _extreme(found, xy, task.relation)


def _extreme(found: list[int], xy: np.ndarray, relation: str) -> int | None:
    left, far = xy[found, 1], np.hypot(xy[found, 0] - PAN_X, xy[found, 1])
    key = {"leftmost": left, "rightmost": -left, "nearest": -far, "farthest": far}[relation]
    return found[int(key.argmax())] if abs(key[0] - key[1]) > CLEAR else None


def _beside(found: list[int], xy: np.ndarray, mark: np.ndarray, relation: str) -> int | None:
    """The one that lies so, where the other one clearly does not."""
    away = xy[found] - mark
    if relation == "next to":
        near = np.hypot(*away.T)
        return found[int(near.argmin())] if abs(near[0] - near[1]) > 2 * CLEAR else None
    along = {"left of": away[:, 1], "right of": -away[:, 1], "behind": away[:, 0], "in front of": -away[:, 0]}
    lies = along[relation]
    best = int(lies.argmax())
    return found[best] if lies[best] > CLEAR and lies[1 - best] < -CLEAR / 2 else None


def side_goal(xy: np.ndarray, side: str) -> np.ndarray:
    """Where a push to a side ends: as far from the pan axis as it began, a little past SIDE_Y."""
    rho = float(np.hypot(xy[0] - PAN_X, xy[1]))
    y = (SIDE_Y + 0.016) * (1 if side == "left" else -1)
    return np.array([PAN_X + np.sqrt(max(rho**2 - y**2, 0.0)), y])


def pushable(start: np.ndarray, goal: np.ndarray, others: np.ndarray, radii: np.ndarray, side: bool) -> bool:
    """Whether a push from `start` to `goal` is long enough, within reach and out of others' way.

    It goes around the pan axis, as the arm does.

    Args:
        others, radii: where other things are, shape (n, 2), and how far they reach, (n,) [m].
    """
    if not 0.055 < np.hypot(*(goal - start)) < 0.24 or (side and (goal - start)[1] * goal[1] < 0):
        return False
    here, there = (cylindrical(np.array([*xy, 0.0]))[:2] for xy in (start, goal))
    if not 0.13 < there[0] < 0.285:
        return False
    rho, angle = (here + np.linspace(0, 1, 13)[:, None] * (there - here)).T
    path = np.stack([PAN_X + rho * np.cos(angle), rho * np.sin(angle)], 1)
    apart = np.linalg.norm(path[:, None] - others, axis=2)
    return bool((apart > radii + _ROOM).all())
