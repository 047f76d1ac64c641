"""Recorders by the dozen: one process that has imported all they need, and forks one when it is asked to.

Each is a process of its own, with its own pipe and memory, that runs what `python -m runtime.record_process`
runs; only the second of imports before that is shared.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

from runtime.recorder import Recorder
from tests.runtime.peers import until

ROOT = Path(__file__).parents[2]


class Child:
    """What a Recorder asks of its process."""

    def __init__(self, pid: int, stdin: BinaryIO) -> None:
        self.pid, self.stdin = pid, stdin
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return 0 if self._over(0.0) else None

    def wait(self, seconds: float) -> None:
        if not self._over(seconds):
            raise subprocess.TimeoutExpired("recorder", seconds)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _over(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(1000.0 * seconds))

    def __del__(self) -> None:  # a Recorder knows no more of its process than Popen has
        os.close(self._handle)


class Nursery:
    """The process that forks them, for as long as `with` lasts."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "nursery")

    def __enter__(self) -> Nursery:
        command = [sys.executable, "-m", "tests.runtime.nursery", self._path]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
        until(lambda: os.path.exists(self._path), "no nursery came")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(self._path)
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def fork(self, flags: list[str], memory: int) -> Child:
        """A recorder with these flags; `memory` is the descriptor that one of them names."""
        there, here = os.pipe()
        flags = ["MEMORY" if flag == str(memory) else flag for flag in flags]
        socket.send_fds(self._socket, ["\0".join(flags).encode()], [there, memory])
        os.close(there)
        return Child(int(self._socket.recv(64)), os.fdopen(here, "wb", buffering=0))

    def recorder(self, *args: Any, **options: Any) -> Recorder:
        """A Recorder whose process comes from here."""
        nursery = self

        class Forked(Recorder):
            def _spawn(self, flags: list[str]) -> Any:
                return nursery.fork(flags, self._slots.handle)

        return Forked(*args, **options)


def serve(path: str) -> None:
    from runtime import record_process  # what takes a second

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the kernel clears them away
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path + ".new")
    listener.listen()
    os.rename(path + ".new", path)
    peer, _ = listener.accept()
    while True:
        message, handles, _, _ = socket.recv_fds(peer, 65536, 2)
        if not message:
            return
        child = os.fork()
        if not child:
            os.dup2(handles[0], 0)
            flags = message.decode().split("\0")
            sys.argv = ["recorder", *(str(handles[1]) if flag == "MEMORY" else flag for flag in flags)]
            peer.close()
            listener.close()
            os.close(handles[0])
            os._exit(record_process.main())
        for handle in handles:
            os.close(handle)
        peer.send(str(child).encode())


if __name__ == "__main__":
    serve(sys.argv[1])
