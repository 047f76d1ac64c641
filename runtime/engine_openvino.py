"""OpenVINO as an engine: the fast one on Intel CPUs, above all where they have AMX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime.graphs import Arrays, Graph, Shape, one_line
from vla.contract import TaktError

# Precision -> OpenVINO's name of it, and what a processor that computes in it lists.
_HINTS = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}


class OpenVinoGraph:
    """A graph compiled for the CPU, its batch left open where the exporter left it so."""

    def __init__(self, path: Path, core: Any, threads: int = 1, precision: str = "fp32") -> None:
        """Compile; `core` is an openvino.Core, which several graphs share.

        Raises:
            TaktError: OpenVINO cannot read or compile the graph.
        """
        # Left to itself it computes in bf16 where it can, and, where there is VNNI, rounds what meets int8
        # weights to int8 as well: answers would differ from machine to machine.
        settings = {
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "INFERENCE_PRECISION_HINT": _HINTS[precision][0],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            compiled = core.compile_model(str(path), "CPU", settings)
        except Exception as error:  # a RuntimeError of many lines, or what its bindings make of one
            if "QLinearConv" in str(error):  # which it reads with one scale a weight alone
                raise TaktError(
                    f"{path} has convolutions in int8 as ONNX Runtime takes them, not OpenVINO: use --engine "
                    "onnx, or takt export --precision int8 --static"
                ) from None
            raise TaktError(f"{path} cannot be loaded by OpenVINO: {one_line(error)}") from None
        # A port has several names where nodes were merged; ours is the one that the ONNX file gives it.
        self.inputs = {port.any_name: (_dtype(port), _shape(port)) for port in compiled.inputs}
        names = _outputs(core, path)
        if any(name not in port.get_names() for name, port in zip(names, compiled.outputs, strict=True)):
            raise TaktError(f"{path}: OpenVINO changed the order of its outputs: use --engine onnx")
        self.outputs = names
        self._request = compiled.create_infer_request()

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        given = {name: np.asarray(feeds[name], order="C") for name in self.inputs}
        self._request.infer(given, share_inputs=True)
        # Copied, because the next run writes into the same memory and a memory outlives a step.
        return {
            name: np.array(self._request.get_output_tensor(i).data) for i, name in enumerate(self.outputs)
        }


def open_graphs(files: Mapping[str, Path], threads: int = 1, precision: str = "") -> dict[str, Graph]:
    """The graphs run by OpenVINO, in fp32 unless another precision is named.

    Raises:
        TaktError: OpenVINO is not installed, this processor does not compute in the precision, or a graph
            cannot be compiled.
    """
    try:
        import openvino
    except ImportError:
        raise TaktError("openvino is not installed: pip install 'takt-vla[openvino]'") from None
    core, precision = openvino.Core(), precision or "fp32"
    offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    valid = [name for name, (_, listed) in _HINTS.items() if listed in offered]
    if precision not in valid:
        raise TaktError(
            f"--engine openvino:{precision}: this processor does not compute in {precision}; "
            f"it has {', '.join(valid)}"
        )
    return {name: OpenVinoGraph(file, core, threads, precision) for name, file in files.items()}


def _outputs(core: Any, path: Path) -> list[str]:
    """The outputs' names as the ONNX file has them, in its order."""
    results = core.read_model(str(path)).get_results()
    return [str(result.get_friendly_name()).partition("/sink_port")[0] for result in results]


def _shape(port: Any) -> Shape:
    return tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())


def _dtype(port: Any) -> str:
    return np.dtype(port.get_element_type().to_dtype()).name
