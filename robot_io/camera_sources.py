"""Where frames come from: a device, a film, pictures, a FIFO, a simulator's socket, or numbers.

A source waits for its next frame, not longer than it is told to. What is wrong it raises: `Gone` when the
device or file is not there (any more), `Spoilt` for a frame that is no picture. V4L2 has not been tried on a
device yet.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgpack
import numpy as np
import zmq

from robot_io.camera_options import NATIVE, Asked
from robot_io.dryrun import pattern
from runtime import jpeg
from runtime.clock import MonotonicClock, Ticker
from runtime.fields import WireError
from vla.contract import CameraSpec, TaktError

RATE = 30.0  # frames a second of what has no rate of its own
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
_LARGEST = 16 << 20  # bytes of one picture in a stream
_BEGIN, _END = b"\xff\xd8\xff", b"\xff\xd9"


class Gone(Exception):
    """It is not there (any more); the words say what."""


class Spoilt(Exception):
    """A frame that is no picture; the words say why."""


@dataclass(frozen=True)
class Taken:
    """A frame, shape (h, w, 3), uint8 RGB, and when it was taken, s on the machine's monotonic clock."""

    image: np.ndarray
    time: float


class Source(Protocol):
    """What `open_source` gives."""

    def read(self, wait: float) -> Taken | None:
        """The next frame; None when there was none within `wait` s, or a little longer.

        Raises:
            Gone: see there. Spoilt: see there; the next one may be good.
        """

    def close(self) -> None: ...


def open_source(asked: Asked) -> Source:
    """
    Raises:
        Gone: it is not there.
        TaktError: something that it needs is not installed.
    """
    if asked.kind == "file" and (Path(asked.place).is_dir() or Path(asked.place).suffix.lower() in _PICTURES):
        return Pictures(asked)
    kinds: dict[str, Callable[[Asked], Source]] = {
        "v4l2": Device,
        "file": Film,
        "pattern": Pattern,
        "pipe": Pipe,
        "feed": Feed,
    }
    return kinds[asked.kind](asked)


class Pattern:
    """Bars that move by a column a frame; nothing that a camera sees stands still."""

    def __init__(self, asked: Asked) -> None:
        width, height = asked.size or (96, 96)
        self._bars = pattern(CameraSpec(asked.name, height, width), len(asked.name))
        self._beat = iter(Ticker(MonotonicClock(), 1.0 / (asked.fps or RATE)))
        self._shift = 0

    def read(self, wait: float) -> Taken:
        _, now = next(self._beat)
        self._shift += 1
        return Taken(np.roll(self._bars, self._shift, axis=1), now)

    def close(self) -> None: ...


class Pictures:
    """The pictures of a folder, or one, at a rate, over and over."""

    def __init__(self, asked: Asked) -> None:
        path = Path(asked.place)
        try:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
        except OSError as error:
            raise Gone(f"{path}: {error.strerror}") from None
        self._files = [file for file in files if file.suffix.lower() in _PICTURES]
        if not self._files:
            raise Gone(f"{path} has no pictures in it ({', '.join(_PICTURES)})")
        self._beat = iter(Ticker(MonotonicClock(), 1.0 / (asked.fps or RATE)))
        self._at = -1

    def read(self, wait: float) -> Taken:
        _, now = next(self._beat)
        self._at = (self._at + 1) % len(self._files)
        try:
            data = self._files[self._at].read_bytes()
        except OSError as error:
            raise Gone(f"{self._files[self._at]}: {error.strerror}") from None
        return Taken(decode(data), now)

    def close(self) -> None: ...


class Film:
    """A film at its own rate, over and over."""

    def __init__(self, asked: Asked) -> None:
        self._path = asked.place
        if not os.path.isfile(self._path):
            raise Gone(f"{self._path} is not there")
        self._film = opencv().VideoCapture(self._path)
        if not self._film.isOpened():
            raise Gone(f"{self._path} is no film that OpenCV reads")
        own = self._film.get(opencv().CAP_PROP_FPS)
        rate = asked.fps or (own if 0.1 <= own <= 1000.0 else RATE)
        self._beat = iter(Ticker(MonotonicClock(), 1.0 / rate))

    def read(self, wait: float) -> Taken:
        if not os.path.isfile(self._path):
            raise Gone(f"{self._path} was removed")
        good, image = self._film.read()
        if not good:  # its end, or a place that is damaged
            self._film.set(opencv().CAP_PROP_POS_FRAMES, 0)
            good, image = self._film.read()
        if not good:
            raise Gone(f"{self._path} gives no frames")
        _, now = next(self._beat)
        return Taken(rgb(image), now)

    def close(self) -> None:
        self._film.release()


class Device:
    """A camera of Linux, by OpenCV; MJPG is decoded here, where damage is noticed."""

    def __init__(self, asked: Asked) -> None:
        cv2 = opencv()
        self._path = asked.place
        if not os.path.exists(self._path):
            raise Gone(f"{self._path} is not there")
        if not os.access(self._path, os.R_OK | os.W_OK):
            raise Gone(f"{self._path}: permission denied; sudo usermod -aG video $USER, and log in anew")
        self._device = cv2.VideoCapture(self._path, cv2.CAP_V4L2)
        if not self._device.isOpened():
            raise Gone(f"{self._path} does not open: is another program using it?")
        width, height = asked.size or NATIVE
        wanted = {
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*asked.fourcc),
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: asked.fps or RATE,
            cv2.CAP_PROP_BUFFERSIZE: 2,  # an old frame is worth nothing
        }
        for name, value in wanted.items():
            self._device.set(name, value)
        if asked.fourcc == "MJPG":
            self._device.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def read(self, wait: float) -> Taken:
        good, image = self._device.read()
        now = time.monotonic()
        if not good:
            raise Gone(f"{self._path} gives no frames: was it unplugged?")
        # The driver's time, where it is one of the monotonic clock, as UVC's is.
        driver = self._device.get(opencv().CAP_PROP_POS_MSEC) / 1e3
        when = driver if 0.0 <= now - driver < 1.0 else now
        if image.ndim == 3 and image.shape[2] == 3:
            return Taken(rgb(image), when)
        return Taken(decode(np.ascontiguousarray(image).tobytes()), when)

    def close(self) -> None:
        self._device.release()


class Pipe:
    """JPEG pictures, without thumbnails, one after another through a FIFO; of several, the newest."""

    def __init__(self, asked: Asked) -> None:
        self._path = asked.place
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise Gone(f"{self._path}: {error.strerror}") from None
        if not stat.S_ISFIFO(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise Gone(f"{self._path} is no FIFO; make one with mkfifo")
        self._left = b""

    def read(self, wait: float) -> Taken | None:
        end, whole = time.monotonic() + wait, b""
        while not whole:
            rest = end - time.monotonic()
            if rest <= 0 or not select.select([self._fd], [], [], rest)[0]:
                return None
            with contextlib.suppress(BlockingIOError):
                self._take()
            now = time.monotonic()
            whole = self._newest()
        return Taken(decode(whole), now)

    def _take(self) -> None:
        """All that has come."""
        while True:
            piece = os.read(self._fd, 1 << 20)
            if not piece:
                raise Gone(f"{self._path}: the other end was closed")
            self._left += piece
            if len(self._left) > _LARGEST:
                self._left = b""
                raise Spoilt("what comes is no JPEG")

    def _newest(self) -> bytes:
        """The last whole picture, taken out; b"" when there is none yet."""
        end = self._left.rfind(_END)
        if end < 0:
            if self._left.count(_BEGIN) > 1:  # the next one begins and this one has not ended
                self._left = self._left[self._left.rfind(_BEGIN) :]
                raise Spoilt("a JPEG that is cut")
            return b""
        begin = self._left.rfind(_BEGIN, 0, end)
        picture, self._left = self._left[max(begin, 0) : end + 2], self._left[end + 2 :]
        return picture

    def close(self) -> None:
        os.close(self._fd)


class Feed:
    """A simulator's publisher; of several frames that wait, the newest."""

    def __init__(self, asked: Asked) -> None:
        self._name = asked.name
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 2)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 4 * _LARGEST)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(asked.place)
        except zmq.ZMQError as error:
            self.close()
            raise Gone(f"{asked.place}: {error}") from None

    def read(self, wait: float) -> Taken | None:
        if not self._socket.poll(round(wait * 1e3)):
            return None
        data = b""
        with contextlib.suppress(zmq.Again):
            while True:
                data = self._socket.recv(zmq.NOBLOCK)
        return self._unpacked(data, time.monotonic())

    def _unpacked(self, data: bytes, now: float) -> Taken | None:
        try:
            rows = msgpack.unpackb(data)
            if self._name not in rows:
                return None
            height, width, pixels, *when = rows[self._name]
            image = np.frombuffer(pixels, np.uint8).reshape(int(height), int(width), 3)
            return Taken(image, float(when[0]) if when else now)
        except (ValueError, TypeError, KeyError, msgpack.UnpackException):
            raise Spoilt("what comes is no frame") from None

    def close(self) -> None:
        self._context.destroy(linger=0)


def decode(data: bytes) -> np.ndarray:
    """The picture in a file's bytes, shape (h, w, 3), uint8 RGB.

    Raises:
        Spoilt: there is none, or a damaged one.
    """
    if data.startswith(_BEGIN):
        if _END not in data[-64:]:  # devices fill up with zeros
            raise Spoilt("a JPEG that is cut")
        if jpeg.simplejpeg is not None:  # it notices damage in the middle, which OpenCV does not
            try:
                return jpeg.read(data)
            except WireError as error:
                raise Spoilt(str(error)) from None
    cv2 = opencv()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise Spoilt("no picture that OpenCV reads")
    return rgb(image)


def rgb(image: np.ndarray) -> np.ndarray:
    """OpenCV's order of colours turned round."""
    return opencv().cvtColor(image, opencv().COLOR_BGR2RGB)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shape (h, w, 3) -> (height, width, 3), uint8, each pixel the mean of what it covers."""
    if image.shape[:2] == (height, width):
        return image
    cv2 = opencv()
    smaller = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def opencv() -> Any:
    """OpenCV, one thread of it; what needs none of it does not wait for it to load.

    Raises:
        TaktError: it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise TaktError("cameras need OpenCV: pip install 'takt-vla[robot]'") from None
    cv2.setNumThreads(1)
    return cv2
