"""Our side: a host process (host.py) in another Python environment, and what is asked of it."""

from __future__ import annotations

import ctypes.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from runtime import messages
from runtime.foreign import Foreign, line
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
        # Threads of a simulator's libraries would only take the cores of the other workers.
        settings = {"MUJOCO_GL": _gl(), **dict.fromkeys(THREADS, "1"), "LP_NUM_THREADS": "0"}
        self._process = Foreign(python, HOST, [str(path), json.dumps(options)], settings)
        self._link = self._process.link
        self._link.settimeout(START)
        try:
            ready, _ = self._receive()
        except HostError:
            self.close()
            raise
        if "error" in ready:
            self.close()
            raise TaktError(f"{python} cannot build the simulator: {line(ready['error'])}")
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
            raise HostError(line(answer["error"]))
        return answer, given

    def close(self) -> None:
        """End the process and reap it; a second call does nothing."""
        self._process.close()

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
        return HostError(f"the simulator's process {self._process.ended()}")


def _gl() -> str:
    """What MuJoCo renders with where nobody has said it; as in sim/gl.py."""
    return os.environ.get("MUJOCO_GL") or ("egl" if ctypes.util.find_library("EGL") else "osmesa")
