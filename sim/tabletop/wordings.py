"""The words of the tabletop's grammar (instructions.py), for training ("seen") and held out ("phrasings").

The two share no verb and no sentence; of the nouns and of the words for places at least half are new.
{x} is the thing with what tells it apart, {y} the place, {v} a verb, {p} how verb and place are joined,
{s} a side. `DO` are clauses that a wrapper of ASK goes around; `SAY` are sentences of their own.
"""

from __future__ import annotations

Words = dict[str, tuple[str, ...]]

NOUNS: dict[str, Words] = {
    "seen": {
        "cube": ("cube", "block", "box", "brick"),
        "cylinder": ("cylinder", "can", "tube", "pillar"),
        "ball": ("ball", "sphere", "marble", "orb"),
        "bowl": ("bowl", "dish", "container", "tray"),
        "zone": ("zone", "square", "area", "patch"),
    },
    "phrasings": {
        "cube": ("cube", "block", "dice", "square piece"),
        "cylinder": ("cylinder", "drum", "tin", "roller"),
        "ball": ("ball", "globe", "bead", "round ball"),
        "bowl": ("bowl", "basin", "pot", "round dish"),
        "zone": ("zone", "region", "mat", "field"),
    },
}

VERBS: dict[str, Words] = {
    "seen": {
        "put": ("put", "place", "drop", "move", "set", "lay", "bring", "transfer", "carry"),
        "stack": ("stack", "put", "place", "set", "pile", "rest", "balance", "lay"),
        "zone": ("push", "slide", "move", "shove", "nudge", "sweep"),
        "side": ("push", "slide", "move", "shove", "nudge", "sweep"),
        "touch": ("touch", "tap", "point at", "point to", "poke", "reach for", "put a finger on"),
        "lift": ("lift", "raise", "pick up", "lift up", "hold up", "grab", "take", "raise up"),
    },
    "phrasings": {
        "put": ("deposit", "stow", "relocate", "deliver", "leave", "position"),
        "stack": ("mount", "perch", "position", "leave", "deposit", "park"),
        "zone": ("shift", "scoot", "drive", "herd", "glide", "propel"),
        "side": ("shift", "scoot", "drive", "glide", "propel", "knock"),
        "touch": ("contact", "make contact with", "indicate", "press", "pat", "feel"),
        "lift": ("hoist", "elevate", "heave", "heave up", "hoist up", "pluck up"),
    },
}

INTO: dict[str, Words] = {
    "seen": {
        "put": ("in", "into", "inside"),
        "stack": ("on", "onto", "on top of", "upon"),
        "zone": ("to", "into", "onto", "towards"),
    },
    "phrasings": {
        "put": ("inside of", "within", "into"),
        "stack": ("atop", "on the top of", "onto"),
        "zone": ("over to", "toward", "as far as", "to"),
    },
}

SIDES: dict[str, Words] = {
    "seen": {
        "left": ("to the left", "left", "to the left side", "towards the left", "leftwards", "to your left"),
        "right": ("to the right", "right", "to the right side", "towards the right", "rightwards",
                  "to your right"),
    },
    "phrasings": {
        "left": ("over to the left-hand side", "toward the left edge", "off to the left", "to the left half"),
        "right": ("over to the right-hand side", "toward the right edge", "off to the right",
                  "to the right half"),
    },
}  # fmt: skip

# {n} is the thing's name, {l} the landmark's.
WHICH: dict[str, Words] = {
    "seen": {
        "leftmost": ("leftmost {n}", "{n} on the far left", "left {n}"),
        "rightmost": ("rightmost {n}", "{n} on the far right", "right {n}"),
        "nearest": ("nearest {n}", "closest {n}", "{n} nearest to you", "{n} closest to you"),
        "farthest": ("farthest {n}", "furthest {n}", "{n} farthest from you", "{n} farthest away"),
        "left of": ("{n} left of the {l}", "{n} to the left of the {l}"),
        "right of": ("{n} right of the {l}", "{n} to the right of the {l}"),
        "behind": ("{n} behind the {l}", "{n} that is behind the {l}"),
        "in front of": ("{n} in front of the {l}", "{n} that is in front of the {l}"),
        "next to": ("{n} next to the {l}", "{n} beside the {l}", "{n} near the {l}"),
    },
    "phrasings": {
        "leftmost": ("{n} at the left end", "{n} most to the left"),
        "rightmost": ("{n} at the right end", "{n} most to the right"),
        "nearest": ("{n} closest to the robot", "{n} nearest to the arm"),
        "farthest": ("most distant {n}", "{n} furthest from the robot"),
        "left of": ("{n} on the left of the {l}", "{n} on the left side of the {l}"),
        "right of": ("{n} on the right of the {l}", "{n} on the right side of the {l}"),
        "behind": ("{n} in back of the {l}", "{n} beyond the {l}"),
        "in front of": ("{n} before the {l}", "{n} ahead of the {l}"),
        "next to": ("{n} close to the {l}", "{n} by the {l}", "{n} alongside the {l}"),
    },
}

ASK: Words = {
    "seen": (
        "{do}", "{do}", "{do}", "please {do}", "{do} please", "can you {do}?", "could you please {do}",
        "robot, {do}", "now {do}", "i want you to {do}", "next, {do}", "go and {do}", "{do} now",
    ),
    "phrasings": (
        "kindly {do}", "would you mind? {do}", "i need you to {do}", "your job: {do}", "let's {do}, thanks",
        "how about you {do}", "hey there, {do}", "it is time to {do}", "would you {do} for me",
        "be so kind and {do}", "what i would like: {do}", "we have to {do}",
    ),
}  # fmt: skip

_TAKE = (
    "pick up the {x} and {v} it",
    "take the {x} and {v} it",
    "grab the {x}, then {v} it",
    "find the {x} and {v} it",
)

DO: dict[str, Words] = {
    "seen": {
        "put": ("{v} the {x} {p} the {y}", "{v} the {x} {p} the {y}", "{v} {x} {p} {y}",
                "{p} the {y}, {v} the {x}",
                *(f"{take} {{p}} the {{y}}" for take in _TAKE)),
        "stack": ("{v} the {x} {p} the {y}", "{v} the {x} {p} the {y}", "{v} {x} {p} {y}",
                  "{p} the {y}, {v} the {x}",
                  *(f"{take} {{p}} the {{y}}" for take in _TAKE)),
        "zone": ("{v} the {x} {p} the {y}", "{v} the {x} {p} the {y}", "{v} {x} {p} {y}",
                 "find the {x} and {v} it {p} the {y}"),
        "side": ("{v} the {x} {s}", "{v} the {x} {s}", "{v} {x} {s}", "find the {x} and {v} it {s}"),
        "touch": ("{v} the {x}", "{v} the {x}", "{v} {x}", "find the {x} and {v} it",
                  "go to the {x} and {v} it"),
        "lift": ("{v} the {x}", "{v} the {x}", "{v} {x}", "{v} the {x} off the table",
                 "find the {x} and {v} it"),
    },
    "phrasings": {
        "put": ("{v} the {x} {p} the {y}", "{v} that {x} {p} this {y}",
                "get hold of the {x}, carry it over and {v} it {p} the {y}"),
        "stack": ("{v} the {x} {p} the {y}", "{v} that {x} {p} this {y}",
                  "get hold of the {x}, carry it over and {v} it {p} the {y}"),
        "zone": ("{v} the {x} {p} the {y}", "{v} that {x} {p} this {y}", "{v} the {x} along {p} the {y}"),
        "side": ("{v} the {x} {s}", "{v} that {x} {s}", "{v} the {x} along {s}"),
        "touch": ("{v} the {x}", "{v} that {x}", "{v} the {x} with your fingertip"),
        "lift": ("{v} the {x}", "{v} that {x}", "{v} the {x} into the air"),
    },
}  # fmt: skip

SAY: dict[str, Words] = {
    "seen": {
        "put": ("the {x} goes {p} the {y}", "the {x} should be {p} the {y}", "i want the {x} {p} the {y}",
                "{y} should hold the {x}", "the {x} belongs {p} the {y}"),
        "stack": ("the {x} goes {p} the {y}", "the {x} should be {p} the {y}", "i want the {x} {p} the {y}",
                  "{y} should carry the {x}", "the {x} belongs {p} the {y}"),
        "zone": ("the {x} goes {p} the {y}", "the {x} should be in the {y}", "i want the {x} in the {y}",
                 "the {x} belongs in the {y}"),
        "side": ("the {x} goes {s}", "i want the {x} moved {s}", "the {x} should go {s}"),
        "touch": ("which one is the {x}? {v} it", "i want the {x} touched", "the {x}: {v} it"),
        "lift": ("i want the {x} lifted", "the {x} should be lifted", "the {x}: {v} it"),
    },
    "phrasings": {
        "put": ("i would like the {x} to end up {p} the {y}", "make sure the {x} is {p} the {y}",
                "the {y} is where the {x} belongs", "fill the {y} with the {x}"),
        "stack": ("i would like the {x} to end up {p} the {y}", "make sure the {x} is {p} the {y}",
                  "the {y} is where the {x} belongs", "let the {x} stand {p} the {y}"),
        "zone": ("i would like the {x} to end up in the {y}", "make sure the {x} is in the {y}",
                 "the {y} is where the {x} belongs"),
        "side": ("i would like the {x} to end up {s}", "make sure the {x} gets {s}"),
        "touch": ("show me the {x}", "where is the {x}? {v} it"),
        "lift": ("i would like the {x} to be off the table", "get the {x} up in the air"),
    },
}  # fmt: skip
