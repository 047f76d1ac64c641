"""What an instruction on the tabletop means, as data: a verb, a thing, perhaps a place.

Words are one way to write a `Task` down (instructions.py), a table is where it is to be done
(tasks.py). Left and right are the robot's own; behind is farther from it, nearest closest to it.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.62, 0.18),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.95, 0.82, 0.08),
    "purple": (0.52, 0.16, 0.68),
    "white": (0.95, 0.95, 0.96),
}
SHAPES = ("cube", "cylinder", "ball")  # what can be taken
KINDS = (*SHAPES, "bowl", "zone")  # a zone is a coloured square painted on the table
VERBS = ("put", "stack", "push", "touch", "lift")
SIDES = ("left", "right")  # of the table
EXTREMES = ("leftmost", "rightmost", "nearest", "farthest")
BESIDES = ("left of", "right of", "behind", "in front of", "next to")
RELATIONS = (*EXTREMES, *BESIDES)


@dataclass(frozen=True)
class Thing:
    """A colour of COLOURS and a kind of KINDS."""

    colour: str
    kind: str


@dataclass(frozen=True)
class Task:
    """What is asked.

    Attributes:
        verb: one of VERBS.
        thing: what is to be put, stacked, pushed, touched or lifted; of a kind in SHAPES.
        place: the bowl to put it in, the cube or cylinder to stack it on, the zone to push it into; None
            for touch, lift, and a push to a side.
        side: where to push it without a place, one of SIDES; else empty.
        relation: which of two things of this colour and kind, one of RELATIONS; empty where there is one.
        landmark: what the relation is to, for one of BESIDES; a thing or a bowl.
    """

    verb: str
    thing: Thing
    place: Thing | None = None
    side: str = ""
    relation: str = ""
    landmark: Thing | None = None


# A task as classes, one number a row; 0 where there is none of it. Learned from words alone.
MEANING = (
    ("verb", VERBS),
    ("thing colour", tuple(COLOURS)),
    ("thing kind", SHAPES),
    ("place colour", tuple(COLOURS)),
    ("place kind", KINDS),
    ("side", SIDES),
    ("relation", RELATIONS),
    ("landmark colour", tuple(COLOURS)),
    ("landmark kind", KINDS),
)


def classes(task: Task) -> list[int]:
    """The task as class numbers, one for each row of MEANING: 0 for none, else 1 + its place in the row."""
    said = (
        task.verb,
        task.thing.colour, task.thing.kind,
        task.place and task.place.colour, task.place and task.place.kind,
        task.side, task.relation,
        task.landmark and task.landmark.colour, task.landmark and task.landmark.kind,
    )  # fmt: skip
    return [1 + options.index(word) if word else 0 for (_, options), word in zip(MEANING, said, strict=True)]


def held_out(task: Task) -> bool:
    """Whether training never sees this verb with this thing and this target, in no wording.

    About a fifth of all combinations; each colour, each kind and each target occurs in training with others.
    """
    names = tuple(COLOURS)
    colour, kind = names.index(task.thing.colour), SHAPES.index(task.thing.kind)
    verb = VERBS.index(task.verb)
    if task.place is not None:
        return (colour + 2 * kind + 3 * names.index(task.place.colour) + verb) % 5 == 0
    if task.side:
        return (colour + 2 * kind + 3 * SIDES.index(task.side)) % 5 == 0
    return (colour + 2 * kind + verb) % 6 == 0
