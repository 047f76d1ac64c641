"""Episodes on the tabletop with an expert's label on every frame.

The label of a frame is not what was done next but what the expert would do from there: the
simulator's state is saved, the expert drives a chunk's length, and the state is put back. So the
arm may be pushed about by noise, or driven by a policy (DAgger, arXiv 1011.0686), and every
frame still carries a clean target.

A policy whose answers come late is corrected as it will be used: the first rows of the label are those
of the plan that runs, which will be executed whatever it answers, and the expert goes on from where
they lead. So the policy learns to put right what was committed, not only to continue it.

Commands pass the same safety filter as in the loop, so that the arm lags behind a plan as it will.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.safety import Limits, Memory, limit, start
from sim import robot
from sim.tabletop import expert, rules
from sim.tabletop.meaning import classes
from sim.tabletop.world import CAMERAS, ROLES, TICK_STEPS, World
from vla import flow
from vla.contract import ActionChunk, Observation, Policy, Prefix

ROW_TICKS = 3  # ticks a row of a chunk
DT = TICK_STEPS * ROW_TICKS / 240  # seconds between rows
EVERY = 2  # rows between recorded frames: neighbours are alike, and a label costs more than a new table
ROWS = 12  # rows a chunk
DISCOUNT = 0.98  # of a row: how much less a success is worth that is a row farther away
ABSOLUTE = np.ones(6, dtype=bool)

# The most rows that a label commits: the answer to an observation comes at most MOST_COMMITTED - 1 rows late.
MOST_COMMITTED = 8

Drive = Callable[[int, float], np.ndarray]  # (tick in the episode, its time [s]) -> joint targets


@dataclass
class Episode:
    """Columns with leading length T, and how it ended."""

    columns: dict[str, np.ndarray]
    success: bool


class Noise:
    """Bursts that push the joints off their way or move the jaws."""

    def __init__(self, rng: np.random.Generator, strength: float = 1.0) -> None:
        self.rng, self.strength = rng, strength
        self._left = 0
        self._push = np.zeros(6)
        self._jaw: float | None = None

    def __call__(self, target: np.ndarray) -> np.ndarray:
        """A tick's disturbed target, shape (6,) [rad]."""
        if self._left == 0:
            self._push, self._jaw = np.zeros(6), None
            if self.strength > 0 and self.rng.random() < 0.035 * self.strength:
                self._start()
        else:
            self._left -= 1
        moved = target + self._push
        if self._jaw is not None:
            moved[5] = self._jaw
        return moved

    def _start(self) -> None:
        self._left = int(self.rng.integers(4, 12))
        self._push[:4] = self.rng.normal(0.0, 1.0, 4) * np.array([0.035, 0.03, 0.03, 0.03])
        if self.rng.random() < 0.15:
            self._jaw = float(self.rng.uniform(-0.1, 1.1))


class Arm:
    """The world's arm behind the safety filter, a tick at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.limits = Limits.of(robot.spec())
        self._now = 0.0
        self._memory = start(self.limits, world.joints(), self._now)

    def tick(self, target: np.ndarray) -> None:
        """Command joint targets, shape (6,) [rad], and advance by a tick."""
        self._now += DT / ROW_TICKS
        command, self._memory, _ = limit(self.limits, self._memory, target, self.world.joints(), self._now)
        self.world.command(command)
        self.world.advance(TICK_STEPS)

    def keep(self) -> tuple[float, Memory]:
        """Remember the world, and the filter's memory, which is given back to `put_back`."""
        self.world.keep()
        return self._now, self._memory

    def put_back(self, kept: tuple[float, Memory]) -> None:
        self.world.put_back()
        self._now, self._memory = kept


class Driver(Protocol):
    """Who moves the arm, asked at each row."""

    def __call__(self, world: World, seen: Observation) -> Drive: ...

    def committed(self) -> np.ndarray:
        """The rows from now on that are executed whatever a policy would answer, shape (d, 6) [rad]."""


def label(arm: Arm, committed: np.ndarray | None = None) -> np.ndarray:
    """The expert's next chunk from here, shape (ROWS, 6) [rad]; the arm and its world are left as they were.

    Args:
        committed: shape (d, 6) [rad]; rows that are executed first and begin the chunk.
    """
    first = np.zeros((0, 6)) if committed is None else committed
    kept = arm.keep()
    rows = []
    for tick in range(ROWS * ROW_TICKS):
        at = tick / ROW_TICKS
        target = _between(first, at) if at <= len(first) - 1 else expert.act(arm.world)
        if tick % ROW_TICKS == 0:
            rows.append(target)
        arm.tick(target)
    arm.put_back(kept)
    return np.array(rows, np.float32)


def _between(rows: np.ndarray, at: float) -> np.ndarray:
    """Row `at` of `rows`, interpolated, shape (6,)."""
    i = min(int(at), len(rows) - 1)
    j = min(i + 1, len(rows) - 1)
    return rows[i] + (at - i) * (rows[j] - rows[i])


def observe(world: World, time: float, instruction: str) -> Observation:
    """What a policy sees at `time` s; a frame is rendered when it is looked at, before the world moves on."""
    return Observation(time, world.joints(), robot.Frames(world), instruction)


def episode(
    arm: Arm, instruction: str, driver: Driver, noise: Noise, rows: int = 60, after: int = 6
) -> Episode:
    """Drive one episode, for what the arm's world was asked; every other row is recorded with its label.

    What cannot be done, since it is not there, is a success when nothing has moved in a third of the time.

    Args:
        driver: called at each row with the observation; what it returns is called at each tick.
        rows: the longest an episode lasts, in rows of DT seconds.
        after: rows recorded after success, where the arm leaves and rests.
    """
    world = arm.world
    frames: list[dict[str, np.ndarray]] = []
    driven: list[np.ndarray] = []
    done, absent = 0, not world.possible()
    for row in range(rows // 3 if absent else rows):
        seen = observe(world, row * DT, instruction)
        drive = driver(world, seen)
        if row % EVERY == 0:
            frames.append(_record(arm, seen, driver.committed()))
        for tick in range(row * ROW_TICKS, (row + 1) * ROW_TICKS):
            target = noise(drive(tick, tick * DT / ROW_TICKS))
            if tick % ROW_TICKS == 0:
                driven.append(target)
            arm.tick(target)
        done = done + 1 if world.success() else 0
        if done > after:
            break
    success = not world.moved(rules.STILL) if absent else done > 0
    columns = {k: np.stack([f[k] for f in frames]) for k in frames[0]}
    return Episode(columns | _in_hindsight(driven, success, len(driven) - done), success)


def _in_hindsight(driven: list[np.ndarray], success: bool, took: int) -> dict[str, np.ndarray]:
    """What is known of each frame when the episode is over: the rows driven from it, and how it ended."""
    at = np.arange(0, len(driven), EVERY)
    ahead = np.minimum(at[:, None] + np.arange(ROWS), len(driven) - 1)
    left = np.maximum(took - at, 0)
    worth = DISCOUNT**left * success
    return {
        "driver.chunk": np.array(driven, np.float32)[ahead],
        "outcome": worth.astype(np.float32)[:, None],
    }


def _record(arm: Arm, seen: Observation, committed: np.ndarray) -> dict[str, np.ndarray]:
    world, chunk = arm.world, label(arm, committed)
    return {
        "observation.state": seen.state,
        **{f"observation.images.{c}": seen.frames[c] for c in CAMERAS},
        "action": chunk[0],
        "expert.chunk": chunk,
        "expert.committed": np.array([len(committed)], np.int64),
        "task.done": np.array([world.success()], np.float32),
        **privileged(world),
    }


def privileged(world: World) -> dict[str, np.ndarray]:
    """What the simulator alone knows: of the roles (ROLES) which are there, where they are and are seen
    (`World.project`), and what the words mean.
    """
    assert world.task is not None
    named = [world.named(role) for role in ROLES]
    at = [np.zeros(3) if p is None else p for p in named[:2]]
    pixels = [[np.zeros(3) if p is None else world.project(c, p) for p in named] for c in CAMERAS]
    return {
        "privileged.present": np.array([p is not None for p in named], np.float32),
        "privileged.positions": np.concatenate(at).astype(np.float32),
        "privileged.pixels": np.array(pixels, np.float32).reshape(-1),
        "privileged.meaning": np.array(classes(world.task), np.int64),
    }


class ExpertDriver:
    """The expert, which commits to nothing."""

    def __call__(self, world: World, seen: Observation) -> Drive:
        return lambda tick, time: expert.act(world)

    def committed(self) -> np.ndarray:
        return np.zeros((0, 6))


class PolicyDriver:
    """A policy drives, asked now and then; at times the expert takes over for a while.

    Each episode has a latency of its own, in rows: so late the answers come, and what runs until then is
    told to the policy as committed.
    """

    def __init__(self, policy: Policy, rng: np.random.Generator, share: float, latency: int = 0) -> None:
        """`share` of stretches is the expert's; `latency` is the largest of an episode, in rows."""
        self.policy, self.rng, self.share = policy, rng, share
        self.latency = int(rng.integers(latency + 1)) if latency else 0
        self.late = latency > 0
        self._expert = ExpertDriver()
        self._running: ActionChunk | None = None  # None: the expert drives
        self._next: ActionChunk | None = None  # the answer under way
        self._due = self._left = 0  # rows until it is there; rows until the next request
        self._time = 0.0

    def __call__(self, world: World, seen: Observation) -> Drive:
        self._time = seen.time
        if self._next is None and self._left <= 0:
            self._ask(seen)
        if self._next is not None and self._due <= 0:
            self._running, self._next = self._next, None
        self._due, self._left = self._due - 1, self._left - 1
        chunk = self._running
        if chunk is None:
            return self._expert(world, seen)
        return lambda tick, time: row_at(chunk, time)

    def committed(self) -> np.ndarray:
        """Of the running plan as many rows as chance wills, none in a third of the cases."""
        if not self.late or self._running is None or self.rng.random() < 1 / 3:
            return np.zeros((0, 6))
        return self._rows(int(self.rng.integers(1, MOST_COMMITTED + 1)))

    def _ask(self, seen: Observation) -> None:
        # Other horizons than the deployed one, so that older rows are corrected as well.
        self._left = int(self.rng.choice([1, 2, 2, 3, 4]))
        self._due = 0
        if self.rng.random() < self.share:
            self._running = None
            return
        late = max(0, self.latency - int(self.rng.integers(2))) if self._running is not None else 0
        prefix = None
        if late and len(rows := self._rows(late + 1)):
            actions = np.repeat(rows[-1:], ROWS, axis=0)
            actions[: len(rows)] = rows
            prefix = Prefix(actions.astype(np.float32), flow.hard(ROWS, len(rows)))
        self._next, self._due = self.policy.infer(seen, prefix), late

    def _rows(self, count: int) -> np.ndarray:
        """The next rows of the running plan, shape (at most count, 6) [rad]."""
        assert self._running is not None
        rows = (self._running.at(self._time + i * DT, ABSOLUTE) for i in range(count))
        return np.array([row for row in rows if row is not None]).reshape(-1, 6)


def row_at(chunk: ActionChunk, time: float) -> np.ndarray:
    """The chunk's row for `time` (s), its last one after its end, shape (6,) [rad]."""
    row = chunk.at(time, ABSOLUTE)
    return chunk.actions[-1] if row is None else row
