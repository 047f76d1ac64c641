"""Instructions: a task of the tabletop as words, and words as a task.

`seen` wordings are for training; `phrasings` share no verb and no sentence with them, so that obeying
them shows that meaning was learned and not a table of strings. `parse` undoes both, and is tolerant
beyond them; what it cannot tell it does not guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from sim.tabletop import wordings
from sim.tabletop.meaning import COLOURS, EXTREMES, SHAPES, Task, Thing

SPLITS_OF_WORDS = ("seen", "phrasings")
LONGEST = 20  # words and marks of an instruction: what the policy's reader has room for


def phrase(task: Task, rng: np.random.Generator, split: str = "seen") -> str:
    """One wording of a task.

    Args:
        rng: decides the wording.
        split: one of SPLITS_OF_WORDS.
    """
    text = _sentence(task, rng, split)
    while len(re.findall(r"\w+|[^\w ]", text)) > LONGEST:
        text = _sentence(task, rng, split)
    return text if rng.random() < 0.7 else text[0].upper() + text[1:]


def _sentence(task: Task, rng: np.random.Generator, split: str) -> str:
    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    def noun(thing: Thing | None) -> str:
        return "" if thing is None else f"{thing.colour} {pick(wordings.NOUNS[split][thing.kind])}"

    form, x = family(task), noun(task.thing)
    if task.relation:
        x = pick(wordings.WHICH[split][task.relation]).format(n=x, l=noun(task.landmark))
    words = {
        "x": x,
        "y": noun(task.place),
        "v": pick(wordings.VERBS[split][form]),
        "p": pick(wordings.INTO[split].get(form, ("",))),
        "s": pick(wordings.SIDES[split].get(task.side, ("",))),
    }
    if rng.random() < 0.25:
        return pick(wordings.SAY[split][form]).format(**words)
    return pick(wordings.ASK[split]).format(do=pick(wordings.DO[split][form]).format(**words))


def phrases(task: Task, rng: np.random.Generator, count: int, split: str = "seen") -> list[str]:
    """Different wordings of a task, `count` of them."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[phrase(task, rng, split)] = None
    return list(found)


def family(task: Task) -> str:
    """Which of the grammar's families of sentences a task has: its verb, or where it is pushed to."""
    if task.verb == "push":
        return "side" if task.side else "zone"
    return task.verb


def name(thing: Thing) -> str:
    """As in "red cube"."""
    return f"{thing.colour} {thing.kind}"


def canonical(task: Task) -> str:
    """The plain wording, used as the task's name."""
    x = name(task.thing)
    if task.relation in EXTREMES:
        x = f"{task.relation} {x}"
    elif task.relation:
        assert task.landmark is not None
        x = f"{x} {task.relation} the {name(task.landmark)}"
    if task.side:
        return f"push the {x} to the {task.side}"
    if task.place is None:
        return f"{task.verb} the {x}"
    into = {"put": "in", "stack": "on", "push": "to"}[task.verb]
    return f"{task.verb} the {x} {into} the {name(task.place)}"


def examples() -> list[str]:
    """Sentences that a person might type, for help and for errors."""
    return [
        "put the red cube in the blue bowl",
        "stack the green cube on the yellow cylinder",
        "push the white cube to the left",
        "slide the purple cylinder into the green zone",
        "touch the blue ball",
        "lift the leftmost red cube",
        "pick up the yellow ball left of the white bowl",
    ]


# -- from words to a task


@dataclass(frozen=True)
class Named:
    """A thing that a text names, and where in it."""

    thing: Thing
    start: int
    end: int


_KIND = {n: kind for split in SPLITS_OF_WORDS for kind, nouns in wordings.NOUNS[split].items() for n in nouns}
_NOUN = "|".join(sorted(map(re.escape, _KIND), key=len, reverse=True))
_NAMED = re.compile(rf"\b({'|'.join(COLOURS)})\s+(?:coloured\s+|colored\s+|small\s+|little\s+)?({_NOUN})s?\b")

# What stands before a name says what part it plays; the first that fits.
_BESIDE = (
    ("left of", r"\bleft (?:side )?of$"),
    ("right of", r"\bright (?:side )?of$"),
    ("in front of", r"\b(?:in front of|before|ahead of)$"),
    ("behind", r"\b(?:behind|in back of|beyond)$"),
    ("next to", r"\b(?:next to|beside|near|close to|by|alongside|adjacent to)$"),
)
_EXTREME = {
    "leftmost": r"\bleftmost\b|\bfar left\b|\bleft end\b|\bmost to the left\b",
    "rightmost": r"\brightmost\b|\bfar right\b|\bright end\b|\bmost to the right\b",
    "nearest": r"\bnearest\b|\bclosest\b",
    "farthest": r"\bfarthest\b|\bfurthest\b|\bmost distant\b",
}
_PLACED = (
    r"\b(?:in|into|inside|inside of|within|on|onto|on to|on top of|on the top of|upon|atop|over|to|towards?"
    r"|as far as)$"
)
_TOUCHED = r"\b(?:go to|point to|put a finger on)$"
_ARTICLE = r"(?:\s+(?:the|a|an|this|that|my|your))?\s*$"
# Sentences that name the place first.
_PLACE_FIRST = r"\bshould (?:hold|carry|contain)\b|\bis where\b|^(?:\W*fill\b)|\bfill the\b"
_TOUCH = (
    r"\b(?:touch(?:ed)?|tap|point (?:at|to)|poke|reach for|put a finger on|(?:make )?contact|indicate|press"
    r"|pat|feel|show me)\b"
)
_LIFT = (
    r"\b(?:lift(?:ed)?|raise|pick up|hold up|grab|take|hoist|elevate|heave|pluck up|off the table"
    r"|in the air)\b"
)
_PUSH = (
    r"\b(?:push|slide|moved?|shove|nudge|sweep|shift|scoot|drive|herd|glide|propel|knock|goes|go|gets"
    r"|end up|drag)\b"
)
_NOT_A_PUT = r"\b(?:push|slide|shove|nudge|sweep|scoot|touch|tap|poke|lift|raise)\b"
_STOP = r"\b(?:do not|don't|never|not|neither|except|unless)\b"


def parse(text: str) -> Task | None:
    """What a text asks for; None where it cannot be told.

    The inverse of `phrase`. Left and right are the robot's own.
    """
    said = " ".join(re.sub(r"[^a-z' -]+", " , ", text.lower()).replace("-", " ").split())
    said = said.replace("left most", "leftmost").replace("right most", "rightmost")
    named = things_in(said)
    if not named or re.search(_STOP, said):
        return None
    parts: dict[str, Thing] = {}
    relation = ""
    for i, each in enumerate(named):
        before = re.sub(_ARTICLE, "", said[named[i - 1].end if i else 0 : each.start])
        beside = next((r for r, pattern in _BESIDE if re.search(pattern, before)), "") if i else ""
        placed = re.search(_PLACED, before) and not re.search(_TOUCHED, before)
        role = "landmark" if beside else "place" if placed else "thing"
        relation = beside or relation
        if role in parts:
            if role == "landmark" or "place" in parts:
                return None
            role = "place"  # two names with nothing between them that tells: the order does
        parts[role] = each.thing
    if re.search(_PLACE_FIRST, said) and "place" in parts and "thing" in parts:
        parts["thing"], parts["place"] = _first_is_place(named, parts)
    return _task(said, parts, relation)


def things_in(text: str) -> list[Named]:
    """The things that a lower-case text names by colour and kind, in their order."""
    return [Named(Thing(m[1], _KIND[m[2]]), m.start(), m.end()) for m in _NAMED.finditer(text)]


def _first_is_place(named: list[Named], parts: dict[str, Thing]) -> tuple[Thing, Thing]:
    first = named[0].thing
    other = parts["place"] if parts["thing"] == first else parts["thing"]
    return other, first


def _task(said: str, parts: dict[str, Thing], relation: str) -> Task | None:
    thing, place, landmark = parts.get("thing"), parts.get("place"), parts.get("landmark")
    if thing is None or thing.kind not in SHAPES or (landmark is not None and landmark.kind == "zone"):
        return None
    found = [r for r, pattern in _EXTREME.items() if re.search(pattern, said)]
    # "the left red cube", but "push the red cube left".
    plain = re.search(rf"\b(left|right) {thing.colour}\b", said)
    if plain and not found:
        found = [f"{plain[1]}most"]
    if len(found) > 1 or (found and relation):
        return None
    relation = found[0] if found else relation
    if place is not None:
        return _placed(said, thing, place, relation, landmark)
    side = _side(said, landmark is not None or plain is not None or bool(found))
    touch, lift, push = (bool(re.search(p, said)) for p in (_TOUCH, _LIFT, _PUSH))
    if side and push and not lift and not touch:
        return Task("push", thing, None, side, relation, landmark)
    if touch == lift or side:
        return None
    return Task("touch" if touch else "lift", thing, None, "", relation, landmark)


def _placed(said: str, thing: Thing, place: Thing, relation: str, landmark: Thing | None) -> Task | None:
    if place.kind == "zone":
        return Task("push", thing, place, "", relation, landmark)
    if place.kind == "bowl":
        pushed = re.search(_NOT_A_PUT, said)
        return None if pushed else Task("put", thing, place, "", relation, landmark)
    if place == thing or place.kind == "ball":
        return None
    return Task("stack", thing, place, "", relation, landmark)


def _side(said: str, spatial: bool) -> str:
    """The side that a text names; where a spatial word names one as well, only what cannot be that."""
    rest = re.sub(r"\b(?:far|most to the) (?:left|right)\b|\b(?:left|right) (?:end|(?:side )?of)\b", "", said)
    rest = re.sub(rf"\b(?:left|right) (?={'|'.join(COLOURS)}\b)", "", rest) if spatial else rest
    found = {m[1] for m in re.finditer(r"\b(left|right)(?:wards?|hand)?\b", rest)}
    return found.pop() if len(found) == 1 else ""
