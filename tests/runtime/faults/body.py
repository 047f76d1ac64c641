"""A body in a process of its own, which outlives who commands it and remembers what it was told.

control process   Arm (a Robot)  --- SEQPACKET at FOLDER/socket --->  body process, FOLDER/log
test              Body                   (looks without being logged)

b"r"              -> time, joints          read
b"w" 6 doubles    logged: a command
b"n" note         logged: "enter", "safing" and "safe" of `with robot`
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime import so101
from tests.runtime.peers import until
from vla.contract import Observation, RobotSpec

ROOT = Path(__file__).parents[3]
SPEC: RobotSpec = so101.spec((), name="body", profile=so101.METAL)
SIZE = SPEC.actions.size
LAG = 0.03  # s, of a servo's first-order motion
FASTEST = 3.0  # rad/s; quicker than any command may be
WHERE = "TAKT_TEST_BODY"  # the folder, in the environment of who commands
SAFING = "TAKT_TEST_SAFING"  # s that leaving takes, as it does for an arm that parks
_JOINTS = struct.Struct(f"<{SIZE}d")
_STATE = struct.Struct(f"<{SIZE + 1}d")


def moved(gap: float, seconds: float) -> float:
    """What is left of a gap (rad) after first-order motion at limited speed."""
    left = abs(gap)
    rush = min(seconds, max(0.0, (left - FASTEST * LAG) / FASTEST))
    left -= FASTEST * rush
    return math.copysign(left * math.exp(-(seconds - rush) / LAG), gap)


class Servos:
    """Six joints on their way to the last goal."""

    def __init__(self, now: float) -> None:
        self.joints, self.goal, self.time = [0.0] * SIZE, [0.0] * SIZE, now

    def move(self, now: float) -> None:
        pairs = zip(self.joints, self.goal, strict=True)
        self.joints = [g - moved(g - j, now - self.time) for j, g in pairs]
        self.time = now


def serve(folder: Path) -> None:
    """Be the body until standard input ends, as it does with the test."""
    servos = Servos(time.monotonic())
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        selectors.DefaultSelector() as ready,
        open(folder / "log", "w", buffering=1) as log,
    ):
        listener.bind(str(folder / "socket"))
        listener.listen()
        ready.register(listener, selectors.EVENT_READ)
        ready.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    ready.register(listener.accept()[0], selectors.EVENT_READ)
                elif not hear(servos, key.fileobj, log):  # type: ignore[arg-type]
                    ready.unregister(key.fileobj)


def hear(servos: Servos, peer: socket.socket, log: object) -> bool:
    """One message; False when the peer is gone."""
    try:
        data = peer.recv(256)
    except ConnectionError:
        data = b""
    if not data:
        peer.close()
        return False
    servos.move(time.monotonic())
    kind, content = data[:1], data[1:]
    if kind == b"r":
        with contextlib.suppress(ConnectionError):
            peer.send(_STATE.pack(servos.time, *servos.joints))
        return True
    note = "goal"
    if kind == b"w":
        servos.goal = list(_JOINTS.unpack(content))
    else:
        note = content.decode()
    numbers = " ".join(map(repr, [servos.time, *servos.goal, *servos.joints]))
    print(note, numbers, file=log)  # type: ignore[call-overload]
    return True


class Arm:
    """The body as a `Robot`."""

    def __init__(self, folder: Path, safing: float = 0.0) -> None:
        self._folder, self._safing = folder, safing

    @property
    def spec(self) -> RobotSpec:
        return SPEC

    def read(self) -> Observation:
        self._socket.send(b"r")
        seen, *joints = _STATE.unpack(self._socket.recv(256))
        return Observation(seen, np.array(joints, np.float32))

    def write(self, command: np.ndarray) -> None:
        self._socket.send(b"w" + _JOINTS.pack(*command))

    def __enter__(self) -> Arm:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(self._folder / "socket"))
        self._socket.send(b"nenter")
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.send(b"nsafing")
        time.sleep(self._safing)
        self._socket.send(b"nsafe")
        self._socket.close()


def make() -> Arm:
    """The robot `body`, as an entry point of `takt.robots`."""
    return Arm(Path(os.environ[WHERE]), float(os.environ.get(SAFING, "0")))


@dataclass(frozen=True)
class Entry:
    """What reached the body: a goal or a note; when, s; the goal and the joints then, shape (6,), rad."""

    kind: str
    time: float
    goal: np.ndarray
    joints: np.ndarray


class Body:
    """A test's view of a body."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log(self) -> list[Entry]:
        """Everything until now, oldest first."""
        lines = (self.folder / "log").read_text().splitlines(keepends=True)
        rows = [line.split() for line in lines if line.endswith("\n")]
        numbers = [(kind, float(t), np.array(n, float)) for kind, t, *n in rows]
        return [Entry(kind, t, n[:SIZE], n[SIZE:]) for kind, t, n in numbers]

    def goals(self) -> np.ndarray:
        """The commands, shape (N, 6), rad."""
        return np.array([e.goal for e in self.log() if e.kind == "goal"]).reshape(-1, SIZE)

    def notes(self) -> list[str]:
        return [e.kind for e in self.log() if e.kind != "goal"]

    def joints(self) -> np.ndarray:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(str(self.folder / "socket"))
            peer.send(b"r")
            return np.array(_STATE.unpack(peer.recv(256))[1:])

    def settled(self) -> bool:
        """Whether it stands at its last goal."""
        return bool(np.abs(self.joints() - self.log()[-1].goal).max() < 1e-3)


@contextlib.contextmanager
def body(folder: Path) -> Iterator[Body]:
    """A body's process; `folder` is empty, and its path short, as those of sockets are."""
    command = [sys.executable, "-m", "tests.runtime.faults.body", str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    try:
        until(lambda: (folder / "socket").exists() and (folder / "log").exists(), "no body came")
        yield Body(folder)
        assert process.poll() is None, "the body has died"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
