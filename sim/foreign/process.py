"""Our side: a host process (host.py) in another Python environment, and what is asked of it."""

from __future__ import annotations

import ctypes.util
import json
import os
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from runtime.spawn import stop
from sim.foreign import messages
from vla.contract import TaktError

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HOST = Path(__file__).with_name("host.py")
WORLDS = Path(__file__).parent / "worlds"
START = 180.0  # s to import a simulator and build it; the machine's time, as a host that hangs has no other
ANSWER = 300.0  # s to answer


class HostError(RuntimeError):
    """The simulator raised, or its process died: an error of the episode that was played."""


class Host:
    """A simulator's process.

    Attributes:
        versions: of its Python and of its packages.
        pid: of the process.
    """

    def __init__(self, python: str | Path, world: str | Path, options: dict[str, Any]) -> None:
        """Start it and wait until it is built.

        Args:
            python: the interpreter of the environment.
            world: a file with a class `World`, or the name of one of ours (sim/foreign/worlds).
            options: what the class is made with; JSON.

        Raises:
            TaktError: there is no such interpreter, or the simulator cannot be built there.
            HostError: the process died before it could say why.
        """
        path = world if isinstance(world, Path) else WORLDS / f"{world}.py"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        self._link, theirs = socket.socketpair()
        command = [str(python), "-u", str(HOST), str(theirs.fileno()), str(os.getpid()), str(path)]
        # Threads of a simulator's libraries would only take the cores of the other workers.
        settings = {"MUJOCO_GL": _gl(), **dict.fromkeys(THREADS, "1"), "LP_NUM_THREADS": "0"}
        try:
            self._process = subprocess.Popen(
                [*command, json.dumps(options)], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                pass_fds=[theirs.fileno()], env={**settings, **os.environ}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._link.close()
            self._log.close()
            raise TaktError(f"cannot run {python}: {error.strerror}") from None
        finally:
            theirs.close()
        self._link.settimeout(START)
        try:
            ready, _ = self._receive()
        except HostError:
            self.close()
            raise
        if "error" in ready:
            self.close()
            raise TaktError(f"{python} cannot build the simulator: {_line(ready['error'])}")
        self.versions: dict[str, str] = ready["versions"]
        self._link.settimeout(ANSWER)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, arrays: dict[str, np.ndarray] | None = None, **fields: Any) -> tuple[dict, dict]:
        """(fields, arrays) of its answer.

        Raises:
            HostError: the simulator raised, or its process died.
        """
        try:
            messages.send(self._link, {"do": do, **fields}, arrays)
        except messages.Closed:
            raise self._died() from None
        answer, given = self._receive()
        if "error" in answer:
            raise HostError(_line(answer["error"]))
        return answer, given

    def close(self) -> None:
        """End the process and reap it; a second call does nothing."""
        self._link.close()
        stop(self._process)
        self._log.close()

    def _receive(self) -> tuple[dict, dict]:
        try:
            return messages.receive(self._link)
        except messages.Closed:
            raise self._died() from None
        except messages.Broken as error:
            raise HostError(f"the simulator's process sent {error}") from None
        except TimeoutError:
            raise HostError(f"the simulator's process was silent for {self._link.gettimeout():g} s") from None

    def _died(self) -> HostError:
        try:
            status = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            return HostError("the simulator's process closed its socket")
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        return HostError(f"the simulator's process died ({how}): {_line(lines[-1]) if lines else 'no word'}")


def _gl() -> str:
    """What MuJoCo renders with where nobody has said it; as in sim/gl.py."""
    return os.environ.get("MUJOCO_GL") or ("egl" if ctypes.util.find_library("EGL") else "osmesa")


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
