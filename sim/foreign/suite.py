"""What suites of foreign simulators have in common: episodes, which Python runs them, the scripted expert."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim.foreign.robot import ForeignRobot
from sim.score import score
from vla.contract import TaktError

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Scenario:
    """One episode.

    Attributes:
        task: its name in the report's table. instruction: what the policy is told; a world that words it
            itself does so when it is laid.
        request: what the world's `reset` takes. steps: control steps that it lasts at most.
        seconds: the same, simulated s. settle: so long success must last, s; 0 ends at the first.
    """

    seed: int
    task: str
    instruction: str
    request: dict[str, Any]
    steps: int
    seconds: float
    settle: float = 0.0
    group: str = ""

    def lay(self, robot: ForeignRobot) -> None:
        """Begin it."""
        said = robot.reset(self.request, self.steps, ends=self.settle == 0.0)
        self.instruction = str(said.get("instruction", self.instruction))

    def successful(self, world: ForeignRobot) -> bool:
        """The task is done, as the environment says it."""
        world.catch_up()
        return world.success


def interpreter(suite: str, variable: str, folder: str, remedy: str) -> Path:
    """The Python that has a suite's packages: the environment variable's, else the checkout's own.

    Raises:
        TaktError: there is none, with what to do.
    """
    named = os.environ.get(variable)
    python = Path(named) if named else ROOT / folder / "bin" / "python"
    if not python.is_file():
        told = f"{variable} is {named}, which is not there" if named else f"no {folder} in {ROOT}"
        raise TaktError(f"suite {suite} runs in a Python of its own ({told}): {remedy}")
    return python


def by_task(names: Sequence[str], first: int, episodes: int, only: Sequence[str]) -> list[int]:
    """The seeds of `episodes` of every task, where seed s is of task s mod their number; task by task, so
    that each simulator is built once a process.

    Raises:
        TaktError: `only` has a task that there is not.
    """
    unknown = [name for name in only if name not in names]
    if unknown:
        raise TaktError(f"no task {unknown[0]!r}; valid: {', '.join(names)}")
    count = len(names)
    wanted = [s for s in range(first, first + count * episodes) if not only or names[s % count] in only]
    return sorted(wanted, key=lambda s: (s % count, s))


def by_bucket(names: Sequence[str], outcomes: Iterable[tuple[str, bool]]) -> dict[str, Any]:
    """`buckets`, in the order of `names`, and where there are all of them `mean_of_buckets`.

    Args:
        outcomes: each episode's bucket, and whether it succeeded.
    """
    of: dict[str, list[bool]] = {}
    for name, won in outcomes:
        of.setdefault(name, []).append(won)
    found: dict[str, Any] = {"buckets": {name: score(of[name]) for name in names if name in of}}
    if len(found["buckets"]) == len(names):
        found["mean_of_buckets"] = float(np.mean([row["rate"] for row in found["buckets"].values()]))
    return found


def plain(suite: str, split: str, swap: bool) -> None:
    """Refuse what only the tabletop has.

    Raises:
        TaktError: pairs were asked for.
    """
    if swap:
        raise TaktError(f"suite {suite!r} has no pairs of tasks: leave --swap out")
