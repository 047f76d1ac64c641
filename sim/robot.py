"""The tabletop's arm behind the `Robot` seam: MuJoCo instead of metal, the rest of the loop unchanged.

Physics follows the clock: each read first advances the world to the present under the last
command. With a simulated clock that is lockstep; with the machine's clock it is real time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from runtime import so101
from runtime.clock import Clock, MonotonicClock
from sim.gl import mujoco
from sim.tabletop import tasks
from sim.tabletop.meaning import Task
from sim.tabletop.scene import TIMESTEP
from sim.tabletop.world import CAMERAS, SIZE, World
from vla.contract import CameraSpec, Observation, RobotSpec

_LONGEST = 0.5  # s of physics caught up in one read; a longer stall loses time instead of blocking


class Frames(Mapping[str, np.ndarray]):
    """The cameras' frames at one instant, rendered when they are looked at (most ticks nobody does)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[str, np.ndarray] = {}

    def __getitem__(self, camera: str) -> np.ndarray:
        if camera not in CAMERAS:
            raise KeyError(camera)
        if camera not in self._seen:
            self._seen[camera] = self._world.frame(camera)
        return self._seen[camera]

    def __iter__(self) -> Iterator[str]:
        return iter(CAMERAS)

    def __len__(self) -> int:
        return len(CAMERAS)


def spec() -> RobotSpec:
    """The SO-101 with the tabletop's cameras."""
    return so101.spec((CameraSpec(c, SIZE, SIZE) for c in CAMERAS), name="tabletop")


class TabletopRobot:
    """An SO-101-like arm at a table of things to take, bowls and zones.

    Attributes:
        laid: how often a table was laid, which repaints the model.
    """

    def __init__(self, world: World, clock: Clock) -> None:
        self.world, self.clock = world, clock
        self.laid = 0
        self._time: float | None = None

    @property
    def spec(self) -> RobotSpec:
        return spec()

    def reset(self, layout: tasks.Layout, task: Task) -> None:
        """Lay the table anew and ask for `task`; its time starts at the next read."""
        self.world.reset(layout, task)
        self._time = None
        self.laid += 1

    def save_model(self, path: Path) -> None:
        """For those who look at it from all sides; see `physics`."""
        mujoco.mj_saveModel(self.world.model, str(path), None)

    def physics(self) -> np.ndarray:
        """The state that belongs to the saved model, float64."""
        return self.world.save()

    def read(self) -> Observation:
        now = self.clock.now()
        if self._time is None or now - self._time > _LONGEST:
            self._time = now
        steps = round((now - self._time) / TIMESTEP)
        if steps > 0:
            self.world.advance(steps)
            self._time += steps * TIMESTEP
        return Observation(time=now, state=self.world.joints(), frames=Frames(self.world))

    def write(self, command: np.ndarray) -> None:
        self.world.command(command)

    def __enter__(self) -> TabletopRobot:
        return self

    def __exit__(self, *exc: object) -> None:
        self.world.close()


def make(seed: int | str = tasks.EXAMPLE) -> TabletopRobot:
    """The robot of the name `tabletop`: a random table, in real time."""
    robot = TabletopRobot(World(), MonotonicClock())
    robot.reset(*tasks.draw(np.random.default_rng(int(seed))))
    return robot
