"""Episodes on the tabletop with an expert's label on every frame.

The label of a frame is not what was done next but what the expert would do from there: the
simulator's state is saved, the expert drives a chunk's length, and the state is put back. So the
arm may be pushed about by noise, or driven by a policy (DAgger, arXiv 1011.0686), and every
frame still carries a clean target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.tabletop import expert, tasks
from sim.tabletop.world import CAMERAS, TICK_STEPS, World
from vla.contract import ActionChunk, Observation, Policy

ROW_TICKS = 3  # ticks a row of a chunk
DT = TICK_STEPS * ROW_TICKS / 240  # seconds between rows and between recorded frames
ROWS = 12  # rows a chunk
ABSOLUTE = np.ones(6, dtype=bool)

Driver = Callable[[int, float], np.ndarray]  # (tick in the episode, its time [s]) -> joint targets


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


def label(world: World) -> np.ndarray:
    """The expert's next chunk from here, shape (ROWS, 6) [rad]; the world is left as it was."""
    world.keep()
    rows = []
    for tick in range(ROWS * ROW_TICKS):
        target = expert.act(world)
        if tick % ROW_TICKS == 0:
            rows.append(target)
        world.command(target)
        world.advance(TICK_STEPS)
    world.put_back()
    return np.array(rows, np.float32)


def observe(world: World, time: float, instruction: str) -> Observation:
    frames = {camera: world.frame(camera) for camera in CAMERAS}
    return Observation(time=time, state=world.joints(), frames=frames, instruction=instruction)


def episode(
    world: World,
    layout: tasks.Layout,
    instruction: str,
    driver: Callable[[World, Observation], Driver],
    noise: Noise,
    rows: int = 60,
    after: int = 6,
) -> Episode:
    """Drive one episode and label each row.

    Args:
        driver: called at each row with the observation; what it returns is called at each tick.
        rows: the longest an episode lasts, in rows of DT seconds.
        after: rows recorded after success, where the arm leaves and rests.
    """
    world.reset(layout)
    frames: list[dict[str, np.ndarray]] = []
    done = 0
    for row in range(rows):
        seen = observe(world, row * DT, instruction)
        frames.append(_record(world, seen))
        drive = driver(world, seen)
        for tick in range(row * ROW_TICKS, (row + 1) * ROW_TICKS):
            world.command(noise(drive(tick, tick * DT / ROW_TICKS)))
            world.advance(TICK_STEPS)
        done = done + 1 if world.success() else 0
        if done > after:
            break
    return Episode({k: np.stack([f[k] for f in frames]) for k in frames[0]}, world.success())


def _record(world: World, seen: Observation) -> dict[str, np.ndarray]:
    chunk = label(world)
    named = world.named()
    pixels = np.array([[world.project(c, p) for p in named] for c in CAMERAS], np.float32)
    return {
        "observation.state": seen.state,
        **{f"observation.images.{c}": seen.frames[c] for c in CAMERAS},
        "action": chunk[0],
        "expert.chunk": chunk,
        "privileged.positions": np.concatenate(named).astype(np.float32),
        "privileged.pixels": pixels,
    }


def expert_driver(world: World, seen: Observation) -> Driver:
    return lambda tick, time: expert.act(world)


class PolicyDriver:
    """A policy drives, asked every `replan` rows; now and then the expert takes over for a while."""

    def __init__(self, policy: Policy, rng: np.random.Generator, share: float) -> None:
        self.policy, self.rng, self.share = policy, rng, share
        self._chunk: ActionChunk | None = None
        self._rows, self._by_expert = 0, False

    def __call__(self, world: World, seen: Observation) -> Driver:
        if self._rows == 0:
            # Other horizons than the deployed one, so that older rows are corrected as well.
            self._rows = int(self.rng.choice([1, 2, 2, 3, 4]))
            self._by_expert = self.rng.random() < self.share
            self._chunk = None if self._by_expert else self.policy.infer(seen)
        self._rows -= 1
        if self._chunk is None:
            return expert_driver(world, seen)
        chunk = self._chunk

        def drive(tick: int, time: float) -> np.ndarray:
            row = chunk.at(time, ABSOLUTE)
            assert row is not None
            return row

        return drive
