"""Tables of one's own for the tests: what stands where, and things put somewhere without physics."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from sim.gl import mujoco
from sim.tabletop import tasks
from sim.tabletop.meaning import COLOURS, SHAPES, SIDES, VERBS, Task, Thing
from sim.tabletop.world import World

TICK = 8  # physics steps

# The pan to one side: the arm hides nothing and touches nothing.
ASIDE = np.array([1.5, *tasks.HOME[1:]])


def thing(words: str) -> Thing:
    """ "red cube" as a Thing."""
    colour, kind = words.split()
    return Thing(colour, kind)


def table(
    things: dict[str, tuple[float, float]], zones: dict[str, tuple[float, float]] | None = None, **how: object
) -> tasks.Layout:
    """A table in plain light, the arm aside. No name stands twice in a dict: a trailing + makes another."""
    zones = zones or {}
    plain = {
        "things": tuple(thing(words.rstrip("+")) for words in things),
        "xy": np.array(list(things.values()), float).reshape(-1, 2),
        "yaw": np.zeros(len(things)),
        "zones": tuple(zones),
        "zone_xy": np.array(list(zones.values()), float).reshape(-1, 2),
        "arm": ASIDE.copy(),
        "table": np.array([0.76, 0.70, 0.62]),
        "light": np.full(3, 0.6),
        "light_at": np.array([0.5, 0.4, 1.0]),
        "tint": np.ones(len(things)),
        "cameras": np.zeros((2, 6)),
    }
    return tasks.Layout(**{**plain, **how})  # type: ignore[arg-type]


def drawn(seed: int, **how: str) -> tuple[tasks.Layout, Task]:
    return tasks.draw(np.random.default_rng(seed), **how)


def move(world: World, at: dict[int, np.ndarray], arm: np.ndarray | None = None) -> None:
    """Put things of the layout, by number, and the arm's joints somewhere, without physics."""
    assert world.layout is not None
    for number, xyz in at.items():
        where = world._qpos[world.layout.slots[number]]
        world.data.qpos[where : where + 3] = xyz
    if arm is not None:
        world.data.qpos[world._arm] = arm
    mujoco.mj_forward(world.model, world.data)


def every_task() -> Iterator[Task]:
    """All that can be asked without spatial words."""
    for verb, colour, kind in product(VERBS, COLOURS, SHAPES):
        x = Thing(colour, kind)
        if verb in ("touch", "lift"):
            yield Task(verb, x)
        elif verb == "put":
            yield from (Task(verb, x, Thing(c, "bowl")) for c in COLOURS)
        elif verb == "stack":
            bases = (Thing(c, k) for c, k in product(COLOURS, SHAPES))
            yield from (Task(verb, x, base) for base in bases if tasks.stackable(x, base))
        elif kind != "ball":
            yield from (Task(verb, x, side=side) for side in SIDES)
            yield from (Task(verb, x, Thing(c, "zone")) for c in COLOURS)
