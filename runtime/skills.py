"""What a policy can be told, known to whoever listens: sentences in, sentences out, no scene and no model.

An installed package offers it under the policy's own name (entry points `takt.skills`), so that it is found
for a folder and for a server alike. For a policy that nobody speaks for, `Plain` hands every sentence on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from vla.contract import TaktError


@dataclass(frozen=True)
class Wish:
    """One thing to be done.

    Attributes:
        text: as the policy knows it; where there are several, what was said of all of them.
        each: one instruction for each thing that may be there ("all the cubes"); whether it is, the policy
            is asked. Empty where the text itself is the instruction.
        choice: which of several things of which one is meant each of these takes ("the bowl"), by name;
            all that are there have to agree in it. Empty strings where all are meant.
        probes: for each (or for the text itself), what the policy is asked before anything moves, the
            instruction itself last, see `looking.py`. Empty: it is not asked.
        first: what to do before where the policy takes it for done although the hand has been nowhere, as
            with a bowl that holds another thing: "lift the red cube". Empty for nothing.
        each_first: the same for each of `each`.
        names: of the text itself, what the probes before the last are about, and what else it names; so that
            it can be said what is not there. Empty where that is not known.
    """

    text: str
    each: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()
    probes: tuple[tuple[str, ...], ...] = ()
    first: str = ""
    each_first: tuple[str, ...] = ()
    names: tuple[str, str] | tuple[()] = ()

    @property
    def firsts(self) -> dict[str, str]:
        """For each of `each`, what to do before, see `first`."""
        return dict(zip(self.each, self.each_first, strict=False))


@dataclass(frozen=True)
class Reading:
    """What was understood of a sentence.

    Attributes:
        wishes: in order; empty where there is a problem.
        problem: what was not understood and why, in words; empty where all was.
        guessed: whether what was said is not known and something near it was taken instead.
    """

    wishes: tuple[Wish, ...] = ()
    problem: str = ""
    guessed: bool = False


@runtime_checkable
class Skills(Protocol):
    """What is known of a policy's language. Every call answers at once."""

    def read(self, text: str, before: str = "") -> Reading:
        """A sentence as what is to be done.

        Args:
            before: the instruction that was given last, for "it" and "there"; empty for none.
        """

    def correct(self, text: str, now: str) -> Reading:
        """What "the blue one" makes of the instruction `now`."""

    def nearest(self, text: str, count: int = 3) -> list[str]:
        """Instructions that the policy knows, those most like the text first."""

    def known(self) -> list[str]:
        """Every instruction in its plain wording; empty where there are too many to list."""


_THEN = re.compile(r"\s*(?:;|[,.]?\s+(?:and\s+)?(?:then|after that|afterwards)\b[,:]?)\s*", re.IGNORECASE)


class Plain:
    """Of a policy whose language nobody speaks for: a sentence is an instruction, "then" begins another."""

    def read(self, text: str, before: str = "") -> Reading:
        parts = [part.strip(" .") for part in _THEN.split(text)]
        return Reading(tuple(Wish(part) for part in parts if part))

    def correct(self, text: str, now: str) -> Reading:
        return Reading(problem="say the whole instruction: I cannot tell what that changes")

    def nearest(self, text: str, count: int = 3) -> list[str]:
        return []

    def known(self) -> list[str]:
        return []


def find(policy: str) -> Skills:
    """The skills of the policy of that name; `Plain` where no installed package offers any."""
    found = {entry.name: entry for entry in entry_points(group="takt.skills")}
    if policy not in found:
        return Plain()
    return check(policy, found[policy].load())


def check(policy: str, skills: object) -> Skills:
    """What an entry point leads to, if it is `Skills`; raises TaktError where it is not."""
    if not isinstance(skills, Skills):
        raise TaktError(f"the entry point {policy!r} of takt.skills is no Skills: see runtime/skills.py")
    return skills
