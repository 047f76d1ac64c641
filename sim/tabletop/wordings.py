"""The words of the tabletop: tables that instructions.py writes sentences with and reading.py reads them by.

`seen` words are for training. `phrasings` are for evaluation: no verb and no sentence frame of theirs is
in `seen`, and at least half of the nouns are new, so that obeying them shows that meaning was learned and
not a table of strings. All is lower case; where a row is there for the left, the right is made from it.
"""

from __future__ import annotations

SPLITS_OF_WORDS = ("seen", "phrasings")
# What a sentence can be about: the verbs of a Task, with a push told apart by what it is towards.
FAMILIES = ("put", "stack", "side", "zone", "touch", "lift")

Words = tuple[str, ...]

NOUNS: dict[str, dict[str, Words]] = {
    "seen": {
        "cube": ("cube", "cube", "block", "box", "brick", "dice", "cuboid"),
        "cylinder": ("cylinder", "cylinder", "can", "tin", "tube", "pillar"),
        "ball": ("ball", "ball", "sphere", "orb", "globe", "marble"),
        "bowl": ("bowl", "bowl", "dish", "container", "cup", "saucer", "pot"),
        "zone": ("zone", "zone", "square", "area", "patch", "mat", "region"),
    },
    "phrasings": {
        "cube": ("cube", "die", "square piece", "cubic piece"),
        "cylinder": ("cylinder", "drum", "barrel", "canister", "column"),
        "ball": ("ball", "bead", "bauble", "spherical piece", "tennis ball"),
        "bowl": ("bowl", "basin", "tub", "vessel"),
        "zone": ("zone", "field", "spot", "pad", "tile"),
    },
}

# What the hand does. A star stands for the thing where the verb goes round it.
_PUSH = {
    "seen": (
        "push", "push", "shove", "slide", "nudge", "move", "drag", "shift", "sweep", "scoot", "guide", "send",
        "bump", "steer",
    ),
    "phrasings": ("thrust", "propel", "budge", "ease", "force", "displace", "inch", "herd"),
}  # fmt: skip
VERBS: dict[str, dict[str, Words]] = {
    "put": {
        "seen": (
            "put", "put", "place", "drop", "move", "set", "lay", "bring", "transfer", "carry", "insert",
            "pop", "stick", "toss",
        ),
        "phrasings": ("deposit", "stow", "relocate", "deliver", "dump", "tuck", "store", "plant"),
    },
    "stack": {
        "seen": (
            "stack", "stack", "put", "place", "set", "lay", "pile", "balance", "rest", "mount", "stand",
            "load",
        ),
        "phrasings": ("position", "perch", "situate", "settle", "plop", "prop", "lodge"),
    },
    "side": _PUSH,
    "zone": _PUSH,
    "touch": {
        "seen": (
            "touch", "touch", "tap", "point at", "point to", "poke", "reach for", "feel", "hit", "pat",
            "brush", "put your finger on", "tap on", "bring your finger to",
        ),
        "phrasings": ("make contact with", "press", "indicate", "prod", "come up against", "strike"),
    },
    "lift": {
        "seen": (
            "lift", "lift", "lift up", "lift * up", "raise", "pick up", "pick * up", "grab", "take",
            "hold up", "grasp", "hoist", "get", "take hold of",
        ),
        "phrasings": ("elevate", "scoop up", "scoop * up", "seize", "heave up", "fetch", "haul up"),
    },
}  # fmt: skip
# The first of two steps, before the thing goes anywhere.
TAKES = {
    "seen": ("pick up", "take", "grab", "get", "lift", "grasp"),
    "phrasings": ("fetch", "collect", "seize", "scoop up"),
}

# How the place is led to: a bowl, what is stacked on, a zone.
LEADS: dict[str, dict[str, Words]] = {
    "put": {"seen": ("in", "into", "inside"), "phrasings": ("inside of", "within", "down inside")},
    "stack": {"seen": ("on", "onto", "on top of"), "phrasings": ("atop", "upon", "on the top of")},
    "zone": {
        "seen": ("to", "onto", "into", "over to", "on"),
        "phrasings": ("across to", "over onto", "all the way to", "towards"),
    },
}
# Where a push goes that has no zone.
SIDES: dict[str, Words] = {
    "seen": (
        "to the left", "to the left", "left", "to the left side", "leftwards", "towards the left",
        "over to the left", "to your left", "to the left of the table",
    ),
    "phrasings": (
        "to the left-hand side", "leftward", "toward the left edge", "off to the left",
        "in the direction of the left", "further left",
    ),
}  # fmt: skip

# Which of two: before the thing, behind it, and with a landmark.
BEFORE: dict[str, dict[str, Words]] = {
    "seen": {
        "leftmost": ("leftmost", "leftmost", "left"),
        "nearest": ("nearest", "closest"),
        "farthest": ("farthest", "furthest", "far"),
    },
    "phrasings": {
        "leftmost": ("left-hand", "far-left"),
        "nearest": ("nearer", "closer"),
        "farthest": ("farther", "more distant"),
    },
}
AFTER: dict[str, dict[str, Words]] = {
    "seen": {
        "leftmost": ("on the left", "on the left", "farthest to the left", "furthest left"),
        "nearest": ("nearest to you", "closest to you", "nearest you", "closest to the robot"),
        "farthest": ("farthest away", "farthest from you", "furthest away", "furthest from the robot"),
    },
    "phrasings": {
        "leftmost": ("on the left-hand side", "on the far left", "at the left end"),
        "nearest": ("closest to your base", "nearest to your arm", "closer to you"),
        "farthest": ("farther from you", "most distant from you", "at the far end"),
    },
}
BESIDE: dict[str, dict[str, Words]] = {
    "seen": {
        "left of": ("left of", "to the left of", "on the left of"),
        "behind": ("behind", "behind", "in back of"),
        "in front of": ("in front of",),
        "next to": ("next to", "next to", "beside", "near"),
    },
    "phrasings": {
        "left of": ("on the left-hand side of", "at the left of", "on the left side of"),
        "behind": ("at the back of", "to the rear of", "beyond"),
        "in front of": ("ahead of", "at the front of", "on the near side of"),
        "next to": ("adjacent to", "alongside", "close to"),
    },
}
# Between a thing and what tells it apart.
THAT = {"seen": ("", "", "that is ", "which is "), "phrasings": ("", "located ", "sitting ", "you see ")}

# For reading alone, beyond the tables above.
MORE_NOUNS: dict[str, Words] = {
    "cube": ("square block", "toy block"),
    "cylinder": ("roller", "rod", "can", "post"),
    "ball": ("round ball", "rubber ball", "sphere"),
    "bowl": ("round dish", "tray", "plate", "cup"),
    "zone": ("square on the table", "rectangle", "marked area"),
}
MORE_RELATIONS: dict[str, Words] = {
    "leftmost": ("most to the left", "left most", "at the left", "far left"),
    "nearest": ("nearest to the arm", "closest to the arm", "nearest to the base", "closest to me"),
    "farthest": ("most distant", "most remote", "far away"),
}
BETWEEN: dict[str, Words] = {"in front of": ("before",), "next to": ("by",)}  # where they are between things
# What means a family without one of the verbs above.
CUES: dict[str, Words] = {
    "put": ("throw", "leave", "hide", "fill", "take", "get", "position", "hand"),
    "stack": ("top", "tower", "base", "crown", "leave", "park"),
    "side": ("travel", "roll", "drive", "glide", "knock"),
    "zone": ("travel", "roll", "drive", "glide", "knock", "cover"),
    "touch": ("touch", "tap", "contact", "put finger on", "show me", "your hand to"),
    "lift": (
        "pluck",
        "pick",
        "hold",
        "goes up",
        "in the air",
        "be off the table",
        "up with",
        "above the table",
        "airborne",
    ),
}
READ: dict[str, Words] = {  # what leads to a place
    "in": ("in", "into", "inside", "within"),
    "on": ("on", "onto", "upon", "atop", "on top of", "over", "above"),
    "under": ("under", "underneath", "below", "beneath"),
    "to": ("to", "at", "toward", "towards", "as far as"),
}
# The first of two is what the second goes into or on: "the bowl gets the cube".
HOLDS = (
    "should hold", "should carry", "holds", "gets", "needs", "supports", "carries", "with", "base for",
    "as a base for", "is where",
)  # fmt: skip
# Said with "put", a side and no choice of things: "put it on the left".
LOOSE = ("on the left", "on the far left", "on the left-hand side")
# Words of a table that mean nothing here.
IDLE = (
    "can you", "can we", "can i", "you can", "right now", "right away", "off the table", "from the table",
    "move your hand to", "finger", "using your hand", "standing", "resting", "placed", "positioned",
    "right there", "all right", "on the table", "above it",
)  # fmt: skip
# What turns a sentence into another, or names what is not there.
BARS = (
    "not", "dont", "never", "no", "without", "except", "instead", "or", "if", "unless", "between", "off",
    "from", "out of", "away", "around", "past", "orange", "pink", "black", "brown", "grey", "gray", "cyan",
    "magenta", "turquoise", "violet", "gold", "golden", "silver", "beige", "lime", "teal", "navy",
)  # fmt: skip
QUESTIONS = ("is", "are", "was", "where", "what", "which", "who", "why", "does", "did", "how")
ADJECTIVES = (
    "small",
    "little",
    "big",
    "large",
    "wooden",
    "plastic",
    "shiny",
    "round",
    "toy",
    "painted",
    "tiny",
)


def mirror(relation: str) -> str:
    """The row of a table that a relation is in: the right is written down as the left."""
    return relation.replace("right", "left")


def mirrored(words: str, relation: str) -> str:
    """A row's words for the relation: those of the left, said of the right where that is meant."""
    return words.replace("left", "right") if relation.startswith("right") else words
