"""Which engine runs a bundle, by name: `--engine NAME` or `--engine NAME:PRECISION`.

    onnx          ONNX Runtime on the CPU                  runtime/graphs.py
    cuda          ONNX Runtime's CUDA provider             runtime/engine_ort.py
    ort-tensorrt  ONNX Runtime's TensorRT provider         runtime/engine_ort.py
    openvino      OpenVINO on the CPU                      runtime/engine_openvino.py
    tensorrt      TensorRT, engines built on this board    runtime/engine_tensorrt.py
    tensorrt-rtx  TensorRT for RTX, the same way           runtime/engine_tensorrt.py

Without a precision the graphs run as the bundle types them. The policy does not know which one it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime import engine_openvino, engine_ort, engine_tensorrt, tensorrt_library
from runtime.bundle import Bundle
from runtime.engine import GraphPolicy
from runtime.graphs import Graph, OnnxGraph
from runtime.think import Thinking
from vla.contract import TaktError

DEFAULT = "onnx"
# Engine -> the precisions that can be asked of it; the others run a graph as it is typed and no other way.
PRECISIONS: dict[str, tuple[str, ...]] = {
    "onnx": (),
    "cuda": (),
    "ort-tensorrt": ("fp16",),
    "openvino": ("fp32", "bf16", "fp16"),
    "tensorrt": ("tf32", "fp16"),
    "tensorrt-rtx": ("tf32", "fp16"),
}


def parse(text: str) -> tuple[str, str]:
    """Engine and precision ("" for none) of "NAME" or "NAME:PRECISION".

    Raises:
        TaktError: no such engine, or not in that precision; the line lists the valid ones.
    """
    name, colon, precision = text.partition(":")
    if name not in PRECISIONS:
        raise TaktError(f"no engine {name!r}; valid: {', '.join(PRECISIONS)}")
    if colon and precision not in PRECISIONS[name]:
        valid = ", ".join(f"{name}:{p}" for p in PRECISIONS[name]) or f"{name} alone, as the bundle is typed"
        raise TaktError(f"--engine {text}: {name} offers no {precision or 'empty'} precision; valid: {valid}")
    return name, precision


def open_graphs(bundle: Bundle, engine: str = DEFAULT, threads: int = 1) -> dict[str, Graph]:
    """The bundle's graphs by name, run by the engine.

    Raises:
        TaktError: no such engine or precision; the engine is not installed, has no device, or does not take
            a graph.
    """
    name, precision = parse(engine)
    if name == "openvino":
        return engine_openvino.open_graphs(bundle.graphs, threads, precision)
    if name in tensorrt_library.MODULES:
        return engine_tensorrt.open_graphs(bundle.graphs, name, precision)
    if name in engine_ort.PROVIDERS:
        return engine_ort.open_graphs(bundle.graphs, name, threads, precision)
    return {graph: OnnxGraph(file, threads) for graph, file in bundle.graphs.items()}


def open_bundle(
    bundle: Bundle,
    engine: str = DEFAULT,
    threads: int = 1,
    clock: Callable[[], float] = time.monotonic,
    think: Thinking | None = None,
) -> GraphPolicy:
    """The bundle as a policy run by the engine; raises as `open_graphs` and `GraphPolicy`."""
    graphs = open_graphs(bundle, engine, threads)
    if think is not None and think.judge == "critic" and bundle.critic is not None:
        # A small graph on the host, whatever runs the others.
        graphs["critic"] = OnnxGraph(bundle.critic, threads)
    return GraphPolicy(bundle, graphs, clock, think)
