"""When a task counts as done: one rule a verb, of the state of the world alone.

A rule must hold for a while (suite.py) before an episode counts as a success.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.tabletop.places import SIDE_Y
from sim.tabletop.scene import BOWL_INNER, BOWL_RIM, CUBE_HALF, HALF, SLOTS, ZONE_HALF

if TYPE_CHECKING:
    from sim.tabletop.world import World

MOVED = 0.025  # a thing that was not named counts as moved past this distance [m]
STILL = 0.010  # where nothing is to be done, a thing counts as moved past this distance [m]
LIFTED = 0.050  # how high "lift" is [m]
PUSHED = 0.045  # a thing raised by more was carried, not pushed [m]
TOUCH_ACROSS, TOUCH_ABOVE = 0.015, 0.020  # how near the finger tip comes to the top of a thing [m]
SHUT_BELOW = 0.30  # the gripper counts as shut below this angle [rad]


def done(world: World) -> bool:
    """Whether the world's task is done; False where what it names is not there."""
    assert world.task is not None
    if not world.possible():
        return False
    return _RULES[world.task.verb](world)


def _thing(world: World) -> tuple[np.ndarray, int]:
    slot, at = world.slot("thing"), world.named("thing")
    assert slot is not None and at is not None
    return at, slot


def _place(world: World) -> np.ndarray:
    at = world.named("place")
    assert at is not None
    return at


def in_bowl(thing: np.ndarray, bowl: np.ndarray) -> bool:
    """Whether a thing's centre lies inside a bowl; both shape (3,) [m], the bowl's origin at its foot."""
    inside = np.hypot(*(thing[:2] - bowl[:2])) < BOWL_INNER - 0.004
    return bool(inside and thing[2] - bowl[2] < BOWL_RIM + CUBE_HALF * 0.6)


def height(slot: int) -> float:
    """From a thing's foot to its centre [m]."""
    return HALF[SLOTS[slot][:-1]]


def on_top(thing: np.ndarray, base: np.ndarray, rise: float) -> bool:
    """Whether a thing rests on a base: above it by `rise` m, and over its middle; both shape (3,) [m]."""
    return bool(np.hypot(*(thing[:2] - base[:2])) < 0.015 and abs(thing[2] - base[2] - rise) < 0.006)


def _put(world: World) -> bool:
    at, slot = _thing(world)
    return in_bowl(at, _place(world)) and not any(world.touching(slot))


def _stack(world: World) -> bool:
    at, slot = _thing(world)
    base = world.slot("place")
    assert base is not None
    return on_top(at, _place(world), height(slot) + height(base)) and not any(world.touching(slot))


def _push(world: World) -> bool:
    at, slot = _thing(world)
    assert world.task is not None
    if world.highest > PUSHED or at[2] > height(slot) + 0.006:
        return False
    if world.task.place is not None:
        return bool((np.abs(at[:2] - _place(world)[:2]) < ZONE_HALF - 0.006).all())
    return bool(at[1] > SIDE_Y if world.task.side == "left" else at[1] < -SIDE_Y)


def _touch(world: World) -> bool:
    at, slot = _thing(world)
    tip = world.tip()
    above = tip[2] - at[2] - height(slot)
    near = np.hypot(*(tip[:2] - at[:2])) < TOUCH_ACROSS and -0.006 < above < TOUCH_ABOVE
    stayed = np.linalg.norm(at - world.start[slot]) < MOVED
    return bool(near and stayed and world.joints()[5] < SHUT_BELOW)


def _lift(world: World) -> bool:
    at, slot = _thing(world)
    return bool(at[2] - world.start[slot][2] > LIFTED and any(world.touching(slot)))


_RULES = {"put": _put, "stack": _stack, "push": _push, "touch": _touch, "lift": _lift}
