"""What TensorRT refuses, found by us first: one line that names the node and says what to do.

TensorRT's own parser tells the same in many lines, at the board, after minutes. What is refused here was
refused by a real build (tests/export/test_tensorrt.py holds both to the same verdict), or is documented so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vla.contract import TaktError

OPSETS = (9, 24)  # documented for TensorRT 10.13 and newer; 10.0 to 10.3 stop at 20
OLD_OPSET, OLD_VERSIONS = 20, (10, 8)  # up to that version
_STATIC = "quantise to static S8 instead (QuantizeLinear and DequantizeLinear with int8 and zero points of 0)"
_REFUSED = {
    "DynamicQuantizeLinear": f"it rounds activations by their range at run time; {_STATIC}",
    "MatMulInteger": f"it is what dynamic quantisation leaves; {_STATIC}",
    "ConvInteger": f"it is what dynamic quantisation leaves; {_STATIC}",
    "QLinearMatMul": f"write it as MatMul between Q and DQ; {_STATIC}",
    "QLinearConv": f"write it as Conv between Q and DQ; {_STATIC}",
    "MatMulNBits": "store int4 weights with DequantizeLinear (opset 21, block_size) before a MatMul instead",
}
# Types that need a GPU: bytes of the type -> least compute capability, and its name.
_LEAST: dict[int, tuple[float, str]] = {
    TensorProto.FLOAT8E4M3FN: (8.9, "fp8"),
    TensorProto.FLOAT8E5M2: (8.9, "fp8"),
    TensorProto.FLOAT4E2M1: (10.0, "fp4"),
}
_PORTS = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.BOOL,
}  # fmt: skip


def check(
    model: onnx.ModelProto,
    compute: float | None = None,
    version: tuple[int, int] | None = None,
    supports: Callable[[str], bool] | None = None,
) -> None:
    """Refuse what TensorRT would.

    Args:
        model: before `export.rewrite.rewrite`, which adds nothing that is refused.
        compute: compute capability of the GPU, such as 8.7; None where the target is not known yet.
        version: of TensorRT, where it is at hand.
        supports: an operator's name -> whether the parser at hand knows it (OnnxParser.supports_operator).

    Raises:
        TaktError: the first thing refused: node, why, what to do.
    """
    _opset(model, version)
    for port in [*model.graph.input, *model.graph.output]:
        if port.type.tensor_type.elem_type not in _PORTS:
            kind = _type(port.type.tensor_type.elem_type)
            raise TaktError(f"{port.name!r} is {kind}, which TensorRT has no input or output of: use float32")
    constants = {t.name: t for t in model.graph.initializer}
    made: dict[str, int] = {}  # what a QuantizeLinear makes -> its type
    for node, constant in _nodes(model.graph, constants):
        named = f"node {node.name or node.output[0]!r} ({node.op_type})"
        if node.op_type in _REFUSED:
            raise TaktError(f"{named} is refused by TensorRT: {_REFUSED[node.op_type]}")
        if supports is not None and not supports(node.op_type):
            raise TaktError(f"{named} is an operator that this TensorRT does not know: export without it")
        if supports is None and node.domain not in ("", "ai.onnx", "trt"):
            raise TaktError(
                f"{named} is of the domain {node.domain}, which TensorRT need not know: "
                "export with operators of ONNX alone"
            )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            made[node.output[0]] = _quantised(node, named, constant, made)
        for name in node.input:
            least, kind = _LEAST.get(constant[name].data_type, (0.0, "")) if name in constant else (0.0, "")
            if compute is not None and compute < least:
                raise TaktError(
                    f"{named} computes in {kind}, which needs compute capability {least}; this GPU has "
                    f"{compute}: export int8 or fp16 for it"
                )


def _opset(model: onnx.ModelProto, version: tuple[int, int] | None) -> None:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    most = OLD_OPSET if version is not None and version <= OLD_VERSIONS else OPSETS[1]
    if opset is None or not OPSETS[0] <= opset <= most:
        raise TaktError(
            f"the graph has opset {opset}; TensorRT takes {OPSETS[0]} to {most}: export with opset 20"
        )


def _quantised(
    node: onnx.NodeProto, named: str, constants: dict[str, TensorProto], made: dict[str, int]
) -> int:
    """The type that a Q or DQ quantises to, which is symmetric: not uint8, and no zero point but 0.

    TensorRT takes a uint8 whose zero point is 0, as int8: values above 127 are cut off without a word.
    """
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero is None and len(node.input) > 2 and node.input[2]:
        raise TaktError(f"{named} computes its zero point; TensorRT wants a constant: {_STATIC}")
    kind = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    if zero is not None:
        kind = zero.data_type
    elif node.op_type == "DequantizeLinear":
        values = constants.get(node.input[0])
        kind = made.get(node.input[0], 0) if values is None else values.data_type
    if kind in (0, TensorProto.UINT8):
        raise TaktError(f"{named} is uint8, and TensorRT quantises to int8 alone: {_STATIC}")
    if zero is not None and kind == TensorProto.INT8 and np.any(numpy_helper.to_array(zero)):
        raise TaktError(f"{named} has a zero point that is not 0; TensorRT is symmetric: {_STATIC}")
    return kind


def _nodes(
    graph: onnx.GraphProto, constants: dict[str, TensorProto]
) -> Iterator[tuple[onnx.NodeProto, dict[str, TensorProto]]]:
    """Every node, those in the bodies of Loop, Scan and If too, with the constants that it sees."""
    for node in graph.node:
        yield node, constants
        for attribute in node.attribute:
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _nodes(body, constants | {t.name: t for t in body.initializer})


def _type(kind: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(kind)) if kind else "of no type"
