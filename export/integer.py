"""Convolutions in int8 for ONNX Runtime on CPUs, by its own tool, with scales that observations have fixed.

    x -> QuantizeLinear -> QLinearConv (and its Relu) -> DequantizeLinear

What comes in and goes out has 8 bits with a zero point (uint8), which a picture and what a Relu leaves make
full use of; a weight has a scale an output channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

# Of weights: on CPUs without VNNI two products of 8 bits are summed in 16 bits, and may not fit.
SEVEN_BITS = True


def convolve(path: Path, out: Path, chosen: Sequence[str], feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write the graph at `path` to `out` with the convolutions of the names `chosen` in int8.

    Args:
        feeds: of calls, on which scales are found: from the least to the largest value seen.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[Mapping[str, np.ndarray]] = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            call = next(self._left, None)
            return None if call is None else dict(call)

    graph = onnx.load(path).graph
    wanted, made = set(chosen), set[str]()
    for node in graph.node:
        if node.name in wanted:
            made.update(node.output)
    relus = [node.name for node in graph.node if node.op_type == "Relu" and node.input[0] in made]
    quantize_static(
        path, out, Reader(), quant_format=QuantFormat.QOperator, op_types_to_quantize=["Conv", "Relu"],
        nodes_to_quantize=[*chosen, *relus], per_channel=True, reduce_range=SEVEN_BITS,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
