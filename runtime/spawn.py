"""A policy server as a child process, so that inference never shares an interpreter with the control loop."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from runtime.child import stop
from runtime.client import RemotePolicy
from vla.contract import TaktError

_PIECE = 0.2  # s between looks at whether a starting child still lives


@contextmanager
def spawn(
    policy: str | Path,
    bind: str | None = None,
    threads: int = 1,
    timeout: float = 60.0,
    engine: str | None = None,
    think: str | None = None,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server for `policy`; yields (address, process) once it answers, and leaves no process behind.

    Args:
        policy: a bundle's folder, or a name as `takt serve` takes it.
        bind: where it listens; a socket in a new private folder by default.
        timeout: s to wait for its first answer.
        engine: what runs a bundle (runtime/engines.py); None for the server's default.
        think: candidates and their judge (runtime/think.py); None for the bundle's own.

    Raises:
        TaktError: the server's own last line when it ends, or that it does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="takt-") as folder, open(Path(folder, "log"), "w+b") as log:
        address = bind or f"ipc://{folder}/policy"
        child = _start(str(policy), address, threads, engine, think, log)
        try:
            _await(child, address, timeout, log)
            yield address, child
            if child.poll() is not None:
                print(
                    f"takt: the policy server ended: {_last_line(log) or child.returncode}", file=sys.stderr
                )
        finally:
            stop(child)


def _start(
    policy: str, address: str, threads: int, engine: str | None, think: str | None, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vla", "serve", policy, "--bind", address]
    command += ["--threads", str(threads), "--parent", str(os.getpid())]
    command += [] if engine is None else ["--engine", engine]
    command += [] if think is None else ["--think", think]
    # A session of its own: Ctrl-C in the terminal reaches the control loop alone, which then ends the
    # child when the robot is safe.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _await(child: subprocess.Popen[bytes], address: str, timeout: float, log: IO[bytes]) -> None:
    end = time.monotonic() + timeout
    while True:
        if child.poll() is not None:
            raise TaktError(_last_line(log) or f"the policy server ended with status {child.returncode}")
        try:
            RemotePolicy(address, timeout=_PIECE).close()
            return
        except TaktError:
            if time.monotonic() >= end:
                raise TaktError(f"the policy server did not answer within {timeout:g} s") from None


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("takt: ") if lines else ""
