"""What a suite adds to a run and its report: which seeds, scores of its own, the simulator's versions.

A suite may have
    seeds(first, episodes, tasks)   the seeds of a run, in the order in which they are best played
    summary(episodes)               further keys of the report: buckets, mean_of_buckets, mean_of_tasks
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from vla.contract import TaktError


def seeds(suite: Any, first: int, episodes: int, tasks: str | None = None) -> Sequence[int]:
    """The seeds of a run.

    Raises:
        TaktError: the suite has no such task, or no list of tasks.
    """
    if hasattr(suite, "seeds"):
        return suite.seeds(first, episodes, tuple(tasks.split(",")) if tasks else ())
    if tasks:
        raise TaktError(f"--tasks: suite {suite.name!r} is no list of tasks")
    return range(first, first + episodes)


def more(suite: Any, episodes: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Further keys of the report; where results are of several versions of a package it names them all."""
    found: dict[str, Any] = {}
    versions: dict[str, set[str]] = {}
    for result in results:
        for name, number in result.get("versions", {}).items():
            versions.setdefault(name, set()).add(number)
    if versions:
        found["versions"] = {name: " and ".join(sorted(of)) for name, of in versions.items()}
    return found | (suite.summary(episodes) if hasattr(suite, "summary") else {})


class Pace:
    """How fast episodes are played, by the machine's clock: for people, and no part of a report."""

    def __init__(self, workers: int, here: bool = True) -> None:
        """`here`: whether they are processes of this machine."""
        self._begun = time.perf_counter()
        self._cores = min(workers, os.cpu_count() or 1) if here else workers

    def line(self, episodes: int) -> str:
        minutes = (time.perf_counter() - self._begun) / 60.0
        return f"{episodes / minutes / self._cores:.1f} episodes a minute a core"


def lines(report: dict[str, Any], pace: Pace | None) -> list[str]:
    """What is printed of all that."""
    said = []
    for name, row in report.get("buckets", {}).items():
        said.append(f"bucket {name}: {row['k']}/{row['n']} = {100 * row['rate']:.1f} %")
    if "mean_of_buckets" in report:
        said.append(f"mean of the buckets: {100 * report['mean_of_buckets']:.1f} %")
    if "mean_of_tasks" in report:
        said.append(f"mean of the tasks: {100 * report['mean_of_tasks']:.1f} %")
    if "versions" in report:
        named = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
        said.append(f"simulated by {named}")
        if " and " in named:
            said.append("not all episodes are of the same versions: they do not make one result")
    if pace is not None:
        said.append(pace.line(len(report["episodes"])))
    return said
