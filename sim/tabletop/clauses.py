"""Long sentences in parts that each mean one thing: "then", "and", "all the cubes", "it", "the blue one".

A part becomes a Task where it names everything. Where it does not ("the bowl", "all the cubes") it becomes
the Tasks that it may mean, and what is on the table decides between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from sim.tabletop.instructions import canonical, name
from sim.tabletop.meaning import COLOURS, SHAPES, Task, Thing
from sim.tabletop.reading import nouns, parse, things_in
from sim.tabletop.tasks import stackable

MOST = 200  # Tasks that a part may mean


@dataclass(frozen=True)
class Part:
    """What a part of a sentence may mean.

    Attributes:
        text: as it was said. tasks: what it may mean, in order.
        choice: for each, what it takes of that of which one is meant; empty where all are meant.
        sure: whether all of them are meant and nothing needs to be looked for.
    """

    text: str
    tasks: tuple[Task, ...]
    choice: tuple[str, ...]
    sure: bool


@dataclass(frozen=True)
class _Slot:
    """A place in a sentence where several things fit: where, which, whether all are meant, whether named."""

    at: tuple[int, int]
    things: tuple[Thing, ...]
    every: bool
    listed: bool = False


def _either(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_NOUN = nouns()
_MANY = {f"{noun}s": kind for noun, kind in _NOUN.items()}
_MANY |= {"dishes": "bowl", "boxes": "cube", "dice": "cube"}
_C, _N, _P = _either(COLOURS), _either(_NOUN), _either(_MANY)
_ANY = "things?|ones?|objects?|pieces?|stuff|items?|toys?|guys?|dudes?"
_ONE = rf"(?:the |a |an |that |this )?(?:{_C}) (?:{_N})"
_LIST = re.compile(rf"\b{_ONE}(?:(?:,| and|, and|,? &|,? plus) {_ONE})+\b")
_SLOTS = re.compile(
    rf"\b(?:(?P<all>all|every|each|both)(?: one)?(?: of)?(?: the| those| these| your)?(?: (?P<ac>{_C}))?"
    rf"(?: (?P<an>{_P}|{_N}|{_ANY}))?|(?P<everything>everything)(?: (?:thats |that is )?(?P<ec>{_C}))?"
    rf"|(?:the |those |these )?(?:(?P<pc>{_C}) )?(?P<pn>{_P})"
    rf"|(?:the |a |an |some |any |that |this )(?P<n>{_N})"
    rf"|(?:the |a |an |that |this |some |something )?(?P<c>{_C})(?: (?P<one>{_ANY}))?(?! (?:{_N}|{_P})\b)"
    rf")\b"
)
_STRONG = re.compile(
    r"\s*(?:[.;!?]+(?=\s)|[,.]?\s*\b(?:and then|then|and after that|after that|afterwards|and afterwards"
    r"|and finally|finally|followed by|and next|next|once (?:that is|thats|youre|you are|its|it is) done)"
    r"\b(?! to\b)[,:]?)\s*"
)
_WEAK = re.compile(r"\s*(?:,\s*and\b|,|\band\b|&|\bplus\b|\bbefore you\b|\balso\b)\s*")
_HEAD = re.compile(r"^(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|lastly|and|also|ok|okay|so|please)\b[\s,:]*")
_IT = re.compile(r"\b(?:it|that one|this one|that|him|her)\b")
_THERE = re.compile(r"\b(?:(?:in|into|on|onto|to)? ?(?:there|the same (?:bowl|place|one|spot|zone)))\b")
_TOO = re.compile(r"\b(?:too|as well|also|likewise|same (?:with|for))\b")


def parts(text: str, before: Task | None) -> list[Part] | str:
    """The parts of a sentence in words of the tables, or the part that was not understood.

    Args:
        before: what was asked last, for "it", "there", "the blue one".
    """
    found: list[Part] = []
    pieces = [piece.strip(" ,.!?") for piece in _STRONG.split(text)]
    pieces = [piece for piece in pieces if piece]
    while pieces:
        last = found[-1].tasks[-1] if found else before
        for count in (1, 2, len(pieces)):  # "find the red cube, then put it in the bowl" is one of two pieces
            some = _several(", then ".join(pieces[:count]), last) if count <= len(pieces) else None
            if some is not None:
                break
        if some is None:
            return pieces[0]
        found, pieces = found + some, pieces[count:]
    return _merged(found) if found else text.strip(" ,.!?")


def _several(text: str, before: Task | None) -> list[Part] | None:
    """A text without "then" in as few parts as can be."""
    text = _HEAD.sub("", text.strip(" ,.!?"))
    whole = understood(text, before)
    for cut in reversed(list(_WEAK.finditer(text))):
        first = understood(text[: cut.start()], before)
        if first is None:
            continue
        rest = _several(text[cut.end() :], first.tasks[-1])
        # "take it and put it there" is one thing to do, "push it there and lift it" is two.
        if rest is not None and (whole is None or len(_merged([first, *rest])) > 1):
            return [first, *rest]
    return None if whole is None else [whole]


def understood(text: str, before: Task | None) -> Part | None:
    """What one part means; None where that cannot be told."""
    text = _HEAD.sub("", text.strip(" ,.!?"))
    if not text:
        return None
    for said in _resolved(text, before):
        task = parse(said)
        if task is not None:
            return Part(text, (task,), ("",), True) if _stands(task) else None
        slots = _slots(said, before)
        found = _filled(said, slots) if slots else []
        if found:
            sure = len(found) == 1 or all(slot.listed for slot in slots)
            return Part(text, tuple(task for task, _ in found), tuple(which for _, which in found), sure)
    return None


def _resolved(text: str, before: Task | None) -> Iterator[str]:
    """The text, and with what it points back to put in."""
    yield text
    if before is None:
        return
    there = text
    if before.place is not None:
        lead = "on" if before.verb == "stack" else "in"
        there = _THERE.sub(f"{lead} the {name(before.place)}", text)
    if _IT.search(there):
        yield _IT.sub(f"the {name(before.thing)}", there, count=1)
    if there != text:
        yield there
    only = re.fullmatch(rf"(?:the |a )?({_C})(?: ({_N}|{_ANY}))?", _TOO.sub("", text).strip(" ,"))
    if only and (only[2] or _TOO.search(text)):  # "and the green one too"
        kind = _NOUN.get(only[2] or "", before.thing.kind)
        yield canonical(before).replace(name(before.thing), f"{only[1]} {kind}", 1)


def _slots(text: str, before: Task | None) -> list[_Slot]:
    slots = [_Slot(m.span(), tuple(things_in(m[0])), True, True) for m in _LIST.finditer(text)]
    slots = [s for s in slots if all(t.kind in SHAPES for t in s.things) and len(s.things) > 1]
    for found in _SLOTS.finditer(text):
        if any(s.at[0] < found.end() and found.start() < s.at[1] for s in slots):
            continue
        said = found.groupdict()
        colour = said["ac"] or said["ec"] or said["pc"] or said["c"]
        noun = said["an"] or said["pn"] or said["n"] or ""
        if said["all"] and not noun and not colour:
            continue
        kind = _MANY.get(noun) or _NOUN.get(noun, "")
        every = bool(said["all"] or said["everything"] or said["pn"])
        kinds = (kind,) if kind else _kinds(text, found.start(), before, bool(said["everything"]))
        things = tuple(Thing(c, k) for k in kinds for c in ([colour] if colour else COLOURS))
        slots.append(_Slot(found.span(), things, every))
    return sorted(slots, key=lambda slot: slot.at)


def _kinds(text: str, at: int, before: Task | None, every: bool) -> tuple[str, ...]:
    """What "the blue one" may be: what leads to it says, or the noun before it, or anything."""
    if re.search(r"\b(?:in|into|inside)(?: of)?(?: the)? ?$", text[:at] + " "):
        return ("bowl",)
    spoken = [_NOUN.get(m[0]) or _MANY[m[0]] for m in re.finditer(rf"\b(?:{_P}|{_N})\b", text[:at])]
    spoken = [kind for kind in spoken if kind in SHAPES]
    if spoken and not every:
        return (spoken[-1],)
    return (before.thing.kind,) if before is not None and not every else SHAPES


def _filled(text: str, slots: list[_Slot]) -> list[tuple[Task, str]]:
    """Every Task that the text means with its slots filled, and what it takes where one is meant."""
    size = 1
    for slot in slots:
        size *= len(slot.things)
    if size > MOST:
        return []
    found: dict[Task, str] = {}
    for things in product(*(slot.things for slot in slots)):
        said, end = "", 0
        for slot, thing in zip(slots, things, strict=True):
            said += f"{text[end : slot.at[0]]}the {name(thing)} "
            end = slot.at[1]
        task = parse(said + text[end:])
        which = ", ".join(f"the {name(t)}" for s, t in zip(slots, things, strict=True) if not s.every)
        if task is not None and _stands(task) and task.thing != task.place:
            found.setdefault(task, which)
        elif any(slot.listed for slot in slots):
            return []  # of things that were named one by one, each has to make sense
    return list(found.items())


def _stands(task: Task) -> bool:
    """Whether what is to be stacked would stay there."""
    return task.verb != "stack" or stackable(task.thing, task.place)


def _merged(found: list[Part]) -> list[Part]:
    """Without the "take it" before a "put it in the bowl"."""
    out: list[Part] = []
    for part in found:
        if out and out[-1].sure and part.sure and len(out[-1].tasks) == len(part.tasks) == 1:
            before, now = out[-1].tasks[0], part.tasks[0]
            if before == now:
                continue
            if before.verb == "lift" and now.verb in ("put", "stack", "push") and now.thing == before.thing:
                out.pop()
        out.append(part)
    return out
