"""A plant behind emulated servos: a process of its own that knows how joints move and what is seen.

A package offers one by name (entry points `takt.plants`): a function `serve(folder)` that binds two sockets

    FOLDER/plant     PAIR: gets [time, joint targets, strengths], rad, parts of the torque that servos may
                     give, or [time, [], []] to ask and change nothing; answers
                     [time, joints, velocities, loads], rad, rad/s, parts of the torque from -1 to 1
    FOLDER/frames    PUB: {camera: [height, width, bytes, time]}, uint8 RGB and when it was taken, s on the
                     machine's monotonic clock, whenever there are new ones

and lasts as long as its parent. It may have a third, FOLDER/world, for who lays the table and asks whether a
task is done: `sim/plant.py`. All messages are msgpack, the six joints in the order of the chain. Nobody waits
for anybody: whoever has news sends them, and the newest count.

    python -m robot_io.plants NAME FOLDER --parent PID
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import msgpack
import zmq

from robot_io.calibration import Calibration, Joint
from robot_io.emulated_line import Line
from robot_io.registers import RAD
from runtime.child import follow
from vla.contract import TaktError

STATE, FRAMES, WORLD = "plant", "frames", "world"
WAIT = 30.0  # s until it answers


def address(folder: Path, what: str) -> str:
    return f"ipc://{folder / what}"


class Plant:
    """The servos' end."""

    def __init__(self, name: str, folder: Path) -> None:
        """Start it; it answers when it is ready."""
        known = {entry.name for entry in entry_points(group="takt.plants")}
        if name not in known:
            raise TaktError(f"no plant {name!r}; valid: {', '.join(sorted(known)) or 'none is installed'}")
        command = [sys.executable, "-m", "robot_io.plants", name, str(folder), "--parent", str(os.getpid())]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._socket = _socket(zmq.PAIR, 4)
        self._socket.connect(address(folder, STATE))

    def exchange(
        self, now: float, targets: Sequence[float], strengths: Sequence[float] = ()
    ) -> list[list[float]] | None:
        """Send where the joints are to go, and how hard; the newest joints, velocities and loads, or None."""
        with contextlib.suppress(zmq.Again):  # it is busy: what it gets next is newer
            self._socket.send(msgpack.packb([now, list(targets), list(strengths)]), zmq.NOBLOCK)
        newest = None
        try:
            while True:
                newest = msgpack.unpackb(self._socket.recv(zmq.NOBLOCK))[1:]
        except zmq.Again:
            return newest


class Lead:
    """Lets a plant move the shafts: targets there, joints back, in rad."""

    def __init__(self, name: str, folder: Path, arm: Calibration) -> None:
        self._plant = Plant(name, folder)
        self._arm = [(Joint.of(joint, m), m.homing_offset) for joint, m in arm.items()]
        self._news: list[list[float]] = []
        end = time.monotonic() + WAIT
        while not self._news:
            self._news = self._plant.exchange(time.monotonic(), ()) or self._news
            if self._plant.child.poll() == 1:
                sys.exit(1)  # it has said why
            if self._plant.child.poll() is not None or time.monotonic() > end:
                raise TaktError(f"the plant {name!r} did not start")
            time.sleep(0.01)

    def __call__(self, line: Line, now: float) -> None:
        pairs = list(zip(line.servos, self._arm, strict=True))
        targets = [joint.angle(servo.aim() - offset) for servo, (joint, offset) in pairs if servo.led]
        strengths = [servo.strength() for servo in line.servos if servo.led]
        self._news = self._plant.exchange(now, targets, strengths) or self._news
        if self._plant.child.poll() is not None:
            raise TaktError("the plant behind the servos has ended")
        for (servo, (joint, offset)), at, speed, load in zip(pairs, *self._news, strict=True):
            turn = joint.sign / RAD
            servo.lead(joint.zero + turn * at + offset, turn * speed, joint.sign * load)
            if not servo.led:
                servo.led = True
                servo.power_up(now)  # its goal is where it finds itself


def _socket(kind: int, queue: int) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, queue)
    socket.setsockopt(zmq.RCVHWM, 64)
    return socket


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m robot_io.plants")
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int)
    args = parser.parse_args()
    if args.parent is not None:
        follow(args.parent)
    # By name, and not the one there is: a checkout's own metadata may stand beside the installed one's.
    found = {entry.name: entry for entry in entry_points(group="takt.plants")}
    try:
        found[args.name].load()(args.folder)
    except ModuleNotFoundError as error:
        what = f"the plant {args.name!r} needs {error.name}"
        print(f"takt: {what}: pip install 'takt-vla[sim]'", file=sys.stderr)
        return 1
    except TaktError as error:
        print(f"takt: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
