"""A motion that was recorded, from a journal or a LeRobotDataset, on an even beat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime import journal_reader
from runtime.journal_reader import Recorded
from runtime.states import State
from vla.contract import ActionSpace, Dimension, PolicySpec, RobotSpec, TaktError
from vla.dataset import Dataset

DRIVEN = (State.RUNNING.name, State.HOLD.name, "")  # not braking to its end, and not at fault


@dataclass(frozen=True)
class Motion:
    """N rows, `dt` s apart.

    Attributes:
        state: names of the states' components.
        actions: the command space; where a data set does not tell units, those of the robot it is for.
        states: shape (N, S).
        commands: shape (N, A).
        repeated: rows that stand in for ticks which were left out or dropped.
    """

    state: tuple[str, ...]
    actions: ActionSpace
    dt: float
    states: np.ndarray
    commands: np.ndarray
    instruction: str
    repeated: int = 0

    def spec(self) -> PolicySpec:
        """What a policy would be called that makes this motion."""
        return PolicySpec("recorded", self.state, self.actions, (), len(self.commands), self.dt, np.inf)


def load(place: Path, episode: int, robot: RobotSpec) -> Motion:
    """
    Args:
        place: a folder of journals, or a data set.
        episode: its number there.

    Raises:
        TaktError: neither is there, or the episode has no rows.
    """
    if (place / "meta/info.json").exists():
        return _of_dataset(place, episode, robot)
    found = {int(path.name): path for path in journal_reader.episodes(place)}
    if episode not in found:
        valid = ", ".join(map(str, found))
        raise TaktError(f"{place} has no complete episode {episode}; valid: {valid}")
    recorded = journal_reader.read(found[episode])
    rows, repeated = beat(recorded, 1.0 / recorded.meta.rate)
    if not len(rows):
        raise TaktError(f"{found[episode]} has no row in which the robot was driven")
    meta = recorded.meta
    return Motion(
        meta.state,
        meta.actions,
        1.0 / meta.rate,
        recorded.state[rows].astype(float),
        recorded.command[rows],
        meta.instruction,
        repeated,
    )


def beat(recorded: Recorded, period: float) -> tuple[np.ndarray, int]:
    """Which row stands for each beat, `period` s apart, and how many stand for more than one.

    Rows come at the beat except where a tick was left out or dropped: there the one before it is repeated,
    as its command was what the robot held. Rows in which the robot was not driven any more are left out.
    """
    driven = np.array([mode in DRIVEN for mode in recorded.mode], bool)
    rows = np.flatnonzero(driven)
    if not len(rows):
        return rows, 0
    times = recorded.time[rows]
    grid = np.arange(times[0], times[-1] + period / 2, period)
    # A row up to half a period late is still that of its beat.
    chosen = np.searchsorted(times, grid + period / 2, "right") - 1
    return rows[chosen], int((np.diff(chosen) == 0).sum())


def _of_dataset(place: Path, episode: int, robot: RobotSpec) -> Motion:
    data = Dataset(place)
    for name in ("observation.state", "action"):
        if name not in data.features:
            raise TaktError(f"{place} has no feature {name!r}: nothing of it can be replayed")
    columns = data.columns(["observation.state", "action"], [episode])
    state, action = (_names(data, name) for name in ("observation.state", "action"))
    own = {d.name: d for d in robot.actions.dimensions}
    # A data set says names and no units; those that the robot has of the same name have its units.
    dims = tuple(own.get(name, Dimension(name, "?", -np.inf, np.inf)) for name in action)
    commands = columns["action"].astype(float)
    if not len(commands):
        raise TaktError(f"{place}: episode {episode} is empty")
    words = data.task_of([episode])[0]
    space = ActionSpace(dims)
    return Motion(state, space, 1.0 / data.fps, columns["observation.state"].astype(float), commands, words)


def _names(data: Dataset, name: str) -> tuple[str, ...]:
    feature = data.features[name]
    return tuple(feature.names or (f"{name} {i}" for i in range(feature.shape[0])))
