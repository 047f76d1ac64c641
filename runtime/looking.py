"""Whether what is named is there: the policy is asked about it and its answers are not played.

A policy that is asked for what is not there moves nothing (`stands`). It errs less where several of its
answers are weighed: something is missing when it would not begin the instruction itself, or none of the
others about the same thing.
"""

from __future__ import annotations

from runtime.skills import Wish
from vla.contract import ActionChunk


def stands(chunk: ActionChunk) -> bool:
    """Whether a policy's answer moves nothing: its last rows, which nothing has committed, are one pose."""
    last = chunk.actions[-3:]
    return bool((last == last[:1]).all())


class Look:
    """Which of the things that a wish may mean are there, asked of the policy one probe after the other.

    Attributes:
        probe: what is asked now.
        found: the instructions for what is there. choices: of which one is meant, those that are there.
    """

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.found: list[str] = []
        self.choices: list[str] = []
        self._each = wish.each or (wish.text,)
        self._known: dict[str, bool] = {}  # probe -> whether the policy would begin
        self._done = False  # whether it takes the instruction itself for done
        self._at = 0
        self.probe = self._next()

    @property
    def missing(self) -> str:
        """The name of what is not there, where the answers tell; "" where they do not."""
        if self.found or self.wish.each or not self.wish.names:
            return ""
        others = self.wish.probes[0][:-1]
        thing, rest = self.wish.names
        if any(self._known.get(probe) for probe in others):
            return rest  # the policy would begin something with the thing
        return thing if others or not rest else ""

    @property
    def fulfilled(self) -> bool:
        """Whether nothing was found of a single wish because the policy takes it for done as it is."""
        return self._done and not self.found and not self.wish.each

    def take(self, stood: bool, done: bool = False) -> bool:
        """The answer to `probe`: whether the policy stood still, and takes it for done. True when all is
        known.
        """
        self._known[self.probe] = not stood
        self._done |= stood and done and self.probe == self.wish.text
        self.probe = self._next()
        return not self.probe

    def _next(self) -> str:
        """The next probe whose answer is needed; empty when there is none."""
        while self._at < len(self._each):
            *others, own = self.wish.probes[self._at]
            for probe in others:
                if probe not in self._known:
                    return probe
            missing = bool(others) and not any(self._known[probe] for probe in others)
            # Of a single wish it is asked in any case: one that is fulfilled is no begun one either.
            if own not in self._known and not (missing and self.wish.each):
                return own
            if not missing and self._known[own]:
                self.found.append(self._each[self._at])
                choice = self.wish.choice[self._at] if self.wish.choice else ""
                self.choices += [choice] if choice not in self.choices else []
            self._at += 1
        return ""
