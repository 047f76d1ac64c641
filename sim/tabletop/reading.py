"""The Task of a sentence: a reader of key words over the tables of wordings.py.

It reads more than instructions.py writes: the order of the words is free, and words that it does not know
are passed over, as long as it is clear what is to be done with what.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sim.tabletop import wordings
from sim.tabletop.meaning import BESIDES, COLOURS, EXTREMES, KINDS, SHAPES, SIDES, Task, Thing
from sim.tabletop.wordings import SPLITS_OF_WORDS, mirror, mirrored


class _Word(NamedTuple):
    """A phrase of a sentence that means something: the kind of phrase, and which of them."""

    kind: str
    value: object = ""


@dataclass
class _Said:
    """A thing that a sentence names: what leads to it, where in the sentence it is, which of two it is."""

    thing: Thing
    lead: str
    at: int
    relation: str = ""
    landmark: Thing | None = None
    loose: bool = False  # the relation may be a side: "on the left"


_ARTICLES = ("the", "a", "an", "this", "that")


def _plain(text: str) -> str:
    """Lower case, words alone, without articles."""
    return " ".join(word for word in _split(text) if word not in _ARTICLES)


def _split(text: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub("['’]", "", text.lower()))


def _forms(verb: str) -> list[str]:
    """A verb's regular forms, "push" and "pushing"; among them some that no one says."""
    key = re.sub(r"( \*)? up$", "", verb)  # "pick * up" is known by "pick"
    head, _, rest = key.partition(" ")
    stems = (head, head.removesuffix("e"), head + head[-1])
    heads = [head, f"{head}s", f"{head}es"] + [stem + end for stem in stems for end in ("ing", "ed")]
    return [f"{form} {rest}".strip() for form in heads]


def _verbs() -> dict[str, frozenset[str]]:
    """Each form of each verb and cue: the families it can be said in."""
    said: dict[str, set[str]] = {}
    for kind in wordings.FAMILIES:
        for split in SPLITS_OF_WORDS:
            for verb in wordings.VERBS[kind][split] + (wordings.TAKES[split] if kind == "lift" else ()):
                for form in _forms(verb):
                    said.setdefault(form, set()).add(kind)
        for cue in wordings.CUES[kind]:
            said.setdefault(cue, set()).add(kind)
    return {verb: frozenset(kinds) for verb, kinds in said.items()}


def _lexicon() -> dict[str, _Word]:
    """Every phrase that means something beside the things. Of two meanings the first one holds."""
    known: dict[str, _Word] = {}

    def add(texts: Iterable[str], kind: str, value: object = "") -> None:
        for text in texts:
            known.setdefault(_plain(text), _Word(kind, value))

    add(wordings.IDLE, "idle")
    add(wordings.HOLDS, "holds")
    for side in SIDES:
        add([side], "bare side", side)
        add([mirrored(words, side) for words in wordings.LOOSE], "loose", f"{side}most")
    for split in SPLITS_OF_WORDS:
        for side in SIDES:
            add([mirrored(words, side) for words in wordings.SIDES[split]], "side", side)
        for kind, table in (
            ("before", wordings.BEFORE),
            ("after", wordings.AFTER),
            ("beside", wordings.BESIDE),
        ):
            for relation in BESIDES if kind == "beside" else EXTREMES:
                add([mirrored(words, relation) for words in table[split][mirror(relation)]], kind, relation)
    for relation in EXTREMES:
        more = wordings.MORE_RELATIONS[mirror(relation)]
        add([mirrored(words, relation) for words in more], "after", relation)
    for relation, texts in wordings.BETWEEN.items():
        add(texts, "between", relation)
    for kind, texts in wordings.READ.items():
        add(texts, kind)
    for kind, family_of_lead in (("in", "put"), ("on", "stack"), ("to", "zone")):
        for split in SPLITS_OF_WORDS:
            add(wordings.LEADS[family_of_lead][split], kind)
    for verb, kinds in _verbs().items():
        add([verb], "verb", kinds)
    add((*wordings.BARS, *COLOURS, *_KIND), "bar")  # a colour of nothing, a thing of no colour
    return known


def _either(texts: Iterable[str]) -> str:
    return "|".join(sorted(texts, key=len, reverse=True))


_KIND = {
    _plain(noun): kind
    for split in SPLITS_OF_WORDS
    for kind in KINDS
    for noun in (kind, *wordings.NOUNS[split][kind], *wordings.MORE_NOUNS[kind])
}
_LEXICON = _lexicon()
_THING = rf"({_either(COLOURS)}) (?:(?:{_either(wordings.ADJECTIVES)}) )??({_either(_KIND)})"
_PHRASE = re.compile(rf"\b(?:{_THING}|({_either(_LEXICON)}))\b")
_LEADS = ("in", "on", "under", "to")
_KNOWN = {word for text in (*_LEXICON, *_KIND, *wordings.ADJECTIVES) for word in text.split()}


def _read(text: str) -> list[_Word]:
    """The phrases of a text that mean something, in order."""
    read: list[_Word] = [_Word("bar")] if _other(text) else []
    end = -1
    for found in _PHRASE.finditer(_plain(text)):
        colour, noun, other = found.groups()
        if read and read[-1].kind in _LEADS and found.start() != end + 1:
            read.pop()  # "to look for the cube" leads nowhere
        word = _Word("thing", Thing(colour, _KIND[noun])) if colour else _LEXICON[other]
        if read and read[-1].kind == "between":
            which = read.pop()
            if word.kind == "thing" and read and read[-1].kind == "thing":
                read.append(_Word("beside", which.value))
        if word.kind != "idle":
            read.append(word)
            end = found.end()
    return read


def _other(text: str) -> bool:
    """Whether something unknown tells which: "the second red cube"."""
    words = _split(text)
    return any(
        first in _ARTICLES and second not in _KNOWN and second not in ("is", "you") and third in COLOURS
        for first, second, third in zip(words, words[1:], words[2:], strict=False)
    )


def vocabulary() -> set[str]:
    """Every phrase that means something here, articles left out."""
    return {*_LEXICON, *_KIND, *COLOURS}


def nouns() -> dict[str, str]:
    """Every noun of the tables and which of KINDS it means."""
    return dict(_KIND)


def things_in(text: str) -> list[Thing]:
    """The things a text names, in order."""
    return [word.value for word in _read(text) if isinstance(word.value, Thing)]


def parse(text: str) -> Task | None:
    """What a text asks for; None where that cannot be told.

    Nothing is guessed: where a thing has no colour or one that is not in COLOURS, where a verb does not go
    with another or with the place, where there are two places, there is no task.
    """
    words = _read(text)
    said = _things(words)
    roles = _roles(said, words) if said else None
    if roles is None or any(word.kind == "bar" for word in words):
        return None
    thing, place = roles
    verbs = [word.value for word in words if isinstance(word.value, frozenset)]
    if not verbs and _plain(text).split(" ")[0] in wordings.QUESTIONS:
        return None
    sides = {str(word.value) for word in words if word.kind == "side"}
    relation = thing.relation
    moved = bool(verbs) and all(kinds & _MAIN["side"] and "lift" not in kinds for kinds in verbs)
    if thing.loose and moved and not place and not sides:
        sides, relation = {relation.removesuffix("most")}, ""
    verb = _verb(verbs, place.thing.kind if place else "", bool(sides))
    if not verb or len(sides) > 1 or (sides and place):
        return None
    return Task(verb, thing.thing, place.thing if place else None, "".join(sides), relation, thing.landmark)


def _things(words: list[_Word]) -> list[_Said] | None:
    """The things of a sentence but landmarks, each with its relation; None for a relation of nothing.

    "left" before a thing tells which, elsewhere where to: the words are put right in place.
    """
    said: list[_Said] = []
    which = ""
    for i, word in enumerate(words):
        before = words[i - 1] if i else _Word("")
        after = words[i + 1].kind if i + 1 < len(words) else ""
        if word.kind == "thing" and before.kind == "beside":
            said[-1].relation, said[-1].landmark = str(before.value), word.value  # type: ignore[assignment]
        elif isinstance(word.value, Thing):
            lead = words[i - 2].kind if which and i > 1 else "" if which else before.kind
            said.append(_Said(word.value, lead, i, which))
            which = ""
        elif word.kind == "beside":
            if before.kind != "thing" or after != "thing" or said[-1].relation:
                return None
        elif word.kind == "bare side" and after != "thing":
            words[i] = _Word("side", word.value)
        elif after == "thing" and (
            word.kind in ("before", "bare side") or (word.kind == "after" and before.kind != "thing")
        ):
            which = f"{word.value}most" if word.kind == "bare side" else str(word.value)
        elif word.kind in ("before", "after", "loose"):
            if before.kind != "thing" or said[-1].relation:
                return None
            said[-1].relation, said[-1].loose = str(word.value), word.kind == "loose"
    return said


def _roles(said: list[_Said], words: list[_Word]) -> tuple[_Said, _Said | None] | None:
    """Which thing is meant and which the place is; None where that cannot be told."""
    place: _Said | None = None
    if len(said) == 1:
        thing = said[0]
    elif len(said) == 2 and all(one.thing.kind in SHAPES for one in said):
        pair = _stacked(said[0], said[1], words)
        if pair is None:
            return None
        thing, place = pair
    elif len(said) == 2:
        thing, place = sorted(said, key=lambda one: one.thing.kind not in SHAPES)
        if (
            place.lead == "under"
            or thing.lead in ("in", "on", "under")
            or (thing.lead == "to" and not place.lead)
        ):
            return None  # a bowl in a cube
    else:
        return None
    if thing.thing.kind not in SHAPES or (place and place.relation):
        return None
    return None if thing.landmark and thing.landmark.kind == "zone" else (thing, place)


def _stacked(one: _Said, two: _Said, words: list[_Word]) -> tuple[_Said, _Said] | None:
    """Of two things that can be taken, the upper and the lower; None where nothing says so."""
    leads = (one.lead, two.lead)
    if leads.count("on") == 1:
        first_is_lower = one.lead == "on"
    elif leads.count("under") == 1:
        first_is_lower = two.lead == "under"
    elif any(word.kind == "holds" for word in words[one.at : two.at]):
        first_is_lower = True
    else:
        return None
    upper, lower = (two, one) if first_is_lower else (one, two)
    return None if lower.thing.kind == "ball" else (upper, lower)


# The families whose verbs may be said of a way to go.
_MAIN = {"put": {"put"}, "stack": {"stack", "put"}, "zone": {"zone", "put"}, "side": {"side", "put"}}


def _verb(verbs: Sequence[frozenset[str]], place: str, side: bool) -> str:
    """The verb of a Task from all verbs of a sentence and where it goes; empty where they disagree.

    Args:
        verbs: the families of each.
        place: the kind of the place, or empty.
        side: whether it goes to a side.
    """
    if not place and not side:
        fits = [kind for kind in ("touch", "lift") if verbs and all(kind in kinds for kinds in verbs)]
        return fits[0] if len(fits) == 1 else ""
    kind = {"": "side", "bowl": "put", "zone": "zone"}.get(place, "stack")
    # "take it and put it": to lift may come first, but is not enough.
    if verbs and not any(_MAIN[kind] & kinds for kinds in verbs):
        return ""
    if not all((_MAIN[kind] | {"lift"}) & kinds for kinds in verbs):
        return ""
    return "push" if kind in ("zone", "side") else kind
