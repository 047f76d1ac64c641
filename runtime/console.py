"""Consoles: processes of their own that show a run to people and carry their words to it.

A package offers one by name (entry points `takt.consoles`): a function `serve(folder, bind, token)` that
serves until it is ended, with sockets under a private folder; each message is a msgpack map in one frame:

    FOLDER/state      SUB: what is the case now, the newest counts (`runtime/view.py` says what is in it)
    FOLDER/frames     SUB: {"time": s, "frames": {camera: [height, width, bytes]}}, uint8 RGB, new ones
    FOLDER/commands   PUSH: {"n": number, "do": ...}, numbers rising; first {"do": "ready", "url": ...}, then
                      "alive" with "viewers" twice a second, and what people want
    FOLDER/stop       PUSH: {"n": number}; it passes everything, and all commands with lower numbers are void

The control process never waits for any of it: it sends the newest and forgets, and reads a bounded number of
commands a tick.

    python -m runtime.console NAME FOLDER --bind HOST:PORT [--token] --parent PID
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

from runtime.bind import loopback, readable
from runtime.child import follow, stop
from vla.contract import TaktError

STATE, FRAMES, COMMANDS, STOP = "state", "frames", "commands", "stop"
NAME = "page"  # the console that comes with this package
BIND = "127.0.0.1:8060"
LARGEST = 4096  # bytes of a command
QUEUE = 64  # commands that wait at the most
A_TICK = 8  # commands read a tick, at the most
GONE = 3.0  # s without a word after which a console counts as gone
START = 30.0  # s until it is ready
Command = dict[str, Any]


def address(folder: Path, what: str) -> str:
    return f"ipc://{folder / what}"


def check_place(bind: str, token: bool) -> None:
    """Refuse places that are none, and those that other machines reach without showing a token.

    Raises:
        TaktError: one line.
    """
    host, colon, port = bind.rpartition(":")
    if not colon:
        host, port = bind, "0"
    if not host or not port.isdecimal() or int(port) > 65535:
        raise TaktError(f"cannot serve a page at {bind!r}: give HOST or HOST:PORT")
    if not token and not loopback(host):
        raise TaktError(
            f"refusing to serve the page at {bind}: other machines could reach it and move the arm; "
            "add --token, and hand the address with the token only to those who may"
        )


class Feed:
    """The control process's end: nothing in it waits, and nothing a console does can make it.

    Attributes:
        viewers: how many people look, as the console said last.
        refused: messages left out because they were no commands.
        void: commands left out because a stop came after them.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.viewers = self.refused = self.void = 0
        self._bar = 0  # the number of the newest stop
        self._heard: float | None = None  # s; None once it is gone and that was said
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        # One frame a message: conflating keeps the last part of several.
        self._out = {what: _socket(context, zmq.PUB, folder, what) for what in (STATE, FRAMES)}
        self._in = {what: _socket(context, zmq.PULL, folder, what) for what in (COMMANDS, STOP)}

    def send(self, state: Mapping[str, Any]) -> None:
        """The newest state; whoever has not read the last one gets this in its place."""
        self._send(STATE, state)

    def show(self, seen: float, frames: Mapping[str, np.ndarray]) -> None:
        """Frames of the time `seen`, s: camera -> shape (h, w, 3), uint8 RGB."""
        rows = {n: [f.shape[0], f.shape[1], np.ascontiguousarray(f).data] for n, f in frames.items()}
        self._send(FRAMES, {"time": seen, "frames": rows})

    def _send(self, what: str, message: Mapping[str, Any]) -> None:
        with suppress(zmq.Again):
            self._out[what].send(msgpack.packb(message), zmq.NOBLOCK)

    def poll(self) -> tuple[bool, list[Command]]:
        """Whether a stop came, and commands that came after it, oldest first; at most `A_TICK` are read."""
        stopped = False
        for message in self._read(STOP):
            stopped, self._bar = True, max(self._bar, message["n"])
        commands = []
        for message in self._read(COMMANDS):
            self._heard = self._clock()
            if message.get("do") == "alive":
                viewers = message.get("viewers")
                self.viewers = viewers if isinstance(viewers, int) else 0
            elif message["n"] < self._bar:
                self.void += 1
            else:
                commands.append(message)
        return stopped, commands

    def _read(self, what: str) -> Iterator[Command]:
        for _ in range(A_TICK):
            if not readable(self._in[what]):
                return
            try:
                message = msgpack.unpackb(self._in[what].recv(zmq.NOBLOCK))
            except (zmq.Again, ValueError, msgpack.UnpackException):
                self.refused += 1
                continue
            n = message.get("n") if isinstance(message, dict) else None
            if isinstance(n, int) and not isinstance(n, bool):
                yield message
            else:
                self.refused += 1

    def gone(self) -> bool:
        """True once, when the console has not been heard for `GONE` s."""
        if self._heard is None or self._clock() - self._heard < GONE:
            return False
        self._heard, self.viewers = None, 0
        return True

    def close(self) -> None:
        for socket in (*self._out.values(), *self._in.values()):
            socket.close(linger=0)


def _socket(context: zmq.Context[Any], kind: int, folder: Path, what: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    if kind == zmq.PUB:
        socket.setsockopt(zmq.CONFLATE, 1)
    socket.setsockopt(zmq.SNDHWM, 1)
    socket.setsockopt(zmq.RCVHWM, QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, LARGEST)
    socket.bind(address(folder, what))
    return socket


@contextmanager
def opened(bind: str = BIND, token: bool = False, name: str = NAME) -> Iterator[tuple[Feed, str, Path]]:
    """Start a console; yields its feed, the address for people, and the folder both may use.

    Raises:
        TaktError: there is none of that name, the place is refused or taken, or it did not start.
    """
    check_place(bind, token)
    known = {entry.name for entry in entry_points(group="takt.consoles")}
    if name not in known:
        raise TaktError(f"no console {name!r}; valid: {', '.join(sorted(known)) or 'none is installed'}")
    with tempfile.TemporaryDirectory(prefix="takt-") as path, open(Path(path, "log"), "w+b") as log:
        folder = Path(path)
        feed = Feed(folder)
        command = [sys.executable, "-m", "runtime.console", name, path, "--bind", bind]
        command += ["--parent", str(os.getpid()), *(["--token"] if token else [])]
        # A session of its own: Ctrl-C in the terminal reaches the control loop alone.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield feed, _ready(feed, child, log), folder
        finally:
            feed.close()
            stop(child)


def _ready(feed: Feed, child: subprocess.Popen[bytes], log: Any) -> str:
    end = time.monotonic() + START
    while time.monotonic() < end:
        for command in feed.poll()[1]:
            if command.get("do") == "ready" and isinstance(command.get("url"), str):
                return command["url"]
        if child.poll() is not None:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise TaktError(lines[-1].removeprefix("takt: ") if lines else "the console ended at once")
        time.sleep(0.02)
    raise TaktError(f"the console did not start within {START:g} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m runtime.console")
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bind", default=BIND)
    parser.add_argument("--token", action="store_true")
    parser.add_argument("--parent", type=int)
    args = parser.parse_args()
    try:
        if args.parent is not None:
            follow(args.parent)
        check_place(args.bind, args.token)
        found = {entry.name: entry for entry in entry_points(group="takt.consoles")}
        found[args.name].load()(args.folder, args.bind, args.token)
    except TaktError as error:
        print(f"takt: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"takt: {error.name} is not installed: pip install 'takt-vla[console]'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
