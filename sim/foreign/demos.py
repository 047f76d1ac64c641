"""Demonstrations of a foreign suite's scripted expert: what it saw and did at every control step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.clock import SimulatedClock
from sim.foreign.process import HostError
from sim.foreign.robot import ForeignRobot
from sim.foreign.suite import Scenario
from vla import dataset_body
from vla.contract import CameraSpec, Policy, RobotSpec, TaktError
from vla.dataset import Feature, Writer
from vla.dataset_body import FRESH, PLACES, POINTS

TRIES = 3  # seeds a demonstration that is asked for; an expert that fails more often is no teacher
MOST_LED = 200  # control steps that a policy drives before the expert does, where nothing else is said


class Noise:
    """Bursts in which a constant step is added to the expert's, as DART does (arXiv 1703.09327).

    What is recorded is what the expert would do where it was pushed to, so there is something to learn from
    of how to come back. Absolute dimensions, as a gripper's, are left alone.
    """

    def __init__(self, body: RobotSpec, rng: np.random.Generator, strength: float) -> None:
        """`strength`: 1 begins a burst every 80 steps or so, 0 none. A push is drawn from a normal
        distribution whose deviation is a quarter of the dimension's range.
        """
        self._rng, self._strength = rng, strength
        self._steps = ~body.actions.absolute
        self._range = (body.actions.upper - body.actions.lower) / 2
        self._left = 0
        self._push = np.zeros(body.actions.size)

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """What is done in place of `action`, shape (A,)."""
        if self._left > 0:
            self._left -= 1
            return action + self._push
        if self._strength > 0 and self._rng.random() < 0.0125 * self._strength:
            self._left = int(self._rng.integers(5, 25))
            self._push = self._steps * self._range * self._rng.normal(0.0, 0.5, self._push.shape)
        return action


class Lead:
    """A policy that drives before the expert does, as DAgger's learner (Ross et al. 2011, arXiv 1011.0686),
    so that the expert is seen where that policy's mistakes lead. It is not recorded.
    """

    def __init__(self, policy: Policy, most: int = MOST_LED) -> None:
        """
        Args:
            policy: its rows are one a control step.
            most: control steps that it drives at most.
        """
        spec = policy.spec
        self.policy, self.most = policy, most
        self._rows = min(max(1, round(spec.replan / spec.dt)), spec.chunk_length)

    def __call__(self, robot: ForeignRobot, scenario: Scenario, share: float = 1.0) -> int:
        """Lay the scenario and drive a while, a random one; the control steps that were taken.

        Where the policy succeeds in less, it is stopped on the way there.

        Args:
            share: of the most control steps; 0: it does not drive.
        """
        seed, most = scenario.seed, max(1, round(self.most * share))
        rng = np.random.default_rng([seed, 1])
        while True:
            taken = self._drive(robot, scenario, int(rng.integers(most)), seed)
            if not (robot.success or robot.over):
                return taken
            most = max(1, taken)

    def _drive(self, robot: ForeignRobot, scenario: Scenario, steps: int, seed: int) -> int:
        robot.clock = clock = SimulatedClock()
        scenario.lay(robot)
        self.policy.reset(seed)
        actions = np.zeros((0, robot.spec.actions.size))
        for step in range(steps):
            seen = robot.read()
            if robot.success or robot.over:
                return step
            row = step % self._rows
            if row == 0:
                actions = self.policy.infer(replace(seen, instruction=scenario.instruction)).actions
            robot.write(actions[row])
            clock.sleep_until((step + 1) / robot.rate)
        robot.read()
        return steps


def features(body: RobotSpec, places: int = 0, every: int = 1) -> dict[str, Feature]:
    """The columns of a data set of this body with its cameras.

    Args:
        places: of how many things the simulator tells where they are.
        every: control steps from one frame to the next.
    """
    names = ["height", "width", "channel"]
    pictures = {
        f"observation.images.{c.name}": Feature("image", (c.height, c.width, 3), names) for c in body.cameras
    }
    state = Feature("float32", (len(body.state),), list(body.state))
    known = {f"{POINTS}{c.name}": Feature("float32", (3 * places,), None) for c in body.cameras}
    known |= {PLACES: Feature("float32", (4 * places,), None)}
    return {
        "observation.state": state,
        **pictures,
        "action": Feature("float32", (body.actions.size,), list(body.actions.names)),
        **(known if places else {}),
        **({FRESH: Feature("float32", (1,), None)} if every > 1 else {}),
    }


def episode(
    robot: ForeignRobot,
    scenario: Scenario,
    noise: Noise | None = None,
    places: int = 0,
    every: int = 1,
    phase: int = 0,
    lead: Lead | None = None,
    share: float = 1.0,
) -> dict[str, np.ndarray] | None:
    """The expert's episode: columns of leading length T, one row a control step; None where it fails.

    Args:
        lead: who drives first; only the expert's part is recorded. share: of the most that it may.
        every, phase: frames are taken in the first row and in those that are `phase` modulo `every`; the rows
            between repeat them.
    """
    taken = 0
    if lead is None:
        robot.clock = SimulatedClock()
        scenario.lay(robot)
    else:
        taken = lead(robot, scenario, share)
    rows: dict[str, list[Any]] = {name: [] for name in features(robot.spec, places, every)}
    frames: dict[str, np.ndarray] = {}
    for step in range(scenario.steps - taken):
        seen = robot.read()
        if robot.success or robot.over:
            break
        action = robot.expert()
        rows["observation.state"].append(seen.state)
        rows["action"].append(action.astype(np.float32))
        fresh = not step or step % every == phase % every
        frames = dict(seen.frames) if fresh else frames
        for camera, frame in frames.items():
            rows[f"observation.images.{camera}"].append(frame)
        if every > 1:
            rows[FRESH].append([float(fresh)])
        if places:
            at, points = robot.places()
            rows[PLACES].append(at.reshape(-1))
            for camera in frames:
                rows[POINTS + camera].append(points[camera].reshape(-1))
        robot.write(noise(action) if noise else action)
        robot.clock.sleep_until((taken + step + 1) / robot.rate)
    robot.catch_up()
    return {name: np.array(row) for name, row in rows.items()} if robot.success else None


def write(
    suite: Any,
    out: Path,
    seeds: Sequence[int],
    each: int,
    size: int,
    noise: float = 0.0,
    every: int = 1,
    policy: Policy | None = None,
) -> None:
    """Write `each` successful episodes of every task that the seeds are of.

    Args:
        seeds: candidates, task by task; those after the last that is needed are not played.
        size: of the frames, pixels.
        noise: strength of what pushes the expert about.
        every: control steps from one frame to the next; episodes begin at different phases of it.
        policy: drives before the expert does (`Lead`).

    Raises:
        TaktError: the expert failed so often that the candidates ran out, or the simulator did.
    """
    try:
        _write(suite, out, seeds, each, size, noise, every, policy)
    except HostError as error:
        raise TaktError(f"the simulator failed, and {out} is not whole: {error}") from None


def _write(
    suite: Any,
    out: Path,
    seeds: Sequence[int],
    each: int,
    size: int,
    noise: float,
    every: int,
    policy: Policy | None,
) -> None:
    left: dict[str, int] = {}
    places: int = getattr(suite, "places", 0)
    with suite.robot(SimulatedClock()) as robot:
        robot.fit([CameraSpec(c.name, size, size) for c in robot.spec.cameras])
        fps = round(suite.rate)
        lead = None if policy is None else Lead(policy)
        table = features(robot.spec, places, every)
        with Writer(out, fps=fps, features=table, robot_type=robot.spec.name) as writer:
            for seed in seeds:
                (scenario,) = suite.scenarios(seed, "seen", False)
                if left.setdefault(scenario.task, each) == 0:
                    continue
                # What was led astray beyond the expert's means is begun again, and led less far.
                phase = left[scenario.task]  # counts down, whatever the number of processes
                for share in (1.0, 0.3, 0.0) if lead else (1.0,):
                    pushed = Noise(robot.spec, np.random.default_rng(seed), noise)
                    columns = episode(robot, scenario, pushed, places, every, phase, lead, share)
                    if columns is not None:
                        break
                if columns is not None:
                    writer.add_episode(scenario.instruction, columns, {"success": True, "seed": seed})
                    left[scenario.task] -= 1
    dataset_body.write(out, robot.spec.actions)
    short = [task for task, missing in left.items() if missing]
    if short:
        raise TaktError(f"the expert failed too often at {', '.join(short)}: leave it out with --tasks")
