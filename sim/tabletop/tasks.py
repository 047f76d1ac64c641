"""A table drawn from a seed, with a task that can be done on it: what stands where, in which light.

`draw` makes a table for a task of its own choice; `feasible` lists what else can be asked there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TypeVar

import numpy as np

from sim.tabletop import places
from sim.tabletop.meaning import (
    BESIDES,
    COLOURS,
    EXTREMES,
    SHAPES,
    SIDES,
    Task,
    Thing,
    held_out,
)  # fmt: skip
from sim.tabletop.scene import SLOTS

T = TypeVar("T")

HOME = np.array([0.0, -0.55, 0.75, 0.95, 0.0, 0.9])  # [rad]
# How often each verb is asked.
SHARES = {"put": 0.30, "stack": 0.20, "push": 0.22, "touch": 0.12, "lift": 0.16}
EXAMPLE = 456  # a seed whose table has what examples name: a red cube, a blue cube and one bowl, a blue one
SPATIAL = 0.2  # share of put, touch and lift that need a spatial word


@dataclass(frozen=True)
class Layout:
    """One scene: what stands where, in which light, seen from where.

    Attributes:
        things: what stands on the table, bowls included; at most as many of a kind as scene.SLOTS has.
        xy, yaw: shapes (n, 2) [m], (n,) [rad].
        zones: colours of the painted squares. zone_xy: their centres, shape (m, 2) [m].
        arm: shape (6,), the pose to start from [rad].
        table, light, light_at: table colour (3,), brightness (3,), key light position (3,) [m].
        tint: shape (n,), brightness of each thing's paint.
        cameras: shape (2, 6); how far each camera (world.CAMERAS) is off: position [m], rotation [rad].
    """

    things: tuple[Thing, ...]
    xy: np.ndarray
    yaw: np.ndarray
    zones: tuple[str, ...]
    zone_xy: np.ndarray
    arm: np.ndarray
    table: np.ndarray
    light: np.ndarray
    light_at: np.ndarray
    tint: np.ndarray
    cameras: np.ndarray

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Which of scene.SLOTS each thing takes."""
        seen: dict[str, int] = {}
        out = []
        for thing in self.things:
            number = seen[thing.kind] = seen.get(thing.kind, -1) + 1
            out.append(SLOTS.index(f"{thing.kind}{number}"))
        return tuple(out)

    def has(self, thing: Thing) -> bool:
        """Whether there is such a thing or zone."""
        return thing.colour in self.zones if thing.kind == "zone" else thing in self.things


def draw(
    rng: np.random.Generator, split: str = "seen", verb: str | None = None, spatial: float = SPATIAL
) -> tuple[Layout, Task]:
    """A table and a task that can be done on it.

    Args:
        split: "combinations" draws only what `meaning.held_out` keeps from training, others never.
        verb: one of VERBS, instead of a random one.
        spatial: as SPATIAL.
    """
    while True:
        task = _task(rng, split == "combinations", verb, spatial)
        for _ in range(100):  # another task only when this one hardly fits: the shares of tasks stay
            layout = lay(rng, task)
            if layout is not None:
                return layout, task


def lay(rng: np.random.Generator, task: Task) -> Layout | None:
    """A table with what `task` names and some distractors, or None where chance found no room."""
    named = [task.thing, *([task.thing] if task.relation else [])]
    named += [t for t in (task.place, task.landmark) if t is not None and t.kind != "zone"]
    named = list(dict.fromkeys(named)) + ([task.thing] if task.relation else [])
    zones = [task.place.colour] if task.place is not None and task.place.kind == "zone" else []
    if zones or rng.random() < 0.12:
        zones += _others(rng, zones, tuple(COLOURS), int(rng.integers(0 if zones else 1, 2)))
    most = 5 - len(zones)
    things = [*named, *_distractors(rng, named, int(rng.integers(max(2, len(named)), most + 1)) - len(named))]
    order = rng.permutation(len(things))
    things = [things[i] for i in order]
    spots = places.draw(rng, things, len(zones))
    if spots is None:
        return None
    layout = lit(rng, tuple(things), spots, tuple(zones))
    return layout if possible(layout, task) else None


def possible(layout: Layout, task: Task) -> bool:
    """Whether the task can be done on the table: one thing fits the words, and there is room to do it."""
    thing = places.resolve(layout.things, layout.xy, task)
    if thing is None:
        return False
    if task.verb == "push":
        others = np.delete(layout.xy, thing, 0)
        goal = places.side_goal(layout.xy[thing], task.side)
        if task.place is not None:
            if task.place.colour not in layout.zones:
                return False
            goal = layout.zone_xy[layout.zones.index(task.place.colour)]
        radii = np.array([places.radius(t.kind) for i, t in enumerate(layout.things) if i != thing])
        return places.pushable(layout.xy[thing], goal, others, radii, side=bool(task.side))
    return task.place is None or layout.things.count(task.place) == 1


def feasible(layout: Layout) -> list[Task]:
    """All tasks that can be done on this table, spatial words only where they are needed."""
    takable = [t for t in dict.fromkeys(layout.things) if t.kind in SHAPES]
    found: list[Task] = []
    for thing in takable:
        if layout.things.count(thing) > 1:
            found += [Task(v, thing, relation=r) for v in ("touch", "lift") for r in EXTREMES]
            continue
        found += [Task("touch", thing), Task("lift", thing)]
        found += [Task("put", thing, t) for t in layout.things if t.kind == "bowl"]
        if thing.kind != "ball":
            found += [Task("stack", thing, t) for t in layout.things if stackable(thing, t)]
            found += [Task("push", thing, side=side) for side in SIDES]
            found += [Task("push", thing, Thing(colour, "zone")) for colour in layout.zones]
    return [task for task in dict.fromkeys(found) if possible(layout, task)]


def another(
    rng: np.random.Generator,
    layout: Layout,
    task: Task,
    split: str = "seen",
    without: Collection[Thing] = (),
) -> Task | None:
    """Another task on the same table, for another thing where there is one; None where there is none.

    Args:
        without: things that it must not name.
    """
    wanted = split == "combinations"
    options = [t for t in feasible(layout) if t != task and held_out(t) == wanted]
    options = [t for t in options if not {t.thing, t.place, t.landmark} & set(without)]
    options = [t for t in options if t.thing != task.thing] or options
    verbs = [v for v in SHARES if any(t.verb == v for t in options)]
    if not verbs:
        return None
    verb = pick(rng, verbs, [SHARES[v] for v in verbs])
    return pick(rng, [t for t in options if t.verb == verb])


def stackable(thing: Thing, base: Thing | None) -> bool:
    """Whether one can stand on the other: a ball rolls, and two cylinders on end fall at a touch."""
    if base is None or thing == base or "ball" in (thing.kind, base.kind):
        return False
    return base.kind in ("cube", "cylinder") and {thing.kind, base.kind} != {"cylinder"}


def absent(rng: np.random.Generator, layout: Layout, task: Task) -> Task | None:
    """The task with its thing or its place replaced by one that is not on the table; None by bad luck."""
    roles = ["thing", *(["place"] if task.place is not None else [])]
    role = pick(rng, roles)
    there = task.thing if role == "thing" else task.place
    assert there is not None
    kinds = [k for k in SHAPES if k != "ball" or task.verb not in ("stack", "push")]
    kinds = kinds if role == "thing" else [there.kind]
    options = [Thing(c, k) for c, k in product(COLOURS, kinds) if not layout.has(Thing(c, k))]
    other, plain = pick(rng, options), replace(task, relation="", landmark=None)
    missing = replace(plain, thing=other) if role == "thing" else replace(plain, place=other)
    if missing.verb == "stack" and not stackable(missing.thing, missing.place):
        return None
    return None if held_out(missing) else missing


def roles(rng: np.random.Generator) -> tuple[Layout, Task, Task]:
    """A table and two tasks with the same words in swapped roles, both seen in training.

    "put the red cube in the blue bowl" against "put the blue cube in the red bowl", and
    "stack the red cube on the blue cube" against "stack the blue cube on the red cube".
    """
    while True:
        a, b = (list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:2])
        if rng.random() < 0.5:
            kind = pick(rng, SHAPES)
            things = [Thing(a, kind), Thing(b, kind), Thing(a, "bowl"), Thing(b, "bowl")]
            one, two = Task("put", things[0], things[3]), Task("put", things[1], things[2])
        else:
            x, y = Thing(a, "cube"), Thing(b, pick(rng, ("cube", "cylinder")))
            one, two = Task("stack", x, y), Task("stack", y, x)
            things = [x, y, *_distractors(rng, [x, y], int(rng.integers(0, 3)))]
        spots = places.draw(rng, things, 0)
        if spots is None or held_out(one) or held_out(two):
            continue
        layout = lit(rng, tuple(things), spots, ())
        if possible(layout, one) and possible(layout, two):
            return layout, one, two


# -- how a task and a table are drawn


def _task(rng: np.random.Generator, unseen: bool, verb: str | None, spatial: float) -> Task:
    while True:
        task = _any_task(rng, verb or pick(rng, list(SHARES), list(SHARES.values())), spatial)
        if held_out(task) == unseen:
            return task


def _any_task(rng: np.random.Generator, verb: str, spatial: float) -> Task:
    def thing(kinds: tuple[str, ...]) -> Thing:
        return Thing(pick(rng, tuple(COLOURS)), pick(rng, kinds))

    if verb == "stack":
        task = Task(verb, thing(("cube", "cylinder")), thing(("cube", "cylinder")))
        return task if stackable(task.thing, task.place) else _any_task(rng, verb, spatial)
    if verb == "push":
        x = thing(("cube", "cylinder"))
        if rng.random() < 0.5:
            return Task(verb, x, side=pick(rng, SIDES))
        return Task(verb, x, thing(("zone",)))
    place = thing(("bowl",)) if verb == "put" else None
    plain = Task(verb, thing(SHAPES), place)
    if rng.random() >= spatial:
        return plain
    if rng.random() < 0.5:
        return replace(plain, relation=pick(rng, EXTREMES))
    kind = pick(rng, (*SHAPES, "bowl"))
    landmark = thing((kind,)) if verb != "put" or rng.random() < 0.5 else place
    if landmark == plain.thing:
        return plain
    return replace(plain, relation=pick(rng, BESIDES), landmark=landmark)


def _distractors(rng: np.random.Generator, named: list[Thing], count: int) -> list[Thing]:
    """Things that are not named; half of them share colour or kind with something that is."""
    out: list[Thing] = []
    for _ in range(200):
        if len(out) >= count:
            break
        kind = pick(rng, (*SHAPES, "bowl"))
        colour = pick(rng, tuple(COLOURS))
        if rng.random() < 0.5:
            like = pick(rng, named)
            kind, colour = (like.kind, colour) if rng.random() < 0.5 else (kind, like.colour)
        thing, all_things = Thing(colour, kind), [*named, *out]
        room = sum(t.kind == kind for t in all_things) < sum(s.startswith(kind) for s in SLOTS)
        if room and thing not in all_things:
            out.append(thing)
    return out


def lit(
    rng: np.random.Generator, things: tuple[Thing, ...], spots: places.Spots, zones: tuple[str, ...]
) -> Layout:
    """The table with light, paint, cameras and the arm's first pose by chance."""
    n = len(things)
    off = np.array([[0.005] * 3 + [0.006] * 3, [0.001] * 3 + [0.006] * 3])
    return Layout(
        things=things,
        xy=spots.things,
        yaw=rng.uniform(-np.pi / 4, np.pi / 4, n),
        zones=zones,
        zone_xy=spots.zones,
        arm=HOME + rng.uniform(-1, 1, 6) * np.array([0.25, 0.10, 0.10, 0.10, 0.0, 0.1]),
        table=np.array([0.74, 0.68, 0.60]) * rng.uniform(0.75, 1.05) + rng.uniform(-0.05, 0.05, 3),
        light=np.full(3, rng.uniform(0.40, 0.80)) + rng.uniform(-0.06, 0.06, 3),
        light_at=np.array([0.5, 0.4, 1.0]) + rng.uniform(-0.35, 0.35, 3),
        tint=rng.uniform(0.85, 1.1, n),
        cameras=rng.uniform(-1, 1, (2, 6)) * off,
    )


def _others(rng: np.random.Generator, taken: list[str], options: tuple[str, ...], count: int) -> list[str]:
    free = [o for o in options if o not in taken]
    return [free[i] for i in rng.permutation(len(free))[:count]]


def pick(rng: np.random.Generator, options: Sequence[T], shares: Sequence[float] | None = None) -> T:
    """One of the options, each with its share of the chances where those are given."""
    if shares is None:
        return options[int(rng.integers(len(options)))]
    p = np.array(shares) / sum(shares)
    return options[int(rng.choice(len(options), p=p))]
