"""TensorRT as an engine: memory that stays on the device, and CUDA graphs over prefix and steps.

    host      frames, state, tokens          x, kept, kept_mask, t, dt               actions
                 | pinned                        | pinned                               ^ pinned
    device       v                               v                                      |
              [ prefix ] --- memory ---> [ step ] -- x_next --> [ step ] -- ... --> [ step ]
              one CUDA graph             one CUDA graph over all the steps

Everything between the arrows of the host is captured once a shape and launched as one graph: with 1,400
kernels a chunk, launching them one by one costs as much as running them. Engines come from this machine's
cache alone (runtime/engine_cache.py); `takt build` fills it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime import engine_cache
from runtime.cuda import ALIGNMENT, Cuda
from runtime.device import DeviceArray, Plan
from runtime.engine_cache import Key
from runtime.graphs import Arrays, Graph, Shape
from runtime.tensorrt_library import Library
from vla.contract import TaktError

_SHAPES_KEPT = 8  # captured graphs an engine; each has an execution context, and with it scratch memory
_RESIDENT = ("memory_", "x_next")  # outputs whose names begin so stay on the device


class TensorrtGraph:
    """An engine as a `Graph`; its steps also as a loop (`graphs.Looping`)."""

    def __init__(self, library: Library, cuda: Cuda, data: bytes, name: str) -> None:
        """Deserialise `data`; `name` is the graph's, for messages.

        Raises:
            TaktError: TensorRT refuses it, or it wants what no policy's graph has.
        """
        self._trt, self._library, self._cuda, self.name = library.trt, library, cuda, name
        runtime = self._trt.Runtime(library.logger)
        engine = runtime.deserialize_cuda_engine(data) if runtime is not None else None
        if engine is None:
            raise TaktError(
                f"{library.product} {library.version} refuses the engine {name!r}: {library.why()}"
            )
        self._runtime, self._engine = runtime, engine
        self.inputs: dict[str, tuple[str, Shape]] = {}
        self.outputs: list[str] = []
        self._dtypes: dict[str, str] = {}
        for i in range(engine.num_io_tensors):
            self._port(engine.get_tensor_name(i))
        self._tops = self._largest()
        self._device = {port: cuda.allocate(self._bytes(port)) for port in self._tops}
        self._host = {port: cuda.pinned(self._bytes(port)) for port in self._tops}
        self._spare = cuda.allocate(self._bytes("x_next")) if self.loops else 0  # x_next and x take turns
        self._times: dict[int, int] = {}  # steps -> the address of their times
        self._plans: OrderedDict[tuple[Any, ...], Plan] = OrderedDict()

    @property
    def loops(self) -> bool:
        """Whether it is a flow step, of which several can run as one."""
        return {"x", "t", "dt"} <= set(self.inputs) and "x_next" in self.outputs

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Run once. Outputs named `memory_*` and `x_next` are `DeviceArray`s, the others are copies."""
        return self._run(feeds, steps=0)

    def loop(self, feeds: Mapping[str, np.ndarray], steps: int) -> Arrays:
        """Run `steps` times from t = 0 in equal steps, each from the x_next of the one before."""
        t, dt = np.zeros(1, np.float32), np.full(1, 1.0 / steps, np.float32)
        return self._run({**feeds, "t": t, "dt": dt}, steps)

    def close(self) -> None:
        """Forget the captured graphs."""
        while self._plans:
            self._forget()

    # -- a run

    def _run(self, feeds: Mapping[str, Any], steps: int) -> Arrays:
        given = {port: feeds[port] for port in self.inputs}
        resident = {port: value for port, value in given.items() if isinstance(value, DeviceArray)}
        places = {p: (v.address, v.rows, v.times) for p, v in resident.items()}
        shapes = {port: tuple(value.shape) for port, value in given.items()}
        key = (steps, tuple(shapes.items()), tuple(places.items()))
        if key not in self._plans:
            while len(self._plans) >= _SHAPES_KEPT:
                self._forget()
            self._plans[key] = self._plan(shapes, resident, steps)
        self._plans.move_to_end(key)
        plan = self._plans[key]
        for port, staged in plan.staged.items():
            np.copyto(staged, given[port], casting="same_kind")
        plan()
        self._cuda.wait()
        return {
            port: plan.taken[port].copy() if port in plan.taken else plan.left[port]  # type: ignore[misc]
            for port in self.outputs
        }

    def _plan(self, shapes: dict[str, tuple[int, ...]], resident: dict[str, DeviceArray], steps: int) -> Plan:
        """What a run with these shapes does, captured where that can be done."""
        for port, shape in shapes.items():
            if any(size > most for size, most in zip(shape, self._tops[port], strict=True)):
                raise TaktError(
                    f"the engine {self.name!r} takes {port!r} up to {self._tops[port]}, got {shape}: "
                    "build it for more with takt build --batch"
                )
        context = self._context()
        for port, shape in shapes.items():
            if not context.set_input_shape(port, shape):
                raise TaktError(
                    f"the engine {self.name!r} refuses {port!r} of shape {shape}: {self._library.why()}"
                )
        addresses, moves = dict(self._device), []
        for port, array in resident.items():
            if array.times == 1:
                addresses[port] = array.address
            else:
                moves += self._spread(array, addresses[port])
        if steps:
            addresses["t"] = self._table(steps)
        if self.loops and addresses["x"] == addresses["x_next"]:  # it is what the step before has left
            addresses["x_next"] = self._spare
        sizes = {port: tuple(context.get_tensor_shape(port)) for port in self.outputs}
        staged = {
            port: self._view(self._host[port], port, shape)
            for port, shape in shapes.items()
            if port not in resident and not (steps and port == "t")
        }
        taken = {
            port: self._view(self._host[port], port, shape)
            for port, shape in sizes.items()
            if not port.startswith(_RESIDENT)
        }
        turns = max(steps, 1)
        last = addresses["x_next"] if self.loops and turns % 2 else addresses.get("x", 0)

        def work() -> None:
            for port, array in staged.items():
                self._cuda.put(addresses[port], array)
            for to, start, size in moves:
                self._cuda.move(to, start, size)
            for turn in range(turns):
                self._enqueue(context, addresses, turn)
            for port, array in taken.items():
                self._cuda.get(array, addresses[port])

        left = {
            port: DeviceArray(
                self._cuda, last if port == "x_next" else addresses[port], sizes[port], self._dtypes[port]
            )
            for port in sizes
            if port not in taken
        }
        # TensorRT for RTX captures by itself, and swaps kernels while it runs: its graphs are left to it.
        return Plan(self._cuda, work, staged, taken, left, self.name, self._library.product == "tensorrt")

    def _enqueue(self, context: Any, addresses: dict[str, int], turn: int) -> None:
        """One run of the engine; in turn, x and x_next change places and t moves on."""
        at = dict(addresses)
        if turn % 2:
            at["x"], at["x_next"] = addresses["x_next"], addresses["x"]
        if turn:
            at["t"] = addresses["t"] + turn * ALIGNMENT
        for port, address in at.items():
            context.set_tensor_address(port, address)
        if not context.execute_async_v3(self._cuda.stream):
            raise TaktError(f"the engine {self.name!r} failed: {self._library.why()}")

    def _table(self, steps: int) -> int:
        """The address of the times 0, 1 / steps, ...: one each ALIGNMENT bytes, written once."""
        if steps not in self._times:
            rows = np.zeros((steps, ALIGNMENT // 4), np.float32)
            rows[:, 0] = np.arange(steps) / steps
            self._times[steps] = self._cuda.allocate(rows.nbytes)
            self._cuda.put(self._times[steps], rows)
            self._cuda.wait()
        return self._times[steps]

    def _spread(self, array: DeviceArray, to: int) -> list[tuple[int, int, int]]:
        """Copies (to, from, bytes) that repeat each row of an array."""
        size = int(np.prod(array.rows[1:], dtype=np.int64)) * np.dtype(array.dtype).itemsize
        return [
            (to + (row * array.times + i) * size, array.address + row * size, size)
            for row in range(array.rows[0])
            for i in range(array.times)
        ]

    def _forget(self) -> None:
        _, plan = self._plans.popitem(last=False)
        plan.close()

    # -- what the engine says of itself

    def _port(self, port: str) -> None:
        engine = self._engine
        if (
            engine.is_shape_inference_io(port)
            or engine.get_tensor_location(port) != self._trt.TensorLocation.DEVICE
        ):
            raise TaktError(
                f"the engine {self.name!r} wants {port!r} on the host: export shapes as constants"
            )
        self._dtypes[port] = np.dtype(self._trt.nptype(engine.get_tensor_dtype(port))).name
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(port))
        if engine.get_tensor_mode(port) == self._trt.TensorIOMode.INPUT:
            self.inputs[port] = (self._dtypes[port], shape)
        else:
            self.outputs.append(port)

    def _largest(self) -> dict[str, tuple[int, ...]]:
        """The largest shape of every port, by the profile that the engine was built with."""
        engine, context = self._engine, self._context()
        tops: dict[str, tuple[int, ...]] = {}
        for port, (_, shape) in self.inputs.items():
            open_batch = None in shape
            tops[port] = tuple(engine.get_tensor_profile_shape(port, 0)[2] if open_batch else shape)  # type: ignore[arg-type]
            context.set_input_shape(port, tops[port])
        return tops | {port: tuple(context.get_tensor_shape(port)) for port in self.outputs}

    def _context(self) -> Any:
        """A new execution context: a captured graph belongs to the one that it was captured from."""
        if self._library.product == "tensorrt-rtx":
            context = rtx_context(self._trt, self._engine)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise TaktError(f"no memory to run the engine {self.name!r}: {self._library.why()}")
        return context

    def _bytes(self, port: str) -> int:
        return int(np.prod(self._tops[port], dtype=np.int64)) * np.dtype(self._dtypes[port]).itemsize

    def _view(self, raw: np.ndarray, port: str, shape: tuple[int, ...]) -> np.ndarray:
        """The first bytes of pinned memory as an array."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(self._dtypes[port]).itemsize
        return raw[:size].view(self._dtypes[port]).reshape(shape)


def rtx_context(trt: Any, engine: Any) -> Any:
    """An execution context of TensorRT for RTX, which makes CUDA graphs by itself, for any shape."""
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def key(library: Library, cuda: Cuda, file: Path, precision: str) -> Key:
    """What an engine of the graph in `file` has to be built for, here."""
    digest = engine_cache.graph_digest(file)
    return Key(digest, library.product, library.version, cuda.name, cuda.compute, precision)


def open_graphs(
    files: Mapping[str, Path], product: str, precision: str = "", place: Path | None = None
) -> dict[str, Graph]:
    """The graphs run by engines out of this machine's cache.

    Raises:
        TaktError: the product or cuda-bindings is not installed, there is no GPU, no engine was built for it
            yet, or the one in the cache was made elsewhere.
    """
    library, cuda = Library(product), Cuda()
    place = place or engine_cache.folder()
    data = {n: engine_cache.read(place, n, key(library, cuda, f, precision)) for n, f in files.items()}
    return {name: TensorrtGraph(library, cuda, engine, name) for name, engine in data.items()}
