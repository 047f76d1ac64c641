"""What the shipped policy can be told, for `runtime/instruct.py`: entry point `nano` of `takt.skills`.

Whatever is understood is handed on in its plain wording, which the policy reads best.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from itertools import product

from runtime.skills import Reading, Wish
from sim.tabletop import speech, wordings
from sim.tabletop.clauses import Part, parts, understood
from sim.tabletop.hearing import heard
from sim.tabletop.instructions import canonical, name
from sim.tabletop.meaning import COLOURS, SHAPES, SIDES, VERBS, Task, Thing
from sim.tabletop.reading import parse, things_in
from sim.tabletop.tasks import stackable

_OTHER_COLOURS = ("orange", "pink", "black", "brown", "grey", "gray", "cyan", "turquoise", "violet", "golden")
_EXAMPLES = (
    "put the red cube in the blue bowl",
    "stack the green cube on the white cylinder",
    "lift the ball",
)
_EMPTY = frozenset(("the", "a", "an", "to", "in", "on", "of", "me", "and", "it"))
_ON = re.compile(r"^(?:on|onto|on top of|atop)\b")


class Tabletop:
    """A `Skills`; `speech` is what can be spoken to it, see `runtime/voice.py`."""

    speech = speech.RULES

    def read(self, text: str, before: str = "") -> Reading:
        """See `Skills`."""
        found = parts(heard(text), parse(before) if before else None)
        if isinstance(found, str):
            return Reading(problem=self._why(found))
        return Reading(tuple(wish for part in found for wish in _wishes(part)))

    def correct(self, text: str, now: str) -> Reading:
        """See `Skills`."""
        task, said = parse(now), heard(text).strip(" ,.!?")
        if task is None:
            return _of_many(now, said) or self.read(text)
        part = understood(said, task)
        if part is not None and part.sure:
            return Reading(tuple(_wishes(part)))
        changed = _changed(task, said)
        if changed is not None and _sound(changed):
            return Reading((Wish(canonical(changed)),))
        part = understood(f"{task.verb} {said}", task)
        if part is not None:
            return Reading(tuple(_wishes(part)))
        whole = self.read(text, now)
        return whole if whole.wishes else Reading(problem=f"I cannot tell what {text!r} changes in {now!r}")

    def nearest(self, text: str, count: int = 3) -> list[str]:
        """See `Skills`."""
        said = {word for word in re.findall(r"[a-z]+", heard(text)) if word not in _EMPTY}

        def like(known: str) -> float:
            return sum(word in said for word in known.split()) - 0.01 * len(known)

        ranked = sorted(self.known(), key=like, reverse=True)
        return ranked[:count] if said & _words(ranked[0]) else list(_EXAMPLES[:count])

    def known(self) -> list[str]:
        """See `Skills`; without spatial words."""
        return self._known

    @cached_property
    def _known(self) -> list[str]:
        return [canonical(task) for task in tasks()]

    def _why(self, text: str) -> str:
        """Why a part of a sentence means nothing here."""
        words = set(re.findall(r"[a-z]+", text))
        other = [colour for colour in _OTHER_COLOURS if colour in words]
        if other:
            return f"I know nothing that is {other[0]}, only {', '.join(COLOURS)}"
        named = things_in(text)
        task = parse(text)
        if (task is not None and task.verb == "stack") or (len(named) == 2 and named[1].kind == "ball"):
            return "a ball rolls off whatever it is on, nothing stays on one, nor a cylinder on a cylinder"
        return f"I do not know how to {text!r}"


def tasks() -> Iterable[Task]:
    """Everything that can be asked without spatial words."""
    takable = [Thing(c, k) for k in SHAPES for c in COLOURS]
    bowls, zones = ([Thing(c, kind) for c in COLOURS] for kind in ("bowl", "zone"))
    for verb in VERBS:
        if verb in ("touch", "lift"):
            yield from (Task(verb, thing) for thing in takable)
        elif verb == "put":
            yield from (Task(verb, thing, bowl) for thing, bowl in product(takable, bowls))
        elif verb == "stack":
            yield from (Task(verb, x, y) for x, y in product(takable, takable) if stackable(x, y))
        else:
            yield from (Task(verb, t, z) for t, z in product(takable, zones) if t.kind != "ball")
            yield from (Task(verb, t, side=s) for t, s in product(takable, SIDES) if t.kind != "ball")


def _of_many(now: str, said: str) -> Reading | None:
    """What a few words change in an instruction that may mean several things ("the bowl")."""
    part = understood(heard(now), None)
    if part is None:
        return None
    changed: dict[Task, str] = {}
    for task, which in zip(part.tasks, part.choice, strict=True):
        other = _changed(task, said)
        if other is None or not _sound(other):
            return None
        changed.setdefault(other, which)
    text = f"{part.text}, and not as it was: {said}"
    made = Part(text, tuple(changed), tuple(changed.values()), len(changed) == 1)
    return Reading(tuple(_wishes(made)))


def _words(text: str) -> set[str]:
    return set(text.split()) - _EMPTY


def _wishes(part: Part) -> list[Wish]:
    texts = tuple(canonical(task) for task in part.tasks)
    if part.sure:
        return [
            Wish(canonical(t), probes=(_probes(t),), first=_first(t), names=_names(t)) for t in part.tasks
        ]
    probes, firsts = tuple(map(_probes, part.tasks)), tuple(map(_first, part.tasks))
    return [Wish(part.text, texts, part.choice, probes, each_first=firsts)]


def _probes(task: Task) -> tuple[str, ...]:
    """What the policy would not begin either if the task's thing were not there; the task itself last."""
    simple = [canonical(replace(task, verb=verb, place=None, side="")) for verb in ("touch", "lift")]
    own = canonical(task)
    return (own,) if own in simple else (*simple, own)


def _names(task: Task) -> tuple[str, str] | tuple[()]:
    """The thing and the place of a task, as people call them; nothing where words of place tell which."""
    if task.relation:
        return ()
    return f"the {name(task.thing)}", f"the {name(task.place)}" if task.place else ""


def _first(task: Task) -> str:
    """A bowl that holds something looks like one in which a thing was put: the policy is told to take it."""
    return canonical(replace(task, verb="lift", place=None)) if task.verb == "put" else ""


def _sound(task: Task) -> bool:
    """Whether a task that was put together makes sense."""
    if task.verb == "stack" and not stackable(task.thing, task.place):
        return False
    return task.thing.kind in SHAPES and parse(canonical(task)) == task


def _changed(task: Task, said: str) -> Task | None:
    """The task with what a few words change in it: "the blue one", "in the white bowl", "to the right"."""
    plain = re.sub(r"\b(?:one|ones|thing|please|instead|i meant?|the|a)\b", " ", said)
    words = plain.split()
    colours = [word for word in words if word in COLOURS]
    named = things_in(said)
    places = [thing for thing in named if thing.kind not in SHAPES]
    things = [thing for thing in named if thing.kind in SHAPES]
    for extreme in ("leftmost", "rightmost", "nearest", "farthest"):
        if extreme in words or (extreme[:-4] in words and re.search(r"\b(?:left|right) one\b", said)):
            return replace(task, relation=extreme, landmark=None)
    if len(named) > 1 or (named and len(colours) > len(named)):
        return None
    if places:
        return None if task.place is None else replace(task, place=places[0])
    if things:
        if _ON.match(said) and task.verb == "stack":
            return replace(task, place=things[0])
        return replace(task, thing=things[0], relation="", landmark=None)
    if len(colours) == 1:
        if task.place is not None and re.match(r"(?:in|into|on|onto|to)\b", said):
            return replace(task, place=replace(task.place, colour=colours[0]))
        return replace(task, thing=replace(task.thing, colour=colours[0]), relation="", landmark=None)
    kinds = [k for k in SHAPES for w in words if w in wordings.NOUNS["seen"][k]]
    if len(set(kinds)) == 1 and not colours:
        return replace(task, thing=replace(task.thing, kind=kinds[0]), relation="", landmark=None)
    sides = [side for side in SIDES if side in words]
    if len(sides) == 1 and task.side:
        return replace(task, side=sides[0])
    return None


SKILLS = Tabletop()
