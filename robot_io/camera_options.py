"""Cameras as words: `--options cameras=front:v4l2:/dev/video0,fps=30,wrist:file:film.mp4`.

    NAME:KIND[:PLACE]     begins a camera; NAME is what the policy calls it
    OPTION=VALUE          belongs to the camera before it

| kind | place | its frames |
|---|---|---|
| v4l2 | /dev/video0 | of a device of Linux |
| file | PATH | a film, a picture, or a folder of pictures in the order of their names, over and over |
| pattern | | bars that move |
| pipe | PATH | JPEG pictures one after another, through a FIFO: `ffmpeg ... -f mjpeg PATH` |
| feed | ADDRESS | a ZeroMQ publisher's: msgpack {NAME: [height, width, bytes, time]}, see `plants` |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vla.contract import TaktError

KINDS = ("v4l2", "file", "pattern", "pipe", "feed")
NATIVE = (640, 480)  # width and height that a camera is asked for
# A lens sees noise, so that a frame that comes again as it was, bit for bit, is an old one. Files and
# simulators may show what does not change.
SAME = {"v4l2": 3, "pipe": 3, "pattern": 3, "file": 0, "feed": 0}
DARK = {"v4l2": 4.0, "pipe": 4.0, "pattern": 4.0, "file": 0.0, "feed": 0.0}
OPTIONS = ("size", "fps", "fourcc", "same", "dark")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_LARGEST = 8192  # pixels along a side


@dataclass(frozen=True)
class Asked:
    """A camera as it was asked for.

    Attributes:
        name, kind, place: see the top of this file.
        size: (width, height) that its frames have to have; None for what the device or the file gives.
        fps: frames a second; None for the device's or the film's own, 30 where it has none.
        fourcc: the format that a device is asked for, MJPG or YUYV for example.
        same: so many frames in a row that are the same bit for bit are a frozen camera; 0: any number may be.
        dark: a frame whose mean is below this, of 255, is dark; 0: none is.
    """

    name: str
    kind: str
    place: str = ""
    size: tuple[int, int] | None = None
    fps: float | None = None
    fourcc: str = "MJPG"
    same: int = 0
    dark: float = 0.0

    def told(self) -> str:
        """The words that `parse` makes this of."""
        size = [] if self.size is None else [f"size={self.size[0]}x{self.size[1]}"]
        fps = [] if self.fps is None else [f"fps={self.fps:g}"]
        head = ":".join([self.name, self.kind, *([self.place] if self.place else [])])
        rest = [f"fourcc={self.fourcc}", f"same={self.same}", f"dark={self.dark:g}"]
        return ",".join([head, *size, *fps, *rest])


def parse(text: str) -> tuple[Asked, ...]:
    """The cameras that are asked for.

    Raises:
        TaktError: the words make no sense; the line says which.
    """
    found: list[Asked] = []
    for piece in text.split(","):
        option, equals, value = piece.partition("=")
        if equals and option in OPTIONS:
            if not found:
                raise TaktError(f"cameras: {piece!r} stands before any camera; {_HOW}")
            found[-1] = _with(found[-1], option, value)
        else:
            found.append(_begun(piece))
    names = [camera.name for camera in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TaktError(f"cameras: {', '.join(twice)} is there twice")
    return tuple(found)


_HOW = "a camera is NAME:KIND:PLACE, front:v4l2:/dev/video0 for example"


def _begun(piece: str) -> Asked:
    name, _, rest = piece.partition(":")
    kind, _, place = rest.partition(":")
    if not _NAME.fullmatch(name) or not kind:
        raise TaktError(f"cameras: cannot tell what {piece!r} is; {_HOW}, an option one of {_OPTIONS}")
    if kind not in KINDS:
        raise TaktError(f"cameras: {name} is of no kind {kind!r}; valid: {', '.join(KINDS)}")
    if (kind == "pattern") == bool(place):
        what = "a pattern has no place" if place else f"{kind} needs a place"
        raise TaktError(f"cameras: {name}: {what}; {_HOW}")
    return Asked(name, kind, place, same=SAME[kind], dark=DARK[kind])


_OPTIONS = "=..., ".join(OPTIONS) + "=..."


def _with(camera: Asked, option: str, value: str) -> Asked:
    try:
        if option == "size":
            width, height = (int(number) for number in value.split("x"))
            if not (1 <= width <= _LARGEST and 1 <= height <= _LARGEST):
                raise ValueError
            return replace(camera, size=(width, height))
        if option == "fourcc":
            if not re.fullmatch(r"[A-Za-z0-9]{4}", value):
                raise ValueError
            return replace(camera, fourcc=value)
        number = float(value)
        low, high = {"fps": (0.1, 1000.0), "same": (0, 1000), "dark": (0, 255)}[option]
        if not low <= number <= high or (option == "same" and number != int(number)):
            raise ValueError
        if option == "same":
            return replace(camera, same=int(number))
        return replace(camera, fps=number) if option == "fps" else replace(camera, dark=number)
    except ValueError:
        valid = {
            "size": "WIDTHxHEIGHT, 640x480",
            "fps": "0.1 to 1000",
            "fourcc": "four letters, MJPG",
            "same": "a count of frames, 0 for never",
            "dark": "0 to 255, 0 for never",
        }[option]
        raise TaktError(f"cameras: {camera.name}: {option}={value} is not {valid}") from None
