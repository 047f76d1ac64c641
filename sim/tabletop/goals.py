"""Several things to be done on one table: sentences of many steps, and whether each goal was reached.

What is judged is the world and not what anyone claims: a goal is reached when its rule has held for half a
second at any time, and the whole is when all were and what should stay (put, stacked, pushed) has stayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.tabletop import instructions, places, rules, tasks
from sim.tabletop.meaning import SHAPES, Task, Thing, held_out
from sim.tabletop.scene import HALF, SLOTS, ZONES
from sim.tabletop.skills import SKILLS
from sim.tabletop.suite import SUITE
from sim.tabletop.tasks import Layout
from sim.tabletop.world import World
from vla.contract import TaktError

SETTLE = 0.5  # s that a rule has to hold
STAYS = ("put", "stack", "push")
_JOINTS = (", then ", " and then ", ". Then ", ", and ", "; ", ". After that ")
_GOALS = (2, 2, 2, 3, 3, 4)  # how many, by chance


@dataclass(frozen=True)
class Sequel:
    """A table and a sentence of several goals on it, in order."""

    seed: int
    layout: Layout
    goals: tuple[Task, ...]
    text: str


def draw(seed: int) -> Sequel:
    """What a seed stands for: 2 to 4 goals that each name another thing and none undoes another."""
    rng = np.random.default_rng(seed)
    wanted, all_of_them = _GOALS[int(rng.integers(len(_GOALS)))], rng.random() < 0.2
    while True:
        layout, first = tasks.draw(rng, spatial=0.0)
        if all_of_them and (every := _every(layout, rng)) is not None:
            return Sequel(seed, layout, *every)
        goals = [first] if first.verb != "lift" else []
        while len(goals) < wanted:
            options = [t for t in tasks.feasible(layout) if not t.relation and _fits(t, goals)]
            if not options:
                break
            verb = tasks.pick(rng, sorted({t.verb for t in options}))
            goals.append(tasks.pick(rng, [t for t in options if t.verb == verb]))
        if len(goals) == wanted and not all_of_them:
            return Sequel(seed, layout, tuple(goals), _sentence(goals, rng))


def laid(text: str, seed: int) -> Sequel:
    """A table on which a sentence makes sense: all that it names is there.

    Of "all the cubes" there are two, and of what is only called "the bowl" there is one.

    Raises:
        TaktError: it means nothing here, or no table was found for it.
    """
    reading = SKILLS.read(text)
    if not reading.wishes:
        known = ", ".join(repr(each) for each in instructions.examples()[:3])
        raise TaktError(f"{reading.problem}; try {known}")
    rng, wanted = np.random.default_rng(seed), []
    for wish in reading.wishes:
        some = list(zip(wish.each or (wish.text,), wish.choice or ("",), strict=False))
        choice = tasks.pick(rng, sorted({which for _, which in some}))
        texts = [each for each, which in some if which == choice]
        wanted += [texts[i] for i in rng.permutation(len(texts))[: 1 if choice and len(texts) == 1 else 2]]
    goals = tuple(goal for goal in map(instructions.parse, dict.fromkeys(wanted)) if goal is not None)
    if len(goals) == 1:
        return Sequel(seed, SUITE.scenario(instructions.canonical(goals[0]), seed).layout, goals, text)
    named = dict.fromkeys(t for g in goals for t in (g.thing, g.place, g.landmark) if t is not None)
    things = tuple(thing for thing in named if thing.kind != "zone")
    zones = tuple(thing.colour for thing in named if thing.kind == "zone")
    room = all(sum(t.kind == k for t in things) <= sum(s[:-1] == k for s in SLOTS) for k in (*SHAPES, "bowl"))
    for _ in range(2000 if room and len(things) <= 6 and len(zones) <= ZONES else 0):
        spots = places.draw(rng, things, len(zones))
        layout = None if spots is None else tasks.lit(rng, things, spots, zones)
        if layout is not None and all(tasks.possible(layout, goal) for goal in goals):
            return Sequel(seed, layout, goals, text)
    raise TaktError(f"no table was found on which {text!r} could be done: name fewer things")


def _fits(task: Task, goals: list[Task]) -> bool:
    """Whether a goal leaves the others be: a lifted thing stays in the hand, so that is the last."""
    if not goals:
        return task.verb != "lift" and not held_out(task)
    moved = {goal.thing for goal in goals}
    taken = moved | {goal.place for goal in goals if goal.verb == "stack"}
    free = task.thing not in taken and task.place not in moved and not held_out(task)
    return free and not (task.verb == "stack" and task.place in taken) and goals[-1].verb != "lift"


def _every(layout: Layout, rng: np.random.Generator) -> tuple[tuple[Task, ...], str] | None:
    """ "Put all the cubes in the bowl", where there are two or more and one bowl."""
    bowls = [t for t in layout.things if t.kind == "bowl"]
    kinds = [k for k in SHAPES if 2 <= len({t for t in layout.things if t.kind == k}) < 4]
    if len(bowls) != 1 or not kinds or len(set(layout.things)) != len(layout.things):
        return None
    kind = tasks.pick(rng, kinds)
    goals = tuple(Task("put", Thing(t.colour, kind), bowls[0]) for t in layout.things if t.kind == kind)
    named = tasks.pick(rng, ("the bowl", f"the {bowls[0].colour} bowl"))
    lead = tasks.pick(rng, ("put all the {}s in {}", "put every {} in {}", "place the {}s into {}"))
    return goals, lead.format(kind, named)


def _sentence(goals: Sequence[Task], rng: np.random.Generator) -> str:
    said = [instructions.phrase(goal, rng) for goal in goals]
    text = said[0].rstrip(".")
    for more in said[1:]:
        text += tasks.pick(rng, _JOINTS) + more[0].lower() + more[1:].rstrip(".")
    return text


class Judge:
    """Which of several goals were reached.

    Attributes:
        reached: of each goal, when, s; None where it was not.
    """

    def __init__(self, world: World, goals: Sequence[Task]) -> None:
        """The world as it is now is where everything begins."""
        self.goals = tuple(goals)
        self.reached: list[float | None] = [None] * len(self.goals)
        self._world, self._asked = world, []
        self._since: list[float | None] = [None] * len(self.goals)
        before = world.asked()
        for goal in self.goals:
            world.ask(goal)
            self._asked.append(world.asked())
        world.ask_again(before)

    def slot(self, goal: int) -> int:
        """Which slot the thing of a goal is."""
        slot = self._asked[goal]["_roles"]["thing"]
        assert slot is not None
        return int(slot)

    def look(self, now: float) -> None:
        """Once a tick, at `now` s."""
        for i, holds in enumerate(self.holding()):
            if not holds:
                self._since[i] = None
                continue
            since = self._since[i]
            self._since[i] = since = now if since is None else since
            if self.reached[i] is None and now - since >= SETTLE - 1e-9:
                self.reached[i] = now

    def holding(self) -> list[bool]:
        """Whether the rule of each goal holds now."""
        world, before, out = self._world, self._world.asked(), []
        for goal, asked in zip(self.goals, self._asked, strict=True):
            slot = asked["_roles"]["thing"]
            if slot is not None:
                risen = float(world.things()[slot][2] - asked["start"][slot][2])
                asked["highest"] = max(asked["highest"], risen)
            world.ask_again(asked)
            out.append(rules.done(world) or (goal.verb == "put" and self._on_others(world)))
        world.ask_again(before)
        return out

    @staticmethod
    def _on_others(world: World) -> bool:
        """Whether the thing lies in the bowl upon others that are in it: there is no room for all beside."""
        thing, bowl, slot = world.named("thing"), world.named("place"), world.slot("thing")
        assert world.layout is not None
        if thing is None or bowl is None or slot is None or any(world.touching(slot)):
            return False
        things = world.things()
        inside = [rules.in_bowl(things[s], bowl) for s in world.layout.slots if s != slot]
        lower = thing - [0.0, 0.0, 2 * HALF["cube"] * min(sum(inside), 2)]
        return rules.in_bowl(lower, bowl)

    def whole(self) -> bool:
        """Whether all were reached, and what should stay has stayed."""
        held = self.holding()
        stayed = all(h for h, goal in zip(held, self.goals, strict=True) if goal.verb in STAYS)
        return stayed and all(at is not None for at in self.reached)
