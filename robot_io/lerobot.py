"""Any robot of LeRobot's, built in or a `lerobot_robot_*` plugin, behind the `Robot` seam.

    control process                                            LeRobot's own Python environment
    LeRobot (a Robot)    <--- socket, shared memory --->       robot_io/lerobot_host.py

The robot's calls wait for motors and cameras; here nothing does: a read hands out what came last, with the
time at which its reading began, and the guard notices when that gets old. A call that raises is no fault by
itself; a robot of which nothing good has been heard for `patience` s is one, and so is a process that has
ended.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path
from select import select
from typing import Any

import numpy as np

from robot_io import lerobot_limits, shared_frames
from robot_io.lerobot_limits import Body
from runtime import messages
from runtime.clock import Clock, MonotonicClock
from runtime.foreign import Foreign, line
from vla.contract import CameraSpec, Observation, RobotSpec, TaktError

HOST = Path(__file__).with_name("lerobot_host.py")
START = 180.0  # s to import LeRobot and build the robot
CONNECT = 60.0  # s to connect it and to see its first state and frames
LEAVE = 15.0  # s to disconnect it
SHORT = 2.0  # s to do so for a process that has been silent before, or to end
SILENT = 0.5  # s without a good reading after which it is a fault, by default
REST = 0.02  # s that the rest of a message may take
RATE = 50.0  # readings a second
SETTINGS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


class LeRobot:
    """One robot. Not shared between threads.

    Attributes:
        faults: what is wrong with it for good, or for as long as it is silent.
    """

    def __init__(
        self,
        python: str | Path,
        kind: str,
        config: dict[str, Any],
        limits: dict[str, dict[str, Any]],
        rate: float = RATE,
        still: bool = False,
        patience: float = SILENT,
        clock: Clock | None = None,
    ) -> None:
        """Start its process and build it there; nothing is connected yet.

        Args:
            python: the interpreter of LeRobot's environment.
            kind: LeRobot's name of the type, `so101_follower`.
            config: the fields of its configuration, as JSON has them.
            limits: see robot_io/lerobot_limits.py.
            rate: readings a second that are asked for.
            still: its cameras may show the same picture for long, as those of a simulation do.
            patience: s without a good reading after which it is a fault.
            clock: of the machine's monotonic time.

        Raises:
            TaktError: there is no such interpreter, type or option, or a limit is missing.
        """
        self._clock, self._patience = clock or MonotonicClock(), patience
        asked = {"type": kind, "config": config, "rate": rate, "still": still}
        self._process = Foreign(python, HOST, [json.dumps(asked)], SETTINGS)
        self._close = weakref.finalize(self, self._process.close)
        try:
            about = self._hear(START)
            self._body: Body = lerobot_limits.body(about, limits)
        except BaseException:
            self._close()
            raise
        self._native = self._body.spec.cameras
        self._spec = self._body.spec
        self._state = np.full(len(self._spec.state), np.nan, np.float32)
        self._time = -np.inf
        self._readers: dict[str, shared_frames.Reader] = {}
        self._frames: dict[str, shared_frames.Frame] = {}
        self._gone = self._trouble = ""

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def pid(self) -> int:
        """Of LeRobot's process."""
        return self._process.pid

    def fit(self, cameras: tuple[CameraSpec, ...]) -> None:
        """Frames in the sizes that a policy wants, by name; to be called before it is entered."""
        sizes = {camera.name: camera for camera in cameras}
        self._spec = replace(self._spec, cameras=tuple(sizes.get(own.name, own) for own in self._native))

    # -- entering

    def __enter__(self) -> LeRobot:
        """
        Raises:
            TaktError: LeRobot cannot connect it, or nothing is seen of it; its process has then ended.
        """
        descriptors = [shared_frames.create(c.height, c.width) for c in self._spec.cameras]
        try:
            for fd, c in zip(descriptors, self._spec.cameras, strict=True):
                self._readers[c.name] = shared_frames.Reader(fd, c.height, c.width)
            cameras = [[c.name, c.height, c.width] for c in self._spec.cameras]
            messages.send(self._process.link, {"cameras": cameras, "moving": list(self._body.moving)})
            socket.send_fds(self._process.link, [b"f"], descriptors)
            self._hear(CONNECT)
            self._first()
        except messages.Closed:
            self._end()
            raise TaktError(self._died(SHORT)) from None
        except BaseException:
            self._end()
            raise
        finally:
            for fd in descriptors:
                os.close(fd)
        self._process.link.settimeout(REST)
        return self

    def _hear(self, wait: float) -> dict[str, Any]:
        """The next message, while there is time to wait for it."""
        self._process.link.settimeout(wait)
        try:
            said, arrays = messages.receive(self._process.link)
        except messages.Closed:
            raise TaktError(self._died(SHORT)) from None
        except messages.Broken as error:
            raise TaktError(f"LeRobot's process sent {error}") from None
        except TimeoutError:
            raise TaktError(f"LeRobot's process was silent for {wait:g} s") from None
        if "error" in said:
            raise TaktError(f"LeRobot: {line(said['error'])}")
        self._note(said, arrays)
        return said

    def _first(self) -> None:
        """Wait for a state and a frame of every camera."""
        end = time.monotonic() + CONNECT
        while self.faults or len(self._frames) < len(self._readers):
            if time.monotonic() > end:
                missing = sorted(set(self._readers) - set(self._frames))
                what = self._trouble or f"nothing is seen of {', '.join(missing) or 'its state'}"
                raise TaktError(f"LeRobot's robot is connected, but {what}")
            self._hear(CONNECT)
            self._look()

    # -- the cycle

    @property
    def faults(self) -> tuple[str, ...]:
        if self._gone:
            return (self._gone,)
        if self._clock.now() - self._time <= self._patience:
            return ()
        return (self._trouble or f"LeRobot's process has read nothing for {self._patience:g} s",)

    def read(self) -> Observation:
        """What came last; it never waits. The state's time is when LeRobot began to read it."""
        if not self._gone:
            try:
                while select([self._process.link], [], [], 0)[0]:
                    self._note(*messages.receive(self._process.link))
            except messages.Closed:
                self._gone = self._died(REST)
            except (messages.Broken, TimeoutError) as error:
                self._gone = f"LeRobot's process sent {error or 'half a message'}"
        self._look()
        return Observation(
            self._time,
            self._state,
            {name: frame.image for name, frame in self._frames.items()},
            captured={name: frame.captured for name, frame in self._frames.items()},
            faults=self.faults,
        )

    def write(self, command: np.ndarray) -> None:
        """One command, shape (A,), SI; it has passed the guard. Raises ValueError for what has not."""
        wanted = np.asarray(command, float)
        if wanted.shape != (self._spec.actions.size,) or not np.isfinite(wanted).all():
            raise ValueError(f"{self._spec.actions.size} finite numbers, got {command}")
        # A process that hangs reads nothing: its socket fills, and that is found out by its silence.
        if self._gone or not select([], [self._process.link], [], 0)[1]:
            return
        try:
            messages.send(self._process.link, {}, {"action": self._body.command(wanted)})
        except messages.Closed:
            self._gone = self._died(REST)
        except TimeoutError:
            self._gone = "LeRobot's process takes no commands"

    def _note(self, said: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if "trouble" in said:
            self._trouble = line(str(said["trouble"]))
        elif "state" in arrays:
            self._time, self._trouble = float(said["time"]), ""
            self._state = self._body.seen(arrays["state"])

    def _look(self) -> None:
        for name, reader in self._readers.items():
            before = self._frames.get(name)
            frame = reader.newest(before.number if before else 0)
            if frame is not None:
                self._frames[name] = frame

    def _died(self, grace: float) -> str:
        return f"LeRobot's process {self._process.ended(grace)}"

    # -- leaving

    def __exit__(self, *exc: object) -> None:
        """LeRobot disconnects it, as its configuration says; what could not be done is told on stderr."""
        why = self._gone
        try:
            why = why or self._left()
        finally:
            self._end()
            if why:
                words = f"not disconnected, its motors may keep what they were last told: {why}"
            else:
                words = "disconnected, its torque as its LeRobot configuration says"
            print(f"takt: {self._spec.name}: {words}", file=sys.stderr)

    def _left(self) -> str:
        """Ask the process to leave, and wait until it has; what went wrong."""
        wait = SHORT if self.faults else LEAVE
        try:
            self._process.link.settimeout(wait)
            messages.send(self._process.link, {"leave": True})
            end = time.monotonic() + wait
            while time.monotonic() < end:
                said, _ = messages.receive(self._process.link)
                if "left" in said:
                    return line(str(said["left"]))
        except messages.Closed:
            return self._died(SHORT)
        except (messages.Broken, TimeoutError):
            pass
        return f"its process did not answer within {wait:g} s"

    def _end(self) -> None:
        """End the process; one that is about to end by itself, because its robot is being left, may."""
        self._process.link.close()
        self._process.gone(0.0 if self._gone else SHORT)
        self._close()


def make(
    python: str = "",
    type: str = "",
    config: str = "",
    limits: str = "",
    rate: str = str(RATE),
    still: str = "no",
    patience: str = str(SILENT),
    calibration: Path | None = None,
    **fields: str,
) -> LeRobot:
    """The robot `lerobot`. Options are words, those it does not know LeRobot's: see docs/robots.md.

    Raises:
        TaktError: one is missing or wrong.
    """
    if not python:
        raise TaktError("which Python has LeRobot? --options python=/path/to/venv/bin/python")
    asked = _config(Path(config)) if config else {}
    if calibration is not None:  # LeRobot looks for it by folder and id
        asked |= {"calibration_dir": str(Path(calibration).parent), "id": Path(calibration).stem}
    asked |= {name: _value(word) for name, word in fields.items()}
    kind = type or str(asked.get("type", ""))
    asked.pop("type", None)
    if not kind:
        raise TaktError("which robot? --options type=so101_follower, LeRobot's name of its type")
    if not limits:
        raise TaktError(
            "LeRobot knows no limits, and nothing moves without: --options limits=FILE.json (docs/robots.md)"
        )
    if still not in ("yes", "no"):
        raise TaktError("--options still=yes or no")
    hertz = _within("rate", rate, 1.0, 1000.0, "readings a second")
    silent = _within("patience", patience, 0.1, 10.0, "seconds")
    return LeRobot(python, kind, asked, lerobot_limits.read(Path(limits)), hertz, still == "yes", silent)


def _within(option: str, word: str, least: float, most: float, what: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise TaktError(f"--options {option}={word} is not {least:g} to {most:g} {what}")
    return number


def _config(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text())
    except OSError as error:
        raise TaktError(f"cannot read the configuration {path}: {error.strerror}") from None
    except ValueError as error:
        raise TaktError(f"{path} is no JSON: {error}") from None
    if not isinstance(read, dict):
        raise TaktError(f"{path}: a robot's configuration is an object of JSON")
    return read


def _value(word: str) -> Any:
    """What a word is in JSON, or else the word."""
    try:
        return json.loads(word)
    except ValueError:
        return word
