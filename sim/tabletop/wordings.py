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
        "cube": (
            "cube", "cube", "cube", "block", "block", "box", "brick", "dice", "cuboid", "toy block",
            "square block", "cubical thing", "cube-shaped object", "sugar cube", "gaming dice",
            "wooden block",
            "hexahedron",
        ),
        "cylinder": (
            "cylinder", "cylinder", "cylinder", "can", "tin", "tube", "pillar", "pipe", "rod", "post",
            "soda can", "jar", "cylindrical thing", "tube-shaped object", "keg", "cask", "bottle", "pole",
            "log",
            "peg", "roll", "battery",
        ),
        "ball": (
            "ball", "ball", "ball", "sphere", "orb", "globe", "marble", "rubber ball", "round ball", "pearl",
            "spherical thing", "ball-shaped object", "golf ball", "pebble", "berry",
        ),
        "bowl": (
            "bowl", "bowl", "bowl", "dish", "container", "cup", "saucer", "pot", "plate", "tray", "pan",
            "basket", "round dish", "bucket", "receptacle", "cauldron", "jug", "soup bowl", "sink",
        ),
        "zone": (
            "zone", "zone", "zone", "square", "square", "area", "patch", "mat", "region", "marked area",
            "rectangle", "section", "painted square", "square on the table", "sector", "plot", "rug",
            "carpet",
            "sheet", "sticker",
        ),
    },
    "phrasings": {
        "cube": ("cube", "die", "building block", "cubic piece"),
        "cylinder": ("cylinder", "drum", "barrel", "canister", "column"),
        "ball": ("ball", "bead", "bouncy ball", "spherical piece", "tennis ball"),
        "bowl": ("bowl", "basin", "tub", "vessel"),
        "zone": ("zone", "field", "spot", "pad", "tile"),
    },
}  # fmt: skip

# What the hand does. A star stands for the thing where the verb goes round it.
_PUSH = {
    "seen": (
        "push", "push", "push", "shove", "slide", "nudge", "move", "drag", "shift", "sweep", "scoot", "guide",
        "send", "bump", "steer", "pull", "swipe", "glide", "bring", "drive", "knock", "direct", "jostle",
        "tug", "flick", "tow", "transport",
    ),
    "phrasings": ("thrust", "propel", "budge", "ease", "force", "displace", "inch"),
}  # fmt: skip
VERBS: dict[str, dict[str, Words]] = {
    "put": {
        "seen": (
            "put", "put", "place", "drop", "move", "set", "lay", "bring", "transfer", "carry", "insert",
            "pop", "stick", "toss", "throw", "leave", "hide", "pack", "stash", "release", "load", "dunk",
            "slip", "file", "chuck",
        ),
        "phrasings": ("deposit", "stow", "relocate", "deliver", "dump", "tuck", "store", "plant"),
    },
    "stack": {
        "seen": (
            "stack", "stack", "stack", "put", "place", "set", "lay", "pile", "balance", "rest", "mount",
            "stand",
            "load", "leave", "drop", "add", "stick", "install", "arrange", "seat", "park", "fix", "build",
        ),
        "phrasings": ("position", "perch", "situate", "heap", "prop", "lodge"),
    },
    "side": _PUSH,
    "zone": _PUSH,
    "touch": {
        "seen": (
            "touch", "touch", "touch", "tap", "point at", "point to", "poke", "reach for", "feel", "hit",
            "pat",
            "brush", "put your finger on", "tap on", "bring your finger to", "stroke", "show me",
            "knock on", "jab", "reach", "select", "jab at", "peck at", "dab", "poke at", "point out",
            "signal",
        ),
        "phrasings": ("make contact with", "press", "indicate", "prod", "strike", "press on"),
    },
    "lift": {
        "seen": (
            "lift", "lift", "lift up", "lift * up", "raise", "pick up", "pick * up", "grab", "take",
            "hold up", "grasp", "hoist", "get", "take hold of", "pick", "hold", "clutch", "grip", "pluck",
            "pull up", "take * up", "bring * up", "lift * high", "snatch", "uplift", "catch", "pinch",
        ),
        "phrasings": ("elevate", "scoop up", "scoop * up", "seize", "heave up", "fetch", "haul up"),
    },
}  # fmt: skip
# The first of two steps, before the thing goes anywhere.
TAKES = {
    "seen": ("pick up", "take", "grab", "get", "lift", "grasp", "pick", "hold", "clutch", "raise"),
    "phrasings": ("fetch", "collect", "seize", "scoop up"),
}  # fmt: skip

# How the place is led to: a bowl, what is stacked on, a zone.
LEADS: dict[str, dict[str, Words]] = {
    "put": {"seen": (
        "in", "in", "into", "into", "inside", "down into", "to the inside of",
    ), "phrasings": ("inside of", "within", "down inside")},
    "stack": {"seen": (
        "on", "on", "onto", "on top of", "on top of", "over", "above", "over the top of",
        "on the upper side of", "on the surface of",
    ), "phrasings": ("atop", "upon", "on the top of")},
    "zone": {
        "seen": ("to", "to", "onto", "into", "over to", "on", "toward", "over into", "as far as"),
        "phrasings": ("across to", "over onto", "all the way to", "towards"),
    },
}  # fmt: skip
# Where a push goes that has no zone.
SIDES: dict[str, Words] = {
    "seen": (
        "to the left", "to the left", "left", "to the left side", "leftwards", "towards the left",
        "over to the left", "to your left", "to the left of the table", "to the left end", "toward the left",
        "to the left part of the table", "away to the left", "left on the table", "to the left border",
        "more to the left", "into the left half",
    ),
    "phrasings": (
        "to the left-hand side", "leftward", "toward the left edge", "off to the left",
        "in the direction of the left", "further left",
    ),
}  # fmt: skip

# Which of two: before the thing, behind it, and with a landmark.
BEFORE: dict[str, dict[str, Words]] = {
    "seen": {
        "leftmost": ("leftmost", "leftmost", "left", "left-most", "most left"),
        "nearest": ("nearest", "closest"),
        "farthest": ("farthest", "furthest", "far", "distant", "remote"),
    },
    "phrasings": {
        "leftmost": ("left-hand", "far-left"),
        "nearest": ("nearer", "closer"),
        "farthest": ("farther", "more distant"),
    },
}  # fmt: skip
AFTER: dict[str, dict[str, Words]] = {
    "seen": {
        "leftmost": (
            "on the left", "on the left", "farthest to the left", "furthest left", "on the left side",
            "at the left",
        ),
        "nearest": (
            "nearest to you", "closest to you", "nearest you", "closest to the robot", "near you",
            "nearest to the base", "close to you", "closest",
        ),
        "farthest": (
            "farthest away", "farthest from you", "furthest away", "furthest from the robot", "far away",
            "far from you", "at the back", "farthest",
        ),
    },
    "phrasings": {
        "leftmost": ("on the left-hand side", "on the far left", "at the left end"),
        "nearest": ("closest to your base", "nearest to your arm", "closer to you"),
        "farthest": ("farther from you", "most distant from you", "at the far end"),
    },
}  # fmt: skip
BESIDE: dict[str, dict[str, Words]] = {
    "seen": {
        "left of": ("left of", "to the left of", "on the left of", "at the left side of", "left from"),
        "behind": (
            "behind", "behind", "in back of", "at the rear of", "right behind", "farther away than",
            "on the other side of", "on the far side of",
        ),
        "in front of": (
            "in front of", "in front of", "right in front of", "nearer to you than", "on this side of",
            "to the front of",
        ),
        "next to": (
            "next to", "next to", "beside", "near", "by", "right next to", "at the side of", "nearest to",
            "right beside", "close by", "along",
        ),
    },
    "phrasings": {
        "left of": ("on the left-hand side of", "at the left of", "on the left side of"),
        "behind": ("at the back of", "to the rear of", "beyond"),
        "in front of": ("ahead of", "at the front of", "on the near side of"),
        "next to": ("adjacent to", "alongside", "close to"),
    },
}  # fmt: skip
# Between a thing and what tells it apart.
THAT: dict[str, Words] = {
    "seen": (
        "", "", "", "that is ", "which is ", "standing ", "lying ", "that you find ", "found ",
        "that lies ", "there ",
    ),
    "phrasings": ("", "located ", "sitting ", "you see "),
}  # fmt: skip

# For reading alone, beyond the tables above.
MORE_NOUNS: dict[str, Words] = {
    "cube": ("square piece", "little block"),
    "cylinder": ("roller",),
    "ball": (),
    "bowl": (),
    "zone": (),
}
MORE_RELATIONS: dict[str, Words] = {
    "leftmost": ("most to the left", "far left"),
    "nearest": ("nearest to the arm", "closest to the arm", "closest to me"),
    "farthest": ("most distant", "most remote"),
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
