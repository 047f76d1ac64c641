"""A GPU and a TensorRT made of the host's memory and ONNX Runtime, for what lies between them and a policy.

No test machine has a GPU. What is tested with this is ours: which bytes are copied where and when, what
stays on the device, what is captured and launched again. So it is strict where the hardware is merely
undefined: device memory starts as garbage, work on the stream runs when the stream is waited for and not
before, a captured graph keeps the addresses and shapes it was captured with, an engine may not be captured
before its first run, and a copy outside what was allocated fails. An "engine" is an ONNX file's bytes, and
building one is handing on what was parsed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import Enum, IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

_GARBAGE = 0x7F  # four of them are a float of 3e38


class Cudart:
    """The calls of cuda.bindings.runtime that runtime/cuda.py makes.

    Attributes:
        count: name of a call -> how often it was made.
        device, host: address -> size of what is allocated.
        broken: captures fail, as they do where something in them is not allowed.
    """

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = Enum(
        "cudaMemcpyKind", ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice"]
    )
    cudaStreamCaptureMode = Enum("cudaStreamCaptureMode", ["cudaStreamCaptureModeThreadLocal"])

    def __init__(self) -> None:
        self.device: dict[int, int] = {}
        self.host: dict[int, int] = {}
        self.count: dict[str, int] = {}
        self.recording: list[Callable[[], None]] | None = None
        self.broken = False
        self._queue: list[Callable[[], None]] = []
        self._kept: dict[int, np.ndarray] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}

    def put(self, work: Callable[[], None]) -> None:
        """Onto the stream, or into the graph that is being captured."""
        (self._queue if self.recording is None else self.recording).append(work)

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(name=b"Emulated", major=8, minor=7)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        return 0, 7

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        return 0, self._allocate(self.device, size)

    def cudaMallocHost(self, size: int) -> tuple[int, int]:
        return 0, self._allocate(self.host, size)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.device[address], self._kept[address]
        return (0,)

    def cudaFreeHost(self, address: int) -> tuple[int]:
        del self.host[address], self._kept[address]
        return (0,)

    def cudaMemcpyAsync(self, to: int, start: int, size: int, kind: Any, stream: int) -> tuple[int]:
        self._counted(kind.name)
        if kind.name != "cudaMemcpyHostToDevice":
            self._inside(self.device, start, size)
        if kind.name != "cudaMemcpyDeviceToHost":
            self._inside(self.device, to, size)
        self.put(lambda: ctypes.memmove(to, start, size))
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        assert self.recording is None, "a stream that is captured cannot be waited for"
        queue, self._queue = self._queue, []
        for work in queue:
            work()
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[int]:
        self.recording = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:
        recorded, self.recording = self.recording, None
        return (901, None) if self.broken else (0, recorded)

    def cudaGraphInstantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[int, int]:
        self._counted("captured")
        self._graphs[self.count["captured"]] = graph
        return 0, self.count["captured"]

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:
        return (0,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[int]:
        del self._graphs[graph]
        return (0,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[int]:
        self._counted("launched")
        for work in self._graphs[graph]:
            self.put(work)
        return (0,)

    def cudaGetLastError(self) -> tuple[int]:
        return (0,)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return 0, b"operation would make the legacy stream depend on a capturing stream"

    def _allocate(self, where: dict[int, int], size: int) -> int:
        raw = np.full(size + 256, _GARBAGE, np.uint8)
        address = (raw.ctypes.data + 255) // 256 * 256
        where[address], self._kept[address] = size, raw
        return address

    def _inside(self, where: dict[int, int], address: int, size: int) -> None:
        inside = any(at <= address and address + size <= at + length for at, length in where.items())
        assert inside, f"{size} bytes at {address:#x} are not all allocated"

    def _counted(self, name: str) -> None:
        self.count[name] = self.count.get(name, 0) + 1


def tensorrt(cudart: Cudart, most: int = 8, version: str = "10.3.0") -> ModuleType:
    """A module `tensorrt` whose engines take up to `most` rows where the batch is open."""
    mode = Enum("TensorIOMode", ["INPUT", "OUTPUT"])
    place = Enum("TensorLocation", ["DEVICE", "HOST"])

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal"

        def __init__(self) -> None: ...

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            try:
                options = onnxruntime.SessionOptions()  # as OnnxGraph's, for the same sums in the same order
                options.intra_op_num_threads, options.log_severity_level = 1, 4
                return ICudaEngine(onnxruntime.InferenceSession(bytes(data), options))
            except Exception:  # what is no graph
                self.logger.log(ILogger.ERROR, "Serialization assertion failed.\nMagic tag does not match")
                return None

    class ICudaEngine:
        def __init__(self, session: onnxruntime.InferenceSession) -> None:
            self.session = session
            self.ports = {p.name: p for p in [*session.get_inputs(), *session.get_outputs()]}
            self.num_io_tensors = len(self.ports)

        def get_tensor_name(self, index: int) -> str:
            return list(self.ports)[index]

        def get_tensor_shape(self, name: str) -> list[int]:
            return [size if isinstance(size, int) else -1 for size in self.ports[name].shape]

        def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
            sizes = self.get_tensor_shape(name)
            return [[rows if size < 0 else size for size in sizes] for rows in (1, 1, most)]

        def get_tensor_dtype(self, name: str) -> str:
            return self.ports[name].type

        def get_tensor_mode(self, name: str) -> Any:
            inputs = {p.name for p in self.session.get_inputs()}
            return mode["INPUT" if name in inputs else "OUTPUT"]

        def get_tensor_location(self, name: str) -> Any:
            return place["DEVICE"]

        def is_shape_inference_io(self, name: str) -> bool:
            return False

        def create_execution_context(self) -> Any:
            return IExecutionContext(self)

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            self.engine, self.shapes, self.addresses, self.ran = engine, {}, {}, False  # type: ignore[var-annotated]

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            sizes = self.engine.get_tensor_shape(name)
            if any(size not in (-1, given) for size, given in zip(sizes, shape, strict=True)):
                return False
            self.shapes[name], self.ran = tuple(shape), False
            return True

        def get_tensor_shape(self, name: str) -> list[int]:
            sizes = self.engine.get_tensor_shape
            rows = next((shape[0] for port, shape in self.shapes.items() if sizes(port)[:1] == [-1]), 1)
            return [rows if size < 0 else size for size in sizes(name)]

        def set_tensor_address(self, name: str, address: int) -> bool:
            assert address % 256 == 0, "TensorRT wants addresses aligned to 256 bytes"
            cudart._inside(cudart.device, address, 1)
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            if cudart.recording is not None and not self.ran:
                return False  # what new shapes need cannot be captured
            self.ran = True
            at, session = dict(self.addresses), self.engine.session
            shapes = {p: tuple(self.get_tensor_shape(p)) for p in self.engine.ports}
            assert set(at) == set(shapes), "every input and output has an address"
            kinds = {p: nptype(self.engine.get_tensor_dtype(p)) for p in shapes}

            def work() -> None:
                names = [port.name for port in session.get_inputs()]
                feeds = {name: seen(at[name], shapes[name], kinds[name]).copy() for name in names}
                values = session.run(None, feeds)
                for port, value in zip(session.get_outputs(), values, strict=True):
                    seen(at[port.name], value.shape, value.dtype)[...] = value

            cudart.put(work)
            return True

    class Builder:
        def __init__(self, logger: Any) -> None: ...

        def create_network(self, flags: int) -> Any:
            assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return INetworkDefinition()

        def create_builder_config(self) -> Any:
            return IBuilderConfig()

        def create_optimization_profile(self) -> Any:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> bytes:
            config.check(network)
            return network.model.SerializeToString()

    class NetworkDefinitionCreationFlag(IntEnum):
        STRONGLY_TYPED = 1

    class BuilderFlag(IntEnum):
        TF32 = 7

    class MemoryPoolType(IntEnum):
        WORKSPACE = 0

    class INetworkDefinition:
        def __init__(self) -> None:
            self.model = onnx.ModelProto()

        @property
        def num_inputs(self) -> int:
            return len(self.model.graph.input)

        def get_input(self, index: int) -> Any:
            port = self.model.graph.input[index]
            sizes = [d.dim_value or -1 for d in port.type.tensor_type.shape.dim]
            return SimpleNamespace(name=port.name, shape=sizes)

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            self.network, self.num_errors = network, 0

        def supports_operator(self, name: str) -> bool:
            return onnx.defs.has(name)

        def parse(self, data: bytes) -> bool:
            self.network.model.ParseFromString(data)
            return True

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, tuple[Any, ...]] = {}

        def set_shape(self, name: str, *shapes: Any) -> None:
            assert len(shapes) == 3
            assert shapes[2][0] == most, "the largest batch is not what was asked for"
            self._shapes[name] = shapes

    class IBuilderConfig:
        def __init__(self) -> None:
            self._flags, self._profiles, self._cache = {7}, [], b"measured"  # type: ignore[var-annotated]

        def check(self, network: INetworkDefinition) -> None:
            """TensorRT refuses to build an open batch without a profile for it."""
            ports = [network.get_input(i) for i in range(network.num_inputs)]
            wanted = {port.name for port in ports if -1 in port.shape}
            assert wanted == set(self._profiles[0]._shapes)

        def clear_flag(self, flag: int) -> None:
            self._flags.discard(int(flag))

        def set_memory_pool_limit(self, pool: int, size: int) -> None: ...

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self._profiles.append(profile)
            return 0

        def create_timing_cache(self, data: bytes) -> Any:
            assert data in (b"", b"measured")
            return ITimingCache()

        def set_timing_cache(self, cache: Any, ignore: bool) -> bool:
            return True

        def get_timing_cache(self) -> Any:
            return ITimingCache()

    class ITimingCache:
        def serialize(self) -> bytes:
            return b"measured"

    def seen(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        cudart._inside(cudart.device, address, size)
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return raw.view(dtype).reshape(shape)

    def nptype(kind: str) -> Any:
        name = kind.removeprefix("tensor(").removesuffix(")")
        return np.dtype({"float": "float32", "double": "float64"}.get(name, name))

    module = ModuleType("tensorrt")
    classes = (ILogger, Runtime, ICudaEngine, IExecutionContext, Builder, INetworkDefinition, OnnxParser)
    flags = (NetworkDefinitionCreationFlag, BuilderFlag, MemoryPoolType)
    for made in (*classes, *flags, IOptimizationProfile, IBuilderConfig, ITimingCache, nptype):
        setattr(module, made.__name__, made)
    module.TensorIOMode, module.TensorLocation, module.__version__ = mode, place, version  # type: ignore[attr-defined]
    return module
