"""Cameras for `takt doctor`: which there are, and how many frames a second come from those that are named."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robot_io.camera import Cameras
from robot_io.camera_options import Asked, parse
from robot_io.shared_frames import Counts
from runtime.finding import Row
from vla.contract import TaktError

SECONDS = 3.0  # how long a camera is measured
_DEVICES = Path("/sys/class/video4linux")
# VIDIOC_QUERYCAP, and what of its answer says that a node gives pictures: (capabilities, those of the node).
_QUERY, _SIZE, _CAPABILITIES = 0x80685600, 104, struct.Struct("<II")
_CAPTURE, _HAS_NODE = 0x00000001, 0x80000000
_SHARE = 0.9  # of the rate that was asked for, at the least


def rows(asked: str = "", seconds: float = SECONDS) -> list[Row]:
    """The devices that were found, and each camera of `asked` (see `camera_options`) measured.

    Raises:
        TaktError: `asked` makes no sense.
    """
    cameras = parse(asked) if asked else ()
    return [*found(), *(measured(camera, seconds) for camera in cameras)]


def found(devices: Path = _DEVICES) -> list[Row]:
    """The devices of Linux that give pictures."""
    nodes = sorted(devices.glob("video*"), key=lambda node: (len(node.name), node.name))
    out = []
    for node in nodes:
        path = f"/dev/{node.name}"
        name = (node / "name").read_text().strip() if (node / "name").is_file() else "no name"
        status, words = _captures(path)
        if status != "no":
            out.append(Row(f"camera {path}", "ok" if status == "yes" else "warn", f"{name}{words}"))
    return out or [Row("cameras", "warn", "no V4L2 device here: plug one in, or name another source")]


def _captures(path: str) -> tuple[str, str]:
    """Whether a node gives pictures, "yes", "no" (it gives a camera's other data) or "unknown", and why."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        return "unknown", f"; {error.strerror}: sudo usermod -aG video $USER, and log in anew"
    try:
        answer = bytearray(_SIZE)
        fcntl.ioctl(fd, _QUERY, answer)
    except OSError as error:
        return "unknown", f"; {error.strerror}"
    finally:
        os.close(fd)
    every, own = _CAPABILITIES.unpack_from(answer, 84)
    return ("yes" if (own if every & _HAS_NODE else every) & _CAPTURE else "no"), ""


def measured(asked: Asked, seconds: float = SECONDS, sleep: Callable[[float], None] = time.sleep) -> Row:
    """A camera through a process of its own, as a robot has it."""
    title = f"camera {asked.name}, {asked.kind} {asked.place}".rstrip()
    try:
        with Cameras((asked,)) as cameras:
            before, begun = cameras.cameras[0].counts, time.monotonic()
            ages, end = [], begun + seconds
            while time.monotonic() < end:
                sleep(0.01)
                looked = cameras.look()
                ages.append(time.monotonic() - looked.captured[asked.name])
            after, took = cameras.cameras[0].counts, time.monotonic() - begun
            return _row(title, asked, looked.blind, _gone(before, after, took), ages)
    except TaktError as error:
        return Row(title, "warn", str(error))


def _gone(before: Counts, after: Counts, seconds: float) -> tuple[float, int]:
    """Frames a second, and how many could not be used."""
    return (after.arrived - before.arrived) / seconds, after.spoilt - before.spoilt


def _row(title: str, asked: Asked, blind: tuple[str, ...], gone: tuple[float, int], ages: list[float]) -> Row:
    rate, spoilt = gone
    oldest = 1e3 * float(np.quantile(ages, 0.99))
    words = [f"{rate:.1f} frames a second, at most {oldest:.0f} ms old (p99)"]
    if spoilt:
        words.append(f"{spoilt} could not be used")
    if asked.fps and rate < _SHARE * asked.fps:
        words.append(f"{asked.fps:g} were asked for: more light, fourcc=MJPG or a smaller size= may help")
    if oldest > 200.0:
        words.append("frames older than 200 ms hold an arm")
    elif oldest > 100.0:
        words.append("frames older than 100 ms slow an arm")
    words += blind
    return Row(title, "ok" if len(words) == 1 else "warn", "; ".join(words))
