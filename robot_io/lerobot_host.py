"""The other side: a robot of LeRobot's in LeRobot's own Python, a script that its interpreter runs.

    PYTHON lerobot_host.py FD PARENT JSON        {"type": NAME, "config": {...}, "rate": HZ, "still": BOOL}

Takt is not installed there: this file, runtime/messages.py and robot_io/shared_frames.py need the standard
library, numpy and LeRobot. What passes over the socket:

    built, nothing connected yet  <-  {"type", "state": [...], "actions": [...], "units": {}, "cameras": {}}
    connect                       ->  {"cameras": [[name, height, width], ...], "moving": [...]}, descriptors
    it is connected, it has left  <-  {"connected": true}, {"left": words, "" for well}
    every read                    <-  {"time": s}, state (S,); or {"trouble": words} where a call raised
    a command, to leave           ->  {}, action (A,); {"leave": true}

Times are of the machine's monotonic clock. Numbers are as LeRobot has them; frames go through shared memory.
One thread talks to the robot. It ends, and leaves the robot by its `disconnect`, when the socket closes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
AWAY = 0.3  # s without a command after which what moves by itself, a base at a velocity, is told to stand
GRACE = 10.0  # s that leaving may take once nobody waits for it


def load(path: str, name: str) -> Any:
    """The module in the file `path`: by its place, so that no folder of ours is searched for packages."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


messages = load(os.path.join(HERE, "..", "runtime", "messages.py"), "takt_messages")
shared_frames = load(os.path.join(HERE, "shared_frames.py"), "takt_shared_frames")


def outlive(parent: int) -> None:
    """End soon after the process `parent`, even where the robot's code hangs."""
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(GRACE)
    os._exit(1)


def told(error: BaseException) -> str:
    """An exception in a line; its traceback goes to the log."""
    traceback.print_exc()
    sys.stderr.flush()
    return " ".join(f"{type(error).__name__}: {error}".split())


# -- building


def builtin(package: str) -> list[str]:
    """Import all that LeRobot has of a kind, which is how types become known; those that cannot be."""
    left = []
    found = importlib.import_module(package)
    for each in pkgutil.iter_modules(found.__path__):
        try:
            importlib.import_module(f"{package}.{each.name}")
        except Exception:
            left.append(each.name)
    return left


def plugins() -> None:
    """Import packages of the names `lerobot_robot_*` and `lerobot_camera_*`."""
    module = importlib.import_module("lerobot.utils.import_utils")
    for name in ("register_third_party_plugins", "register_third_party_devices"):  # the newer name first
        if hasattr(module, name):
            return getattr(module, name)()


def build(kind: str, config: dict) -> Any:
    """The robot, not connected."""
    plugins()
    import draccus
    from lerobot.robots import RobotConfig, make_robot_from_config

    left: list[str] = []
    if kind not in RobotConfig.get_known_choices():
        left = builtin("lerobot.robots")
    if config.get("cameras"):
        builtin("lerobot.cameras")
    known = sorted(RobotConfig.get_known_choices())
    if kind not in known:
        also = f" (cannot be imported here: {', '.join(left)})" if left else ""
        raise LookupError(f"no robot of type {kind!r}; valid: {', '.join(known)}{also}")
    return make_robot_from_config(draccus.decode(RobotConfig, {"type": kind, **config}))


NORMS = {"degrees": "deg", "range_m100_100": "percent", "range_0_100": "percent"}


def units(robot: Any) -> dict:
    """feature -> unit, of motors that LeRobot normalises itself, one arm or two."""
    found = {}
    for prefix, owner in (
        ("", robot),
        *((f"{s}_", getattr(robot, f"{s}_arm", None)) for s in ("left", "right")),
    ):
        motors = getattr(getattr(owner, "bus", None), "motors", None) or {}
        for name, motor in motors.items():
            norm = getattr(motor, "norm_mode", None)
            found[f"{prefix}{name}.pos"] = NORMS.get(str(getattr(norm, "value", norm)), "")
    return {name: unit for name, unit in found.items() if unit}


def described(robot: Any) -> dict:
    """What is told of a robot before it is connected."""
    state, cameras = [], {}
    for name, kind in robot.observation_features.items():
        if isinstance(kind, type) and issubclass(kind, (int, float)):
            state.append(name)
        elif isinstance(kind, (tuple, list)) and len(kind) == 3 and kind[2] == 3:
            cameras[name] = [int(kind[0]), int(kind[1])]
        else:
            print(f"{name} of {kind} is left out", file=sys.stderr)
    actions = []
    for name, kind in robot.action_features.items():
        if not (isinstance(kind, type) and issubclass(kind, (int, float))):
            raise TypeError(f"its action {name!r} is {kind}: only single numbers are understood")
        actions.append(name)
    return {"type": robot.name, "state": state, "actions": actions, "units": units(robot), "cameras": cameras}


# -- running


class Host:
    """A connected robot and the socket."""

    def __init__(self, link: socket.socket, robot: Any, rate: float, still: bool) -> None:
        about, _ = messages.receive(link)
        self._link, self._robot, self._period, self._still = link, robot, 1.0 / rate, still
        self._sizes = {name: (height, width) for name, height, width in about["cameras"]}
        _, descriptors, _, _ = socket.recv_fds(link, 1, len(self._sizes))
        self._writers = {
            name: shared_frames.Writer(fd, *size)
            for (name, size), fd in zip(self._sizes.items(), descriptors)  # noqa: B905 (Python 3.9 has no strict)
        }
        self._moving = about["moving"]
        self._state, self._actions = described(robot)["state"], list(robot.action_features)
        self._last: dict[str, Any] = {}  # camera -> its last frame, as it came
        if self._sizes != {name: tuple(size) for name, size in described(robot)["cameras"].items()}:
            import cv2  # noqa: F401 (now, or the first frame would be old when it is there)
        robot.connect(calibrate=False)
        if not robot.is_calibrated:
            raise RuntimeError("it is not calibrated, or by another file: lerobot-calibrate makes one")
        messages.send(link, {"connected": True})

    def serve(self) -> None:
        """Until the other side wants to leave, or has gone."""
        self._action: dict[str, float] = {}
        try:
            self._serve()
        finally:
            if self._action and self._moving:
                with contextlib.suppress(Exception):  # the robot is left in any case
                    self._robot.send_action(self._standing())

    def _serve(self) -> None:
        due = heard = time.monotonic()
        while True:
            fields, command = self._newest(max(0.0, due - time.monotonic()))
            if fields.get("leave"):
                return
            now = time.monotonic()
            if command is not None:
                heard, self._action = now, dict(zip(self._actions, map(float, command)))  # noqa: B905
                self._try(self._robot.send_action, self._action)
            elif any(self._action.get(name) for name in self._moving) and now - heard > AWAY:
                self._action = self._standing()
                self._try(self._robot.send_action, self._action)
            if now >= due:
                self._try(self._look)
                due = max(due + self._period, time.monotonic())

    def _standing(self) -> dict:
        """The last command, with what moves by itself at rest."""
        return {**self._action, **dict.fromkeys(self._moving, 0.0)}

    def _newest(self, wait: float) -> tuple:
        """(fields, command or None) of the last message that has come, after at most `wait` s for one."""
        fields: dict = {}
        command = None
        while select.select([self._link], [], [], wait)[0]:
            wait = 0.0
            said, arrays = messages.receive(self._link)
            fields, command = {**fields, **said}, arrays.get("action", command)
        return fields, command

    def _try(self, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except messages.Closed:
            raise
        except Exception as error:  # the next one may go well; who listens knows how long it has not
            self._tell({"trouble": told(error)})

    def _look(self) -> None:
        begun = time.monotonic()
        seen = self._robot.get_observation()
        state = np.array([float(seen[name]) for name in self._state], np.float64)
        for name, writer in self._writers.items():
            self._show(name, writer, np.asarray(seen[name]), begun)
        self._tell({"time": begun}, {"state": state})

    def _show(self, name: str, writer: Any, frame: Any, begun: float) -> None:
        """A lens sees noise: a frame that comes again bit for bit is an old one, and keeps its time."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(
                f"{name}: a frame of {frame.dtype} {frame.shape}, not of uint8 (height, width, 3)"
            )
        before = self._last.get(name)
        if not self._still and before is not None and np.array_equal(before, frame):
            return
        self._last[name] = frame.copy()
        writer.put(resized(frame, *self._sizes[name]), begun)

    def _tell(self, fields: dict, arrays: dict | None = None) -> None:
        """Where nobody reads, what comes next is newer."""
        if select.select([], [self._link], [], 0)[1]:
            messages.send(self._link, fields, arrays)


def resized(image: Any, height: int, width: int) -> Any:
    """Shape (h, w, 3) -> (height, width, 3), uint8, as robot_io/camera_sources.py does it."""
    if image.shape[:2] == (height, width):
        return image
    import cv2

    smaller = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def leave(robot: Any) -> str:
    """Disconnect, as the robot's own configuration says; what went wrong."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        if robot.is_connected:
            robot.disconnect()
    except Exception as error:
        return told(error)
    return ""


def main(fd: int, parent: int, request: str) -> int:
    # What LeRobot prints goes to the log: nothing but messages may be on the socket.
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the robot is left in order
    threading.Thread(target=outlive, args=(parent,), daemon=True).start()
    link, asked = socket.socket(fileno=fd), json.loads(request)
    try:
        robot = build(asked["type"], asked["config"])
        messages.send(link, described(robot))
    except Exception as error:
        messages.send(link, {"error": told(error)})
        return 1
    words = ""
    try:
        try:
            host = Host(link, robot, asked["rate"], asked["still"])
        except messages.Closed:
            return 0
        except Exception as error:
            messages.send(link, {"error": told(error)})
            return 1
        host.serve()
    except messages.Closed:
        print("who commanded the robot has gone", file=sys.stderr)
    finally:
        words = leave(robot)
    with contextlib.suppress(messages.Closed):
        messages.send(link, {"left": words})
    return 0


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose files must not stand in for packages of the same name
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
