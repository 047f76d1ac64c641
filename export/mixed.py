"""Which groups of layers have fewer bits, chosen by what the whole policy does and not layer by layer.

    alone      each group in fewer bits alone: its action error on recorded observations
    front      one group after another, the least harmful first: what their files and errors are together
    played     a few of those within the tolerance, in closed loop on the same seeds, paired, with jerk
    kept       the smallest that passes

Sensitivities do not add up, and no likeness of activations tells success: hence the joint tests
(VLAQuantBench; docs/export.md). What `keep` names, the sensitive parts, is never tried.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export import lower, measures, quantise
from export.parity import Evidence, Gate, Refused
from vla.contract import TaktError


@dataclass(frozen=True)
class Candidate:
    """Some groups of layers in fewer bits.

    Attributes:
        groups: as `lower.groups` names them. size_mb: of the whole bundle.
        mean, max: action error, as in `Evidence`. seconds: of prefix and steps, at the median.
    """

    groups: tuple[str, ...]
    size_mb: float
    mean: float
    max: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """What was found.

    Attributes:
        alone: group -> its action error alone. front: all candidates, the least quantised first.
        played: those that were played, the smallest first, each with its evidence.
        chosen: the one that is kept, and its evidence; None where none passed.
    """

    alone: dict[str, float]
    front: list[Candidate]
    played: list[tuple[Candidate, Evidence]]
    chosen: tuple[Candidate, Evidence] | None

    def to_json(self) -> dict[str, Any]:
        return {
            "alone": self.alone,
            "front": [candidate.to_json() for candidate in self.front],
            "played": [{**c.to_json(), "evidence": e.to_json()} for c, e in self.played],
            "groups": None if self.chosen is None else list(self.chosen[0].groups),
        }


class Search:
    """Candidates of one bundle in fp32; they are written below `folder`, one at a time."""

    def __init__(self, plain: Path, folder: Path, how: quantise.How, keep: Sequence[str], gate: Gate) -> None:
        self._plain, self._folder, self._how = plain, folder, how
        self._keep, self._gate = tuple(keep), gate

    def run(self, tries: int) -> Choice:
        """
        Args:
            tries: candidates that are played at most.

        Raises:
            TaktError: there is nothing to quantise.
        """
        alone = self._gate.alone(self._plain, self._how, self._keep)
        if not alone:
            raise TaktError(f"{self._how.precision}: nothing is left to quantise; look at --keep")
        order = sorted(alone, key=lambda group: alone[group])
        front = [self._candidate(order[: i + 1]) for i in range(len(order))]
        tolerance = self._gate.tolerance(self._how.precision)
        picked = spread([c for c in front if c.mean <= tolerance], tries)
        played = []
        for candidate in picked:
            self.write(candidate.groups)
            played.append((candidate, self._gate.examine(self._folder, self._how.precision)))
        passed = [(c, e) for c, e in played if e.passed]
        return Choice(alone, front, played, passed[0] if passed else None)

    def write(self, groups: Sequence[str]) -> dict[str, quantise.Report]:
        """Write the bundle with these groups in fewer bits, in place of the one before."""
        shutil.rmtree(self._folder, ignore_errors=True)
        rules = lower.only(self._plain, self._keep, groups, self._how)
        return lower.lower(self._plain, self._folder, self._how, self._gate.feeds, rules)

    def _candidate(self, groups: Sequence[str]) -> Candidate:
        self.write(groups)
        error, seconds = self._gate.error(self._folder), self._gate.seconds(self._folder)
        size = measures.size(self._folder)
        return Candidate(tuple(groups), size, float(error.mean()), float(error.max()), seconds)


def spread(candidates: Sequence[Candidate], tries: int) -> list[Candidate]:
    """At most `tries` of them, the smallest first: it, and others at equal steps towards the largest."""
    ordered = sorted(candidates, key=lambda c: c.size_mb)
    if len(ordered) <= tries:
        return ordered
    at = [round(i * (len(ordered) - 1) / max(tries - 1, 1)) for i in range(tries)]
    return [ordered[i] for i in at]


def refusal(choice: Choice, tolerance: float) -> Refused:
    """Why nothing was kept, in one line."""
    if not choice.played:
        least = min(choice.front, key=lambda c: c.mean)
        return Refused(
            f"no group of layers is within the tolerance {tolerance:g}: {', '.join(least.groups)} alone errs "
            f"{least.mean:.1e}"
        )
    said = "; ".join(f"{len(c.groups)} groups: {e.line()}" for c, e in choice.played)
    return Refused(f"none of {len(choice.played)} candidates passed ({said})")
