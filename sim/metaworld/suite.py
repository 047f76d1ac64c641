"""Meta-World MT50 as an evaluation suite, by LeRobot's protocol; `make metaworld` installs it.

Seed s is one episode: of task s mod 50, in alphabetical order, from an initial condition that is drawn from
s. `--episodes 10` is ten of each task, 500 in all. 80 control steps a second, at most 500 of them; the first
success ends an episode.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.bundle import sha256
from runtime.clock import Clock
from sim.foreign import suite as foreign
from sim.foreign.process import Host
from sim.foreign.robot import ForeignRobot, spec
from sim.metaworld import tasks
from vla.contract import CameraSpec, Dimension, RobotSpec, TaktError

STEPS = 500
STATE = ("hand_x", "hand_y", "hand_z", "gripper")
AXES = tuple(Dimension(name, "1", -1.0, 1.0, absolute=False) for name in ("dx", "dy", "dz"))
GRIP = Dimension("grip", "1", -1.0, 1.0)  # an effort: what it was last told is held; -1 opens
CAMERA = CameraSpec("corner2", 480, 480)
REMEDY = "make metaworld, or let TAKT_METAWORLD_PYTHON name one that has metaworld"


class MetaWorld:
    """Entry point `metaworld` of `takt.suites`.

    Attributes:
        plain: without multisampling, shadows and reflections, which is how a CPU renders in time.
    """

    name = "metaworld"
    splits = ("seen",)
    rate = 80.0  # control steps a second
    places = 3  # that its simulator tells demonstrations of: the first thing, the second, the goal
    seconds = STEPS / rate

    def __init__(self, argument: str = "") -> None:
        """
        Args:
            argument: "plain" or nothing.

        Raises:
            TaktError: something else, or Meta-World is not installed.
        """
        if argument not in ("", "plain"):
            raise TaktError(f"metaworld or metaworld:plain, not metaworld:{argument}")
        self.plain = argument == "plain"
        self.name = f"metaworld:{argument}" if argument else "metaworld"
        given = os.environ.get("TAKT_METAWORLD_WORDS")
        self.words = tasks.words(given)
        self.identity = sha256(Path(given)) if given else ""
        self.python = foreign.interpreter("metaworld", "TAKT_METAWORLD_PYTHON", ".venv-metaworld", REMEDY)

    def seeds(self, first: int, episodes: int, only: tuple[str, ...]) -> list[int]:
        """`episodes` of every task, task by task, so that each simulator is built once a process.

        Raises:
            TaktError: there is no such task.
        """
        return foreign.by_task(tasks.NAMES, first, episodes, only)

    def scenarios(self, seed: int, split: str, swap: bool) -> list[foreign.Scenario]:
        """The one episode of a seed.

        Raises:
            TaktError: pairs were asked for.
        """
        foreign.plain(self.name, split, swap)
        task = tasks.NAMES[seed % len(tasks.NAMES)]
        request = {"task": task, "seed": seed}
        return [foreign.Scenario(seed, task, self.words[task], request, STEPS, self.seconds)]

    def spec(self) -> RobotSpec:
        """Sawyer's hand: its place [m] and the gripper's opening (0 to 1); steps of at most 1 cm an axis."""
        return spec("metaworld", STATE, (*AXES, GRIP), (CAMERA,), rest=(0.0, 0.0, 0.0, -1.0))

    def robot(self, clock: Clock) -> ForeignRobot:
        host = Host(self.python, "metaworld_world", {"plain": self.plain})
        return ForeignRobot(host, self.spec(), clock, self.rate)

    def expert(self, robot: ForeignRobot) -> Callable[[], np.ndarray]:
        """The package's scripted policy of the task that is laid."""
        return robot.expert

    def summary(self, episodes: list[dict[str, Any]]) -> dict[str, Any]:
        """Success by bucket, the mean of the buckets' rates, and the mean of the tasks' rates."""
        by_task: dict[str, list[bool]] = {}
        for e in episodes:
            by_task.setdefault(e["task"], []).append(e["success"])
        mean = float(np.mean([np.mean(won) for won in by_task.values()]))
        outcomes = ((tasks.BUCKET[e["task"]], e["success"]) for e in episodes)
        return foreign.by_bucket(tuple(tasks.BUCKETS), outcomes) | {"mean_of_tasks": mean}
