"""The tabletop behind emulated servos (entry point `takt.plants`): the real driver moves the simulated arm.

The messages are those of `robot_io/plants.py`, which starts this as a process of its own; neither imports the
other. Physics follows the machine's clock.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import msgpack
import numpy as np
import zmq

from sim.tabletop import tasks
from sim.tabletop.arm import FORCE
from sim.tabletop.scene import TIMESTEP
from sim.tabletop.world import CAMERAS, SIZE, World

RATE = 15.0  # pictures a second
_LONGEST = 0.25  # s of physics caught up at once; a longer stall loses time
_AWAY = 1  # ms to wait for news


def serve(folder: Path) -> None:
    """Be the plant until the process ends. The table is that of seed 0."""
    world = World()
    world.reset(*tasks.draw(np.random.default_rng(0)))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    state, eyes = context.socket(zmq.PAIR), context.socket(zmq.PUB)
    for socket, name in ((state, "plant"), (eyes, "frames")):
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 4)
        socket.bind(f"ipc://{folder / name}")
    at, seen = time.monotonic(), 0.0
    while True:
        asked = state.poll(_AWAY)
        while state.poll(0):
            targets = msgpack.unpackb(state.recv())[1]
            if targets:
                world.command(np.array(targets))
        now = time.monotonic()
        at = max(at, now - _LONGEST)
        if (steps := int((now - at) / TIMESTEP)) > 0:
            world.advance(steps)
            at += steps * TIMESTEP
        if asked:
            with suppress(zmq.Again):  # nobody takes them: the next ones are newer
                state.send(msgpack.packb([now, *told(world)]), zmq.NOBLOCK)
        if now - seen > 1.0 / RATE:
            seen = now
            eyes.send(msgpack.packb({name: [SIZE, SIZE, world.frame(name).tobytes()] for name in CAMERAS}))


def told(world: World) -> list[list[float]]:
    """Joints [rad], velocities [rad/s], loads as parts of what a servo can give; each shape (6,)."""
    model, data = world.model, world.data
    speeds = data.qvel[model.jnt_dofadr[model.actuator_trnid[:, 0]]]
    loads = np.clip(data.actuator_force / FORCE, -1.0, 1.0)
    return [world.joints().astype(float).tolist(), speeds.tolist(), loads.tolist()]
