"""Cameras: a process each, the newest frame in shared memory, and words for what is wrong.

    with Cameras(asked) as cameras:       their processes are up, and each has shown a frame
        seen = cameras.look()             never waits: frames, when each was taken, who is blind and why

A camera that is frozen, dark, spoilt or gone hands out no new frame: what it showed last grows old, and the
guard holds. It is opened again by its process, and a process that ends is started again from here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from robot_io.camera_options import NATIVE, Asked
from robot_io.shared_frames import Counts, Reader, create
from runtime.child import stop
from runtime.watchdogs import STANDARD
from vla.contract import CameraSpec, TaktError

FIRST = 8.0  # s until a camera shows its first frame
BEGIN, LONGEST = 0.2, 3.0  # s until a process that ended is started anew: at first, and at the most
_LOOK = 0.005  # s between looks for the first frame
_SIMULATED = (96, 96)  # width and height of frames that are made of numbers


@dataclass(frozen=True)
class Looked:
    """What cameras show.

    Attributes:
        frames: camera -> its newest good frame, shape (h, w, 3), uint8 RGB.
        captured: camera -> when that was taken, s on the machine's monotonic clock.
        blind: what is wrong now, each in words that name the camera.
    """

    frames: dict[str, np.ndarray] = field(default_factory=dict)
    captured: dict[str, float] = field(default_factory=dict)
    blind: tuple[str, ...] = ()


class Camera:
    """The reader's end of one camera. Not shared between threads.

    Attributes:
        spec: its name, and the size in which its frames are handed out.
    """

    def __init__(self, asked: Asked, height: int = 0, width: int = 0) -> None:
        """`height`, `width`: of the frames that are handed out; by default as large as they are asked for."""
        self.asked = asked
        w, h = asked.size or (_SIMULATED if asked.kind in ("pattern", "feed") else NATIVE)
        self.spec = CameraSpec(asked.name, height or h, width or w)

    def open(self) -> None:
        """Start its process; `look` shows frames when there are any."""
        self._fd = create(self.spec.height, self.spec.width)
        self._memory = Reader(self._fd, self.spec.height, self.spec.width)
        self._number, self._frame, self._captured = 0, np.zeros((0, 0, 3), np.uint8), -np.inf
        self._again, self._wait, self._ended = 0.0, BEGIN, ""
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "robot_io.camera_process", self.asked.told(), "--fd", str(self._fd)]
        command += ["--height", str(self.spec.height), "--width", str(self.spec.width)]
        # A session of its own: Ctrl-C is for who drives the arm. Decoders complain of every broken picture,
        # in words of their own.
        self.process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._fd,),
            start_new_session=True,
        )

    def look(self, now: float) -> tuple[np.ndarray, float, str]:
        """The newest good frame, when it was taken, s, and what is wrong now, "" for nothing."""
        new = self._memory.newest(self._number)
        if new is not None:
            self._number, self._frame, self._captured = new.number, new.image, new.captured
        if (ended := self._watch(now, new is not None)) or (ended := self._memory.said()):
            return self._frame, self._captured, ended
        late = not now - self._captured <= STANDARD.camera
        return self._frame, self._captured, "no new frame" if late else ""

    def _watch(self, now: float, new: bool) -> str:
        """Start the process again when it has ended; in words how it ended, "" while it is there."""
        status = self.process.poll()
        if status is None:
            if new:
                self._wait, self._ended = BEGIN, ""
            return self._ended  # until the new one has shown a frame
        if not self._again:
            said = self._memory.said()
            self._ended = said or f"its process was ended by {_told(status)}"
            self._again, self._wait = now + self._wait, min(2.0 * self._wait, LONGEST)
        elif now >= self._again:
            self._again = 0.0
            self._start()
        return self._ended

    @property
    def counts(self) -> Counts:
        return self._memory.counts()

    def close(self) -> None:
        stop(self.process)
        os.close(self._fd)


class Cameras:
    """Several of them.

    Attributes:
        specs: their names and sizes, in the order in which they were asked for.
    """

    def __init__(self, asked: Iterable[Asked], sizes: Sequence[CameraSpec] = ()) -> None:
        """`sizes`: how large a camera's frames are to be, where that is known."""
        fit = {size.name: size for size in sizes}
        self.cameras = [
            Camera(a, fit[a.name].height, fit[a.name].width) if a.name in fit else Camera(a) for a in asked
        ]

    @property
    def specs(self) -> tuple[CameraSpec, ...]:
        return tuple(camera.spec for camera in self.cameras)

    def __enter__(self) -> Cameras:
        """
        Raises:
            TaktError: one has shown no frame within `FIRST` s; the line says why.
        """
        opened: list[Camera] = []
        try:
            for camera in self.cameras:
                camera.open()
                opened.append(camera)
            end = time.monotonic() + FIRST
            for camera in self.cameras:
                self._await(camera, end)
        except BaseException:
            for camera in opened:
                camera.close()
            raise
        return self

    def _await(self, camera: Camera, end: float) -> None:
        while True:
            now = time.monotonic()
            _, captured, words = camera.look(now)
            if captured > -np.inf:
                return
            if camera.process.poll() is not None or now > end:
                raise TaktError(f"camera {camera.spec.name}: {words}")
            time.sleep(_LOOK)

    def look(self) -> Looked:
        """What they show now, without waiting."""
        now = time.monotonic()
        looked = Looked()
        blind = []
        for camera in self.cameras:
            name = camera.spec.name
            looked.frames[name], looked.captured[name], words = camera.look(now)
            if words:
                blind.append(f"{name}: {words}")
        return Looked(looked.frames, looked.captured, tuple(blind))

    def __exit__(self, *exc: object) -> None:
        for camera in self.cameras:
            camera.close()


def _told(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"
