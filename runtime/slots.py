"""Memory that two processes share, for frames on their way from a control loop to its recorder.

A nameless file in memory (memfd), which a child inherits: it ends with the two, whatever they die of. Its
pages are touched when it is laid out, so that a frame costs the loop a copy and nothing else.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping

import numpy as np

Sizes = Mapping[str, tuple[int, int, int]]  # camera -> height, width, 3


class Slots:
    """So many places, each for one frame of every camera.

    Attributes:
        handle: the file's descriptor.
    """

    def __init__(self, handle: int | None = None) -> None:
        """`handle`: of a parent's; a new file without one."""
        self.handle = os.memfd_create("takt-frames") if handle is None else handle
        self._places: list[dict[str, np.ndarray]] = []

    def lay_out(self, sizes: Sizes, count: int, fresh: bool) -> None:
        """Make `count` places for frames of these sizes; `fresh` where it is not laid out already."""
        each = sum(int(np.prod(shape)) for shape in sizes.values())
        self._places = [{} for _ in range(count)]
        if not each * count:
            return
        if fresh:
            os.ftruncate(self.handle, each * count)
        memory = np.frombuffer(mmap.mmap(self.handle, each * count), np.uint8)
        if fresh:
            memory.fill(0)
        at = 0
        for place in self._places:
            for camera, shape in sizes.items():
                size = int(np.prod(shape))
                place[camera] = memory[at : at + size].reshape(shape)
                at += size

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """A place: camera -> shape (height, width, 3), uint8."""
        return self._places[number]

    def close(self) -> None:
        self._places = []
        os.close(self.handle)
