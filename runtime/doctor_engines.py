"""Engines, really run, and the board under them: what `takt doctor` says of both."""

from __future__ import annotations

import importlib.util
import statistics
import time
from importlib.resources import files
from pathlib import Path

import numpy as np

from runtime import bundle, engine_ort, engines
from runtime.board import read as read_board
from runtime.cuda import Cuda
from runtime.engine_tensorrt import TensorrtGraph
from runtime.finding import Row, first_line
from runtime.tensorrt_library import MODULES, Library
from vla.contract import Observation, PolicySpec, TaktError

# y = x + x over float32 of shape (2,), as a serialised ONNX ModelProto: 63 bytes need no file and no `onnx`.
DOUBLE = (
    b'\x08\x08:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n\x00\x10\x11"
)

# What runs the shipped bundle. ONNX Runtime's TensorRT provider would build its engines first, for minutes.
_TRIED = ("onnx", "cuda", "openvino", "tensorrt", "tensorrt-rtx")
_ROUNDS = 7


def board() -> list[Row]:
    """On a Jetson: which, in which power mode, at which clocks; nothing elsewhere."""
    return [Row(name, "warn" if below else "ok", detail) for name, detail, below in read_board()]


def openvino() -> list[Row]:
    """The graph of `DOUBLE` on the CPU; nothing where OpenVINO is not installed."""
    if not _installed("openvino"):
        return []
    try:
        import openvino as ov

        core = ov.Core()
        title = f"OpenVINO {ov.__version__.partition('-')[0]}"
        (y,) = core.compile_model(core.read_model(DOUBLE), "CPU")(
            {"x": np.array([1, 2], np.float32)}
        ).values()
        computes = ", ".join(n for n in ("FP32", "BF16", "FP16", "INT8")
                             if n in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))  # fmt: skip
    except Exception as error:  # RuntimeErrors of its own making
        return [Row("OpenVINO", "warn", first_line(error))]
    if not np.array_equal(y, [2, 4]):
        return [Row(title, "warn", f"gives wrong numbers: 2 * [1, 2] = {y}")]
    return [Row(title, "ok", f"ran a graph; this processor computes in {computes}")]


def tensorrt() -> list[Row]:
    """TensorRT: an engine built and run."""
    return [_trial("tensorrt")]


def tensorrt_rtx() -> list[Row]:
    """TensorRT for RTX, likewise; nothing where it is not installed."""
    return [_trial("tensorrt-rtx")] if _installed(MODULES["tensorrt-rtx"]) else []


def chunks() -> list[Row]:
    """The shipped bundle run by every engine that is installed, and how long a chunk takes."""
    path = Path(str(files("vla") / "bundles" / "nano"))
    try:
        loaded = bundle.load(path)
    except TaktError:  # which another check tells
        return []
    return [_chunk(loaded, name) for name in _TRIED if _there(name)]


def _chunk(loaded: bundle.Bundle, name: str) -> Row:
    title, failure = f"engine {name}", "fail" if name == engines.DEFAULT else "warn"
    try:
        policy = engines.open_bundle(loaded, name)
        seen, seconds = _blank(loaded.spec), []
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            policy.infer(seen)
            seconds.append(time.perf_counter() - begun)
    except Exception as error:  # each engine's own exceptions
        return Row(title, failure, first_line(error))  # type: ignore[arg-type]
    took = 1e3 * statistics.median(seconds[2:])
    return Row(title, "ok", f"{took:.1f} ms for a chunk of the shipped bundle, at the median")


def _trial(product: str) -> Row:
    """Build the graph of `DOUBLE` and run it."""
    try:
        library = Library(product)
    except TaktError as error:
        return Row("TensorRT" if product == "tensorrt" else "TensorRT for RTX", "warn", str(error))
    title = f"{'TensorRT' if product == 'tensorrt' else 'TensorRT for RTX'} {library.version}"
    try:
        plan = library.smallest(DOUBLE)
    except Exception as error:  # pybind's, where the driver is missing
        return Row(title, "warn", f"does not build an engine: {first_line(error)}")
    try:
        y = TensorrtGraph(library, Cuda(), plan, "double")({"x": np.array([1, 2], np.float32)})["y"]
    except Exception as error:  # CUDA's
        return Row(title, "warn", f"builds an engine; {first_line(error)}")
    if not np.array_equal(y, [2, 4]):
        return Row(title, "warn", f"gives wrong numbers: 2 * [1, 2] = {y}")
    return Row(title, "ok", "built an engine and ran it")


def _there(name: str) -> bool:
    if name in engine_ort.PROVIDERS:
        if not _installed("onnxruntime"):
            return False
        import onnxruntime as ort

        return engine_ort.PROVIDERS[name] in ort.get_available_providers()
    if name in MODULES:  # why not is told by their own checks
        return _installed(MODULES[name]) and _gpu()
    return _installed("onnxruntime" if name == engines.DEFAULT else name)


def _gpu() -> bool:
    try:
        Cuda().close()
    except TaktError:
        return False
    return True


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module without a spec
        return False


def _blank(spec: PolicySpec) -> Observation:
    frames = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in spec.cameras}
    return Observation(
        0.0, np.zeros(len(spec.state), np.float32), frames, "put the red cube in the blue bowl"
    )
