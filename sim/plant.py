"""The tabletop behind emulated servos (entry point `takt.plants`): the real driver moves the simulated arm.

The messages are those of `robot_io/plants.py`, which starts this as a process of its own; neither imports the
other. Physics follows the machine's clock. A third socket tells what nobody behind a camera can know:

    FOLDER/world     REP: {"lay": seed, "split": "seen"} lays the table and the arm as that episode of the
                     suite has them, and answers {"instruction", "task", "seconds", "joints"}; goals count
                     again when servos were renewed. {} asks alone. Every answer has "reached" and "since",
                     whether the task was done and stayed so, and since when, s on the machine's monotonic
                     clock; and "lost", s of physics left out because the machine was too slow.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

from sim.play import Goal
from sim.tabletop import tasks
from sim.tabletop.arm import FORCE
from sim.tabletop.scene import TIMESTEP
from sim.tabletop.suite import SPLITS, SUITE, Scenario
from sim.tabletop.world import CAMERAS, SIZE, World

RATE = 30.0  # pictures a second, and looks whether the task is done
_LONGEST = 0.25  # s of physics caught up at once; a longer stall loses time
_THERE = 0.05  # rad; goals no further from a table's arm are for that table
_AWAY = 1  # ms to wait for news


class Table:
    """The world, and what was asked of it.

    Attributes:
        world: as it is now. held: whether goals are not for this table yet.
        lost: s that physics has fallen behind the clock and will not catch up.
    """

    def __init__(self, now: float) -> None:
        self.world = World()
        self.lay(tasks.EXAMPLE, "seen", now)
        self.held = False

    def lay(self, seed: int, split: str, now: float) -> Scenario:
        """The table and the arm of an episode of the suite; the arm stays until servos want it there."""
        self.scenario: Scenario = SUITE.scenarios(seed, split, False)[0]
        self.world.reset(self.scenario.layout, self.scenario.asked)
        self.held, self.at, self.lost = True, now, 0.0
        self.since: float | None = None
        self._goal = Goal(self.scenario, self.world, self.scenario.settle, now, np.inf)
        return self.scenario

    def command(self, targets: list[float], strengths: list[float]) -> None:
        """Where servos want their joints, rad, and what part of their torque they may give for it; nothing
        from servos that have yet to learn where these are.
        """
        if not targets:
            return
        # Servos of before go on wanting the pose of before; any of these messages may be lost.
        if self.held and np.abs(self.world.joints() - targets).max() > _THERE:
            return
        self.held = False
        self.world.command(np.array(targets))
        self.world.model.actuator_forcerange[:] = FORCE * np.outer(strengths, (-1.0, 1.0))

    def advance(self, now: float) -> None:
        """Move on to `now`, s."""
        behind = max(0.0, now - _LONGEST - self.at)
        self.lost, self.at = self.lost + behind, self.at + behind
        if (steps := int((now - self.at) / TIMESTEP)) > 0:
            self.world.advance(steps)
            self.at += steps * TIMESTEP

    def judge(self) -> None:
        """Note when the task was done, once that has lasted."""
        if self.since is None and self._goal(self.at):
            self.since = self._goal.since

    def pictures(self) -> dict[str, list[Any]]:
        return {name: [SIZE, SIZE, self.world.frame(name).tobytes(), self.at] for name in CAMERAS}

    def told(self, order: dict[str, Any], now: float) -> dict[str, Any]:
        """The answer to one order at the third socket."""
        answer: dict[str, Any] = {}
        if "lay" in order:
            if order.get("split", "seen") not in SPLITS:
                return {"error": f"no split {order['split']!r}; valid: {', '.join(SPLITS)}"}
            laid = self.lay(int(order["lay"]), order.get("split", "seen"), now)
            answer = {"instruction": laid.instruction, "task": laid.task, "seconds": laid.seconds}
            answer["joints"] = self.world.joints().astype(float).tolist()
        return answer | {"reached": self.since is not None, "since": self.since, "lost": self.lost}


def serve(folder: Path) -> None:
    """Be the plant until the process ends. The table is that of seed 0 until another is laid."""
    table = Table(time.monotonic())
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    state, eyes, asked = context.socket(zmq.PAIR), context.socket(zmq.PUB), context.socket(zmq.REP)
    for socket, name in ((state, "plant"), (eyes, "frames"), (asked, "world")):
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 4)
        socket.bind(f"ipc://{folder / name}")
    seen = 0.0
    while True:
        news = state.poll(_AWAY)
        while state.poll(0):
            table.command(*msgpack.unpackb(state.recv())[1:])
        now = time.monotonic()
        table.advance(now)
        if news:
            with suppress(zmq.Again):  # nobody takes them: the next ones are newer
                state.send(msgpack.packb([now, *told(table.world)]), zmq.NOBLOCK)
        if asked.poll(0):
            asked.send(msgpack.packb(table.told(msgpack.unpackb(asked.recv()), now)))
        if now - seen >= 1.0 / RATE:
            # On a grid of its own, so that being late once does not make it late for ever.
            seen = now - min((now - seen) % (1.0 / RATE), 0.5 / RATE)
            table.judge()
            eyes.send(msgpack.packb(table.pictures()))


def told(world: World) -> list[list[float]]:
    """Joints [rad], velocities [rad/s], loads as parts of what a servo can give; each shape (6,)."""
    model, data = world.model, world.data
    speeds = data.qvel[model.jnt_dofadr[model.actuator_trnid[:, 0]]]
    loads = np.clip(data.actuator_force / FORCE, -1.0, 1.0)
    return [world.joints().astype(float).tolist(), speeds.tolist(), loads.tolist()]
