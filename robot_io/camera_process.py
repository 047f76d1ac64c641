"""The process of one camera: frames from its source, judged, made as large as asked, and handed out.

    python -m robot_io.camera_process CAMERA --fd N --height H --width W --parent PID

It opens its source anew, with growing waits, for as long as it lives, and ends with its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import closing

import numpy as np

from robot_io.camera_options import Asked, parse
from robot_io.camera_sources import Gone, Source, Spoilt, open_source, resized
from robot_io.shared_frames import Writer
from runtime.child import follow
from vla.contract import TaktError

PIECE = 0.1  # s to wait for a frame at a time
BEGIN, LONGEST = 0.1, 2.0  # s until a source is opened anew: at first, and at the most
LASTS = 3  # frames in a row until one says that they are dark or spoilt
_WINDOW = 30  # frames over which the rate is measured


class Judge:
    """The memory of one camera: whether a frame is good, and whether trouble lasts."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._size: tuple[int, int] | None = asked.size
        self._last: int | None = None  # checksum of the last frame
        self._same = self._bad = 0
        self.words = ""

    def __call__(self, image: np.ndarray) -> bool:
        """Whether a frame, shape (h, w, 3), is to be handed out; `words` then says what is wrong.

        One that is the same as the one before is no new frame: what it shows was taken then. That counts
        as frozen when it lasts.
        """
        height, width = image.shape[:2]
        if self._size is None:
            self._size = (width, height)
        if (width, height) != self._size:
            return self.spoilt(f"a frame of {width}x{height}, not {self._size[0]}x{self._size[1]}")
        if self._asked.dark and (mean := float(image[::4, ::4].mean())) < self._asked.dark:
            self._last = None
            return self.spoilt(f"dark: a mean of {mean:.1f}, less than {self._asked.dark:g}")
        if self._asked.same:
            checksum = zlib.crc32(np.ascontiguousarray(image).data)
            again, self._last = checksum == self._last, checksum
            self._same = self._same + 1 if again else 0
            if again:
                if self._same >= self._asked.same:
                    self.words = "frozen: the same frame again and again"
                return False
        self._bad, self.words = 0, ""
        return True

    def spoilt(self, words: str) -> bool:
        """A frame that cannot be used; False."""
        self._bad += 1
        if self._bad >= LASTS:
            self.words = words
        return False

    def gone(self) -> None:
        """The source was lost; what comes next is compared with nothing."""
        self._last, self._same, self._bad = None, 0, 0
        self._size = self._asked.size


class Camera:
    """What the process does.

    Attributes:
        arrived, spoilt, opened: see `shared_frames.Counts`.
    """

    def __init__(self, asked: Asked, writer: Writer, height: int, width: int) -> None:
        self._asked, self._writer = asked, writer
        self._height, self._width = height, width
        self._judge = Judge(asked)
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self.arrived = self.spoilt = self.opened = 0

    def run(
        self,
        over: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
        make: Callable[[Asked], Source] = open_source,
    ) -> None:
        """Until `over()`; `sleep` and `make` are there for tests."""
        wait = BEGIN
        while not over():
            try:
                with closing(make(self._asked)) as source:
                    self.opened += 1
                    while not over():
                        if self._once(source):
                            wait = BEGIN
            except Gone as error:
                self._judge.gone()
                self._times.clear()
                self._writer.say(str(error))
                sleep(wait)
                wait = min(2.0 * wait, LONGEST)

    def _once(self, source: Source) -> bool:
        """Wait for a frame; whether one was handed out."""
        good = False
        try:
            taken = source.read(PIECE)
            if taken is None:
                return False
            self._times.append(taken.time)
            good = self._judge(taken.image)
            if good:
                image = resized(taken.image, self._height, self._width)
                self._writer.put(image, min(taken.time, time.monotonic()))
        except Spoilt as error:
            self._judge.spoilt(str(error))
        self._writer.say(self._judge.words)
        self.arrived, self.spoilt = self.arrived + 1, self.spoilt + (not good)
        self._writer.count(self.arrived, self.spoilt, self.opened, self._rate())
        return good

    def _rate(self) -> float:
        gone = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        return (len(self._times) - 1) / gone if gone > 0 else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m robot_io.camera_process")
    parser.add_argument("camera")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args()
    follow(args.parent)
    # OpenCV waits 10 s for a device that was pulled out, and prints what is said here in a line.
    os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = "1"
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    writer = Writer(args.fd, args.height, args.width)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            Camera(parse(args.camera)[0], writer, args.height, args.width).run()
    except TaktError as error:
        writer.say(str(error))
        return 1
    except Exception as error:  # whatever it is, the reader is told
        writer.say(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
