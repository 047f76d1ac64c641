"""Demonstrations of a foreign suite's scripted expert: what it saw and did at every control step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.clock import SimulatedClock
from sim.foreign.process import HostError
from sim.foreign.robot import ForeignRobot
from sim.foreign.suite import Scenario
from vla import dataset_body
from vla.contract import CameraSpec, RobotSpec, TaktError
from vla.dataset import Feature, Writer

TRIES = 3  # seeds a demonstration that is asked for; an expert that fails more often is no teacher


def features(body: RobotSpec) -> dict[str, Feature]:
    """The columns of a data set of this body with its cameras."""
    names = ["height", "width", "channel"]
    pictures = {
        f"observation.images.{c.name}": Feature("image", (c.height, c.width, 3), names) for c in body.cameras
    }
    state = Feature("float32", (len(body.state),), list(body.state))
    return {
        "observation.state": state,
        **pictures,
        "action": Feature("float32", (body.actions.size,), list(body.actions.names)),
    }


def episode(robot: ForeignRobot, scenario: Scenario) -> dict[str, np.ndarray] | None:
    """The expert's episode: columns of leading length T, one row a control step; None where it fails."""
    robot.clock = clock = SimulatedClock()
    scenario.lay(robot)
    rows: dict[str, list[Any]] = {name: [] for name in features(robot.spec)}
    for step in range(scenario.steps):
        seen = robot.read()
        if robot.success or robot.over:
            break
        action = robot.expert()
        rows["observation.state"].append(seen.state)
        rows["action"].append(action.astype(np.float32))
        for camera, frame in seen.frames.items():
            rows[f"observation.images.{camera}"].append(frame)
        robot.write(action)
        clock.sleep_until((step + 1) / robot.rate)
    robot.catch_up()
    return {name: np.array(row) for name, row in rows.items()} if robot.success else None


def write(suite: Any, out: Path, seeds: Sequence[int], each: int, size: int) -> None:
    """Write `each` successful episodes of every task that the seeds are of.

    Args:
        seeds: candidates, task by task; those after the last that is needed are not played.
        size: of the frames, pixels.

    Raises:
        TaktError: the expert failed so often that the candidates ran out, or the simulator did.
    """
    try:
        _write(suite, out, seeds, each, size)
    except HostError as error:
        raise TaktError(f"the simulator failed, and {out} is not whole: {error}") from None


def _write(suite: Any, out: Path, seeds: Sequence[int], each: int, size: int) -> None:
    left: dict[str, int] = {}
    with suite.robot(SimulatedClock()) as robot:
        robot.fit([CameraSpec(c.name, size, size) for c in robot.spec.cameras])
        fps = round(suite.rate)
        with Writer(out, fps=fps, features=features(robot.spec), robot_type=robot.spec.name) as writer:
            for seed in seeds:
                (scenario,) = suite.scenarios(seed, "seen", False)
                if left.setdefault(scenario.task, each) == 0:
                    continue
                columns = episode(robot, scenario)
                if columns is not None:
                    writer.add_episode(scenario.instruction, columns, {"success": True, "seed": seed})
                    left[scenario.task] -= 1
    dataset_body.write(out, robot.spec.actions)
    short = [task for task, missing in left.items() if missing]
    if short:
        raise TaktError(f"the expert failed too often at {', '.join(short)}: leave it out with --tasks")
