"""What stays on the device between runs of an engine, and a run that is captured once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.cuda import Cuda
from vla.contract import TaktError


class DeviceArray:
    """An array that stays on the device; numpy gets a copy of it.

    It holds until the graph that made it has run again (x_next: twice again).

    Attributes:
        address: of the first byte.
        times: each row counts that often, which is how one memory serves several candidates.
    """

    def __init__(self, cuda: Cuda, address: int, shape: tuple[int, ...], dtype: str, times: int = 1) -> None:
        self.cuda, self.address, self.rows, self.dtype, self.times = cuda, address, shape, dtype, times

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows[0] * self.times, *self.rows[1:]) if self.times > 1 else self.rows

    def repeat(self, times: int, axis: int = 0) -> DeviceArray:
        """Each row `times` times, as numpy.repeat asks for it; nothing is copied yet."""
        if axis != 0 or self.times != 1:
            raise ValueError("only the rows of an array that was not repeated before are repeated")
        return DeviceArray(self.cuda, self.address, self.rows, self.dtype, times)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on the device cannot be seen by numpy without a copy")
        host = np.empty(self.rows, self.dtype)
        self.cuda.get(host, self.address)
        self.cuda.wait()
        return np.repeat(host, self.times, axis=0).astype(dtype or host.dtype, copy=False)


class Plan:
    """A run for one set of shapes: plain the first time, captured after it, then launched.

    Attributes:
        staged: inputs' pinned arrays, to be filled before it is called.
        taken: outputs' pinned arrays, filled when it is done.
        left: outputs that stay on the device.
    """

    def __init__(
        self,
        cuda: Cuda,
        work: Callable[[], None],
        staged: dict[str, np.ndarray],
        taken: dict[str, np.ndarray],
        left: dict[str, DeviceArray],
        name: str,
        capture: bool,
    ) -> None:
        self.staged, self.taken, self.left = staged, taken, left
        self._cuda, self._work, self._name = cuda, work, name
        self._graph: Any = None
        self._plain = not capture

    def __call__(self) -> None:
        if self._graph is not None:
            self._cuda.launch(self._graph)
            return
        self._work()  # TensorRT sets itself up for new shapes in a first run, which cannot be captured
        if self._plain:
            return
        self._cuda.wait()
        try:
            self._graph = self._cuda.capture(self._work)
        except TaktError as error:
            self._plain = True
            print(f"takt: {self._name}: {error}; its kernels are launched one by one", file=sys.stderr)

    def close(self) -> None:
        if self._graph is not None:
            self._cuda.drop(self._graph)
            self._graph = None
