"""What people type becomes words of the tables: slips of the fingers, slang, German and Chinese.

Words are replaced one by one, and only where they mean nothing as they stand; what the sentence means is
for reading.py to say. A common English word is never taken for a slip ("write" is not "white").
"""

from __future__ import annotations

import re

from sim.tabletop import tongues
from sim.tabletop.meaning import COLOURS
from sim.tabletop.reading import vocabulary

_KNOWN = {word for phrase in vocabulary() for word in phrase.split()}
# What a slip is corrected to; short words are left alone.
_TARGETS = (
    *COLOURS, "cube", "block", "cylinder", "ball", "sphere", "bowl", "zone", "square", "stack", "push",
    "touch", "lift", "place", "slide", "move", "grab", "drop", "left", "right",
    "leftmost", "rightmost", "nearest", "farthest", "then",
    "onto", "into", "cubes", "balls", "cylinders", "blocks", "everything",
)  # fmt: skip
# Words a letter or two away from a target that people mean as they stand.
_MEANT = frozenset(
    """
    read bread head bed bell call tall wall fall hall all bail bald bold bowls while write quite wine whale
    greet grown grain greed great queen blew glue clue bluer fellow mellow tone bone gone none done one life
    live lit list lists loft gift shift past pace plane plate palace slice side mode more love movie grape
    grasp crab drip crop prop droop much such couch teach track snack stick stock sack slack black rush bush
    pull put cup cute cuba tube them than when the there they these this that what with will would could
    should unto info lest felt light might night fight sight eight lefty let get set bet pet clock flock lock
    share spare squad people purely robot arm hand table make made take coffee please both every each other
    another some any things thing ones stuff object objects stop wait
    """.split()  # noqa: SIM905
)
_SLANG = {
    "yeet": "throw", "plop": "put", "plonk": "put", "bung": "put", "lob": "throw", "pls": "please",
    "plz": "please", "gonna": "going to", "wanna": "want to", "gimme": "get", "lemme": "let me",
    "blu": "blue", "bloo": "blue", "grn": "green", "ylw": "yellow", "prpl": "purple", "wht": "white",
    "lilac": "purple", "cubey": "cube", "cyl": "cylinder", "cylindar": "cylinder", "rd": "red",
    "whack": "put", "boop": "touch", "scooch": "push", "dont": "dont", "em": "them", "tha": "the",
    "da": "the", "teh": "the", "n": "and", "dat": "that", "ur": "your", "u": "you", "2": "to",
}  # fmt: skip


# What people say around what they mean.
_AROUND = re.compile(
    r"(?:[,.]\s*)?\b(?:if thats not too much trouble|if (?:you can|possible|you dont mind)"
    r"|you know what to do|when (?:you can|you are ready|youre ready)|real quick|thx|thanks|lol|mate"
    r"|obviously|of course)\b"
    r"|\b(?:yo|uh|um|er|erm|hmm|well|maybe|perhaps|kindly)\b[,\s]*"
)
_PHRASES = (
    (re.compile(r"\btidy (?:away|up)?\b"), "put"),
    (re.compile(r"\b(?:a )?finger on\b"), "touch"),
    (
        re.compile(r"\b(?:whichever|the) (\w+) (?:thats|that is|which is|is) (\w+), (\w+) it\b"),
        r"\3 the \2 \1",
    ),
    (re.compile(r"\bid (?:really )?(?:like|love) to see\b"), "i want"),
    (re.compile(r"\bsitting\b"), ""),
)


def heard(text: str) -> str:
    """The text in words of the tables, lower case; what is not known stays as it is."""
    said = tongues.english(re.sub("['’`]", "", text.lower()).strip())
    said = _AROUND.sub(" ", said)
    for pattern, words in _PHRASES:
        said = pattern.sub(words, said)
    said = re.sub(r"\s+([,.])", r"\1", re.sub(r"\s+", " ", said)).strip(" ,")
    return re.sub(r"[a-z0-9]+", lambda word: _word(word[0]), said)


def _word(word: str) -> str:
    word = _SLANG.get(word, word)
    if len(word) < 3 or word in _MEANT or word in _KNOWN or word in _TARGETS or " " in word:
        return word
    if word[0] == word[1] or re.search(r"(.)\1\1", word):
        word = re.sub(r"(.)\1+", r"\1", word)  # "reeeed"
        if word in _KNOWN:
            return word
    most = 1 if len(word) <= 5 else 2
    near = sorted(
        (apart(word, target), target) for target in _TARGETS if abs(len(word) - len(target)) <= most
    )
    near = [pair for pair in near if pair[0] <= most]
    if not near or (len(near) > 1 and near[1][0] == near[0][0]):
        return word
    return near[0][1]


def apart(one: str, two: str) -> int:
    """Letters put in, left out, changed or swapped with the next one (Damerau-Levenshtein, restricted)."""
    before: list[int] = []
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, b in enumerate(two, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == two[j - 2] and one[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
