"""The recorder's own process: takes ticks from a socket and writes journals.

    python -m runtime.record_process JOURNALS SOCKET --queue N --memory FD

One PAIR socket, msgpack maps; frames are in memory that the two processes share (`runtime.slots`).

    here comes   {"do": "begin", "meta": {...}, "slots": n}   -> {"begun": number}
                 {"do": "tick", ..., "slot": i}      -> {"free": i}, where it had new frames
                 {"do": "end", "ended": why, "dropped": n, "success": yes or no or None}
                                                     -> {"ended": {...}}, see `journal.Commit`
    and goes     {"ready": {episode: {...}}}         at first, with what a recorder before had left behind
                 {"durable": rows}                   after every sync
                 {"failed": why}                     it cannot record; the episode keeps what is on the disk

Standard input is a pipe that its owner holds: when that ends, whatever the owner died of, the open episode
is completed with what has come.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import msgpack
import numpy as np
import zmq

from runtime import journal
from runtime.journal import Commit, Meta
from runtime.journal_writer import Episode, Row
from runtime.slots import Slots
from vla.contract import TaktError

_PIECE = 50  # ms between looks at whether it is time to sync


class Recording:
    """Episodes one after the other, and what is told of them."""

    def __init__(self, root: Path, socket: zmq.Socket[bytes], slots: Slots) -> None:
        self._root, self._socket, self._slots = root, socket, slots
        self._episode: Episode | None = None
        self._cut: tuple[Path, Commit] | None = None  # what a disk that could take no more left of one
        self._synced = 0.0

    def hear(self, message: bytes) -> None:
        """One message."""
        told = msgpack.unpackb(message)
        if told["do"] == "begin":
            self._begin(Meta.from_json(told["meta"]), told["slots"])
        elif told["do"] == "tick":
            if self._episode is not None:
                self._tick(self._episode, told)
            if told["frames"]:
                self._tell({"free": told["slot"]})
        elif told["do"] == "end":
            self._end(told["ended"], told["dropped"], told["success"])

    def sync(self) -> None:
        """Put what has come on the disk, if it is time to."""
        now = time.monotonic()
        if self._episode is None or now - self._synced < journal.SYNC:
            return
        try:
            before, durable = self._episode.durable, self._episode.sync()
        except (OSError, av.FFmpegError) as error:
            self._give_up(self._episode, error)
            return
        self._synced = time.monotonic()
        if durable != before:
            self._tell({"durable": durable})

    def leave(self) -> None:
        """The owner is gone: complete what is open."""
        if self._episode is not None:
            self._end("the control process ended", 0, None)

    def _begin(self, meta: Meta, slots: int) -> None:
        self._cut = None
        self._slots.lay_out({c.name: (c.height, c.width, 3) for c in meta.cameras}, slots, fresh=False)
        try:
            self._episode = Episode(self._root, meta)
        except (OSError, TaktError) as error:
            self._tell({"failed": reason(error)})
            return
        self._synced = time.monotonic()
        self._tell({"begun": int(self._episode.folder.name)})

    def _tick(self, episode: Episode, told: dict[str, Any]) -> None:
        row = Row(
            told["tick"],
            told["time"],
            told["seen"],
            np.frombuffer(told["state"], np.float32),
            None if told["target"] is None else np.frombuffer(told["target"]),
            np.frombuffer(told["command"]),
            told["mode"],
            tuple(told["verdicts"]),
            told["captured"],
        )
        frames = {camera: self._slots[told["slot"]][camera] for camera in told["frames"]}
        try:
            episode.put(row, frames)
        except (OSError, av.FFmpegError) as error:
            self._give_up(episode, error)

    def _end(self, ended: str, dropped: int, success: bool | None) -> None:
        episode, self._episode = self._episode, None
        try:
            if episode is not None:
                try:
                    commit = episode.end(ended, dropped, success)
                except (OSError, av.FFmpegError) as error:
                    self._tell({"failed": reason(error)})
                    commit = episode.give_up(reason(error), dropped, success)
            elif self._cut is not None:
                folder, cut = self._cut
                commit = Commit(cut.rows, cut.frames, cut.dropped + dropped, cut.ended, success, True)
                journal.write_commit(folder, commit)
            else:
                return
        except OSError as error:
            # Not even the marker: what is there is found by `journal.recover`.
            self._tell({"failed": reason(error), "open": True})
            return
        self._tell({"ended": asdict(commit)})

    def _give_up(self, episode: Episode, error: Exception) -> None:
        self._episode = None
        why = reason(error)
        self._tell({"failed": why})
        with contextlib.suppress(OSError):  # `journal.recover` finds it
            self._cut = episode.folder, episode.give_up(why)

    def _tell(self, what: dict[str, Any]) -> None:
        with contextlib.suppress(zmq.Again):  # nobody listens
            self._socket.send(msgpack.packb(what), zmq.NOBLOCK)


def reason(error: Exception) -> str:
    """Why nothing can be written, in words."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "the disk is full"
    return f"{error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m runtime.record_process")
    parser.add_argument("root", type=Path)
    parser.add_argument("address")
    parser.add_argument("--queue", type=int, required=True, help="ticks that may wait")
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the frames' memory")
    args = parser.parse_args()
    # Whoever stops its owner stops it too, when the robot is safe: by the pipe, not by the terminal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    socket.setsockopt(zmq.LINGER, 1000)
    socket.setsockopt(zmq.RCVHWM, args.queue)
    socket.connect(args.address)
    try:
        args.root.mkdir(parents=True, exist_ok=True)
        found = {name: asdict(commit) for name, commit in journal.recover(args.root).items()}
    except (OSError, TaktError) as error:
        socket.send(msgpack.packb({"failed": f"{args.root}: {reason(error)}"}))
        return 1
    socket.send(msgpack.packb({"ready": found}))
    _serve(Recording(args.root, socket, Slots(args.memory)), socket)
    return 0


def _serve(recording: Recording, socket: zmq.Socket[bytes]) -> None:
    owner = sys.stdin.fileno()
    os.set_blocking(owner, False)
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(owner, zmq.POLLIN)
    while True:
        ready = dict(poller.poll(_PIECE))
        while socket.poll(0):
            recording.hear(socket.recv())
            recording.sync()
        recording.sync()
        if owner in ready:  # nothing ever comes from there but its end, and all that came before is heard
            recording.leave()
            return


if __name__ == "__main__":
    sys.exit(main())
