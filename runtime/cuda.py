"""The dozen calls of the CUDA runtime that an engine on a GPU needs, by cuda-bindings, each one checked.

Addresses are plain ints. The names used are in cuda-python 12.6 (JetPack 6) as in cuda-bindings 13.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from vla.contract import TaktError

ALIGNMENT = 256  # bytes; of every tensor's address, as TensorRT wants it


class Cuda:
    """The first GPU, and one stream on it.

    Attributes:
        name: of the GPU.
        compute: its compute capability, "8.7".
        stream: on which everything is put.
    """

    def __init__(self, runtime: Any = None) -> None:
        """`runtime`: the module cuda.bindings.runtime, or what stands in for it.

        Raises:
            TaktError: cuda-bindings is not installed, or there is no GPU.
        """
        if runtime is None:
            try:
                runtime = importlib.import_module("cuda.bindings.runtime")
            except ImportError:
                raise TaktError(
                    "cuda-bindings is not installed: pip install 'takt-vla[tensorrt]' (JetPack 6: "
                    "pip install 'cuda-python==12.6.*'; docs/jetson.md)"
                ) from None
        self._rt = runtime
        try:
            about = self._do(runtime.cudaGetDeviceProperties(0))
        except (TaktError, RuntimeError) as error:  # the latter from cuda-python 12 without a driver
            raise TaktError(f"no NVIDIA GPU can be used here ({error})") from None
        name = about.name
        self.name = (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0")
        self.compute = f"{about.major}.{about.minor}"
        self.stream = int(self._do(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)))
        self._owned: list[tuple[Callable[[int], Any], int]] = []

    def allocate(self, size: int) -> int:
        """The address of `size` bytes on the device; they are given back with this object."""
        address = int(self._do(self._rt.cudaMalloc(max(size, 1))))
        self._owned.append((self._rt.cudaFree, address))
        return address

    def pinned(self, size: int) -> np.ndarray:
        """`size` bytes of the host's memory that the device copies from without a detour, uint8."""
        address = int(self._do(self._rt.cudaMallocHost(max(size, 1))))
        self._owned.append((self._rt.cudaFreeHost, address))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def put(self, to: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the device, in the order of the stream."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(to, array.ctypes.data, array.nbytes, kind)

    def get(self, array: np.ndarray, start: int) -> None:
        """Copy from the device into a contiguous array, in the order of the stream."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, start, array.nbytes, kind)

    def move(self, to: int, start: int, size: int) -> None:
        """Copy `size` bytes on the device, in the order of the stream."""
        self._copy(to, start, size, self._rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def wait(self) -> None:
        """Until all that was put on the stream is done."""
        self._do(self._rt.cudaStreamSynchronize(self.stream))

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` puts on the stream, as one graph to `launch`; it is recorded and not run.

        Raises:
            TaktError: something in it cannot be captured; the stream is usable again.
        """
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do(self._rt.cudaStreamBeginCapture(self.stream, mode))
        failed: Exception | None = None
        try:
            work()
        except Exception as error:  # the capture has to be ended whatever it was
            failed = error
        ended = self._rt.cudaStreamEndCapture(self.stream)
        if failed is not None:
            self._rt.cudaGetLastError()  # it would be reported by the next call otherwise
            raise TaktError(f"the work cannot be captured as a CUDA graph: {failed}")
        graph = self._do(ended)
        executable = self._do(self._rt.cudaGraphInstantiate(graph, 0))
        self._do(self._rt.cudaGraphDestroy(graph))
        return executable

    def launch(self, executable: Any) -> None:
        """Put a captured graph on the stream."""
        self._do(self._rt.cudaGraphLaunch(executable, self.stream))

    def drop(self, executable: Any) -> None:
        """Forget a captured graph."""
        self._do(self._rt.cudaGraphExecDestroy(executable))

    def close(self) -> None:
        """Give all memory back; what it was handed out for is not to be used any more."""
        self.wait()
        while self._owned:
            free, address = self._owned.pop()
            self._do(free(address))

    def _copy(self, to: int, start: int, size: int, kind: Any) -> None:
        self._do(self._rt.cudaMemcpyAsync(to, start, size, kind, self.stream))

    def _do(self, answer: tuple[Any, ...]) -> Any:
        """The result of a call, whose first part is its error.

        Raises:
            TaktError: CUDA's own words for the error.
        """
        error, *rest = answer
        if int(error) != 0:
            words = self._rt.cudaGetErrorString(error)[1]
            raise TaktError(f"CUDA: {words.decode() if isinstance(words, bytes) else words}")
        return rest[0] if rest else None
