"""Words for "put X in Y": a grammar of paraphrases, with wordings held out for evaluation.

`seen` wordings are for training; `phrasings` share no verb and no sentence frame with them, so
that obeying them shows that meaning was learned and not a table of strings.
"""

from __future__ import annotations

import re

import numpy as np

from sim.tabletop.scene import COLOURS

SPLITS = ("seen", "phrasings")

_PLACE = {
    "seen": ("put", "place", "drop", "move", "set", "lay", "bring", "transfer"),
    "phrasings": ("deposit", "stow", "relocate", "shift", "deliver", "leave", "position"),
}
_INTO = {
    "seen": ("in", "into", "inside"),
    "phrasings": ("inside of", "within", "into"),
}
_CUBE = {
    "seen": ("cube", "block", "box", "brick"),
    "phrasings": ("cube", "block", "dice", "square piece"),
}
_BOWL = {
    "seen": ("bowl", "dish", "container"),
    "phrasings": ("bowl", "basin", "cup", "round dish"),
}
# {v} verb, {x} the thing, {p} preposition, {y} the target
_FRAMES = {
    "seen": (
        "{v} the {x} {p} the {y}",
        "{v} the {x} {p} the {y}",
        "{v} {x} {p} {y}",
        "please {v} the {x} {p} the {y}",
        "{v} the {x} {p} the {y} please",
        "can you {v} the {x} {p} the {y}?",
        "could you please {v} the {x} {p} the {y}",
        "pick up the {x} and {v} it {p} the {y}",
        "take the {x} and {v} it {p} the {y}",
        "grab the {x}, then {v} it {p} the {y}",
        "the {x} goes {p} the {y}",
        "the {x} should be {p} the {y}",
        "{p} the {y}, {v} the {x}",
        "i want the {x} {p} the {y}",
        "robot, {v} the {x} {p} the {y}",
        "{y} should hold the {x}",
        "find the {x} and {v} it {p} the {y}",
        "now {v} the {x} {p} the {y}",
    ),
    "phrasings": (
        "kindly {v} the {x} {p} the {y}",
        "would you mind if you {v} the {x} {p} the {y}",
        "i need you to {v} the {x} {p} the {y}",
        "get hold of the {x}, carry it over and {v} it {p} the {y}",
        "i would like the {x} to end up {p} the {y}",
        "make sure the {x} is {p} the {y}",
        "the {y} is where the {x} belongs",
        "your job: {v} the {x} {p} the {y}",
        "fill the {y} with the {x}",
        "let's {v} that {x} {p} this {y}, thanks",
    ),
}


def phrase(cube: str, bowl: str, rng: np.random.Generator, split: str = "seen") -> str:
    """One wording of "put the `cube` cube in the `bowl` bowl", colours by name.

    Args:
        rng: decides the wording.
        split: one of SPLITS.
    """

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    x = f"{cube} {pick(_CUBE[split])}"
    y = f"{bowl} {pick(_BOWL[split])}"
    text = pick(_FRAMES[split]).format(v=pick(_PLACE[split]), p=pick(_INTO[split]), x=x, y=y)
    return text if rng.random() < 0.7 else text[0].upper() + text[1:]


def colours(text: str) -> list[str]:
    """The colours a text names, the thing's first, the place's second; none for two of one kind.

    The thing is what stands before "cube", "block" and their like, the place what stands before "bowl"
    and its like; where that does not tell, the order of mention does.
    """
    words = re.findall(r"[a-z]+", text.lower())
    found = [(i, w) for i, w in enumerate(words) if w in COLOURS]
    if len(found) != 2:
        return [w for _, w in found]
    # "blue bowl", or "bowl is blue"
    kinds = [_kind(words[i + 1 : i + 2]) or _kind(words[max(i - 2, 0) : i - 1]) for i, _ in found]
    if kinds[0] == kinds[1] != "":
        return []  # two cubes or two bowls: not this task
    if kinds[0] == "bowl" or kinds[1] == "cube":
        found.reverse()
    return [w for _, w in found]


def _kind(noun: list[str]) -> str:
    """ "cube", "bowl" or "" for the word behind a colour."""
    for kind, options in (("cube", _CUBE), ("bowl", _BOWL)):
        if noun and noun[0] in {name.split()[0] for names in options.values() for name in names}:
            return kind
    return ""


def canonical(cube: str, bowl: str) -> str:
    """The plain wording, used as the task's name."""
    return f"put the {cube} cube in the {bowl} bowl"
