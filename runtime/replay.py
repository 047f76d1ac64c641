"""`takt replay`: a recorded episode's commands on a robot, through the guard, and how well it tracks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from runtime import loop, motion
from runtime.budget import Budget
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from runtime.guides import Replayed
from runtime.machine import machine
from runtime.motion import Motion
from runtime.planner import InlineLink, Planner
from runtime.realtime import without_collections
from runtime.run import interruptible, make_robot, robot_options, told
from vla import atomic
from vla.contract import Observation, Robot, TaktError, check_match


@dataclass
class Track:
    """What a robot did while a motion was played, row by row.

    Attributes:
        times: when each state was measured, s since the motion began.
        states, commands: shape (S,), (A,) each.
    """

    times: list[float] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    commands: list[np.ndarray] = field(default_factory=list)

    def errors(self, played: Motion) -> dict[str, dict[str, dict[str, float]]]:
        """By joint: how far the robot was from what was recorded, and from what it was told; rms and max.

        Both at the time of measuring, so the servos' own lag counts in both runs alike and cancels in
        "recorded", and shows in "command". Recorded rows between beats are interpolated.
        """
        beats = np.arange(len(played.states)) * played.dt
        states, commands, times = np.array(self.states), np.array(self.commands), np.array(self.times)
        found: dict[str, dict[str, dict[str, float]]] = {}
        for i, name in enumerate(played.state):
            recorded = states[:, i] - np.interp(times, beats, played.states[:, i])
            found[name] = {"recorded": _spread(recorded)}
            if name in played.actions.names:
                found[name]["command"] = _spread(
                    states[1:, i] - commands[:-1, played.actions.names.index(name)]
                )
        return found


def _spread(errors: np.ndarray) -> dict[str, float]:
    if not len(errors):
        return {"rms": 0.0, "max": 0.0}
    return {"rms": float(np.sqrt((errors**2).mean())), "max": float(np.abs(errors).max())}


@dataclass
class Command:
    """Play a recorded episode on a robot."""

    place: tyro.conf.Positional[Path]
    """A folder of journals (takt record), or a LeRobotDataset."""
    robot: str
    """The robot's name."""
    episode: int = 0
    """The episode's number there."""
    port: str | None = None
    """The line of the robot's servos: /dev/ttyACM0, or emulated."""
    calibration: Path | None = None
    """The arm's calibration, a file of LeRobot's."""
    options: tuple[str, ...] = ()
    """More for the robot, each NAME=VALUE (docs/robots.md)."""
    rate: float = 30.0
    """Ticks a second."""
    tolerance: float | None = None
    """Fail when a joint is further than this from where it was recorded, rms."""
    json: Path | None = None
    """Where to write the result."""

    def run(self) -> int:
        if not 1 <= self.rate <= 1000 or self.episode < 0:
            raise TaktError("--rate is from 1 to 1000, --episode at least 0")
        robot = make_robot(self.robot, **robot_options(self.port, self.calibration, self.options))
        played = motion.load(self.place, self.episode, robot.spec)
        check_match(played.spec(), robot.spec)
        track = Track()
        with interruptible() as pressed, pressed.through(robot):
            result = self._play(robot, played, track, pressed)
        return self._report(result, played, track)

    def _play(
        self, robot: Robot, played: Motion, track: Track, pressed: Callable[[], bool]
    ) -> loop.LoopResult:
        clock, guard, period = MonotonicClock(), Guard(robot.spec), 1.0 / self.rate
        policy = Replayed(robot.spec, played.commands, played.dt, played.spec())
        planner = Planner(policy.spec, InlineLink(policy, 0.0, clock), join="naive", period=period)

        def on_tick(seen: Observation, target: np.ndarray | None, command: np.ndarray) -> None:
            if policy.begins is not None and policy.begins <= seen.time <= policy.ends:
                track.times.append(seen.time - policy.begins)
                track.states.append(seen.state.astype(float))
                track.commands.append(command)

        with without_collections():
            return loop.run(
                robot,
                planner,
                Ticker(clock, period),
                Budget(),
                played.instruction,
                guard,
                lambda now: now >= policy.ends,
                on_tick,
                interrupted=pressed,
                settle=True,
            )

    def _report(self, result: loop.LoopResult, played: Motion, track: Track) -> int:
        errors = track.errors(played) if track.times else {}
        if errors:
            Console().print(_table(errors))
        print(f"{result.reason}: {told(result)}")
        if played.repeated:
            print(f"{played.repeated} of {len(played.commands)} rows stand for ticks that were not recorded")
        worst = max((row["recorded"]["rms"] for row in errors.values()), default=float("inf"))
        if self.json is not None:
            data: dict[str, Any] = {"place": str(self.place), "episode": self.episode, "robot": self.robot}
            data |= {"rate": self.rate, "machine": machine(), "rows": len(track.times)}
            data |= {"tracking": errors, "loop": result.to_json()}
            atomic.write_json(self.json, data, indent=2)
        if result.reason != "done":
            return 130 if result.reason == "interrupted" else 1
        if self.tolerance is not None and not worst <= self.tolerance:
            raise TaktError(f"a joint was {worst:.3f} from where it was recorded, over {self.tolerance:g}")
        return 0


def _table(errors: dict[str, dict[str, dict[str, float]]]) -> Table:
    table = Table(title="tracking error")
    for head in ("joint", "recorded rms", "max", "command rms", "max"):
        table.add_column(head, justify="left" if head == "joint" else "right")
    for name, row in errors.items():
        cells = [
            f"{row[key][what]:.4f}"
            for key in ("recorded", "command")
            if key in row
            for what in ("rms", "max")
        ]
        table.add_row(name, *cells)
    return table
