"""Sentences for a Task: a grammar of paraphrases. reading.py has the way back.

Both work from the tables of wordings.py, so that a noun added there can be said and understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from sim.tabletop import sentences, wordings
from sim.tabletop.meaning import Task, Thing
from sim.tabletop.reading import parse, things_in, vocabulary
from sim.tabletop.wordings import SPLITS_OF_WORDS, mirror, mirrored

__all__ = [
    "SPLITS_OF_WORDS", "canonical", "examples", "family", "filled", "frames", "name", "parse", "phrase",
    "phrases", "things_in", "vocabulary",
]  # fmt: skip

LONGEST = 17  # words and stops in a sentence; some are two or three tokens, and the policy reads 24
_TRIES = 30
Pick = Callable[[Sequence[str]], str]


def name(thing: Thing) -> str:
    """ "red cube"."""
    return f"{thing.colour} {thing.kind}"


def family(task: Task) -> str:
    """One of wordings.FAMILIES: the verb, with a push told apart by what it is towards."""
    if task.verb != "push":
        return task.verb
    return "zone" if task.place else "side"


def canonical(task: Task) -> str:
    """The plain wording, used as the task's name."""
    thing = f"the {name(task.thing)}"
    if task.landmark:
        thing += f" {task.relation} the {name(task.landmark)}"
    elif task.relation:
        thing = f"the {task.relation} {name(task.thing)}"
    lead = {"put": "in", "stack": "on", "push": "to"}.get(task.verb, "")
    if task.place:
        return f"{task.verb} {thing} {lead} the {name(task.place)}"
    return f"{task.verb} {thing}" + (f" to the {task.side}" if task.side else "")


def examples() -> list[str]:
    """Sentences someone might type: each verb, each kind of place, some of the spatial words."""
    return [
        "put the red cube in the blue bowl",
        "drop the leftmost green ball into the white bowl",
        "stack the red cube on the blue cylinder",
        "push the yellow ball to the left",
        "slide the green cube to the yellow zone",
        "touch the purple cylinder",
        "tap the red cube nearest to you",
        "lift the white ball",
        "pick up the blue cube behind the green bowl",
        "put the red cube next to the green cylinder in the blue bowl",
    ]


def phrase(task: Task, rng: np.random.Generator, split: str = "seen") -> str:
    """One wording of a task, short enough for the policy to read all of it.

    Args:
        rng: decides the wording.
        split: one of SPLITS_OF_WORDS.
    """
    drawn: list[str] = []
    while len(drawn) < _TRIES and (not drawn or _length(drawn[-1]) > LONGEST):
        drawn.append(_draw(task, rng, split))
    text = min(drawn, key=_length)
    return text if rng.random() < 0.7 else text[0].upper() + text[1:]


def phrases(task: Task, rng: np.random.Generator, count: int, split: str = "seen") -> list[str]:
    """`count` different wordings of a task, or as many as were found."""
    found: dict[str, str] = {}
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        text = phrase(task, rng, split)
        found.setdefault(text.lower(), text)
    return list(found.values())


@cache
def frames(kind: str, split: str) -> list[str]:
    """All sentences of a family with their slots open; those that are likelier, more than once."""
    asked = [ask.format(clause) for ask in sentences.ASKS[split] for clause in sentences.CLAUSES[kind][split]]
    return asked + list(sentences.SAYINGS[kind][split]) * (len(asked) // 20)


def filled(frame: str, verb: str, take: str, x: str, y: str, to: str) -> str:
    """A frame with its slots closed: verbs as in the tables, things as in "the red cube"."""
    return frame.format(
        do=_applied(verb, x), it=_applied(verb, "it"), v=verb.replace("* ", ""), take=_applied(take, x),
        x=x, y=y, to=to,
    )  # fmt: skip


def _draw(task: Task, rng: np.random.Generator, split: str) -> str:
    def pick(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    kind = family(task)
    verb, take = pick(wordings.VERBS[kind][split]), pick(wordings.TAKES[split])
    x = _described(task, pick, split)
    to = f"the {_called(task.place, pick, split)}" if task.place else ""
    if task.place:
        y = f"{pick(wordings.LEADS[kind][split])} {to}"
    else:
        y = mirrored(pick(wordings.SIDES[split]), task.side)
    text = filled(pick(frames(kind, split)), verb, take, x, y, to)
    return text if rng.random() < 0.9 else text.replace("the ", "")  # as one types in a hurry


def _described(task: Task, pick: Pick, split: str) -> str:
    """The thing of a task, with what tells it from another of its kind."""
    called = _called(task.thing, pick, split)
    if not task.relation:
        return f"the {called}"
    row = mirror(task.relation)
    if task.landmark:
        beside = mirrored(pick(wordings.BESIDE[split][row]), task.relation)
        mark = _called(task.landmark, pick, split)
        return f"the {called} {pick(wordings.THAT[split])}{beside} the {mark}"
    before, after = wordings.BEFORE[split][row], wordings.AFTER[split][row]
    which = pick(before + after)
    if which in before:
        return f"the {mirrored(which, task.relation)} {called}"
    return f"the {called} {pick(wordings.THAT[split])}{mirrored(which, task.relation)}"


def _called(thing: Thing, pick: Pick, split: str) -> str:
    return f"{thing.colour} {pick(wordings.NOUNS[split][thing.kind])}"


def _applied(verb: str, thing: str) -> str:
    """ "pick * up" and "it": "pick it up"; nobody says "pick up it"."""
    if thing == "it" and verb.endswith(" up"):
        verb = f"{verb.split()[0]} * up"
    return verb.replace("*", thing) if "*" in verb else f"{verb} {thing}"


def _length(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))
