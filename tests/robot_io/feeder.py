"""A camera of a test: JPEG pictures at 30 a second into a FIFO, from a process of its own.

    python -m tests.robot_io.feeder FIFO        a line of a word in, the time from which it holds out, s

moving: each picture is new. same: the last one again and again. dark: new ones, nearly black. damaged: bytes
in the middle are wrong. cut: each ends early. small: of another size.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from runtime import jpeg

RATE = 30.0
SIZE = (96, 64)  # width and height


def picture(number: int, dark: bool = False, small: bool = False) -> np.ndarray:
    """Shape (height, width, 3); one that no other number has."""
    width, height = (s // (2 if small else 1) for s in SIZE)
    image = np.zeros((height, width, 3), np.uint8)
    if dark:
        image[number % height, :, 0] = 12
        return image
    image[:, :, 1] = np.linspace(40, 220, width).astype(np.uint8)
    image[:, number % width, :] = 255
    image[number // width % height, :, 0] = 255
    return image


def piece(word: str, number: int) -> bytes:
    """What goes into the FIFO."""
    data = jpeg.encode(picture(number, word == "dark", word == "small"), 90)
    if word == "damaged":
        middle = len(data) * 2 // 3
        return data[:middle] + b"\x55" * 40 + data[middle + 80 :]
    return data[: len(data) // 2] if word == "cut" else data


def main() -> None:
    word, number, begun = "moving", 0, time.monotonic()
    with open(sys.argv[1], "wb", buffering=0) as fifo:  # waits for a reader
        print(f"{time.monotonic():.6f}", flush=True)
        for tick in range(1 << 30):
            rest = max(0.0, begun + tick / RATE - time.monotonic())
            said = bool(select.select([sys.stdin], [], [], rest)[0])
            if said:
                word = sys.stdin.readline().strip()
                time.sleep(max(0.0, begun + tick / RATE - time.monotonic()))
            number += word != "same"
            fifo.write(piece(word, number))
            if said:
                print(f"{time.monotonic():.6f}", flush=True)


class Feeder:
    """Such a process. `fifo` is there as long as `with` lasts."""

    def __init__(self, fifo: Path) -> None:
        self.fifo = fifo

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.robot_io.feeder", str(self.fifo)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def begun(self) -> float:
        """When the first picture went, s; needs somebody who reads."""
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())

    def say(self, word: str) -> float:
        """From now on pictures like that; when the first of them had gone, s."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.begun()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def feeding(folder: Path) -> Iterator[Feeder]:
    fifo = folder / "camera"
    os.mkfifo(fifo)
    feeder = Feeder(fifo)
    feeder.start()
    try:
        yield feeder
    finally:
        feeder.kill()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
