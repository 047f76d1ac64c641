"""An ONNX graph in half precision, typed node by node, as a strongly typed TensorRT network wants it.

The rule is that of torch's autocast, applied to the graph:

    products (MatMul, Gemm, Conv, Einsum)          fp16: here are the weights, and nearly all of the time
    sums, powers, softmax, normalisation           fp32
    all that leads to a sine or a cosine           fp32: angles reach 1e3 rad, where fp16 has no digits
    the rest                                       fp16 where all that it computes from is, else fp32

So the residual stream, the time embedding, RoPE tables, masks and the sampler's update stay in fp32; inputs
and outputs keep their types as well. A published collapse of a flow policy in TensorRT (cosine of actions
-0.55) went away with just this (0.9956).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.rewrite import infer_types, skeleton
from vla.contract import TaktError

_PRODUCTS = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"}
_SUMS = {
    "CumSum", "Exp", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Log", "LogSoftmax",
    "LpNormalization", "Pow", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMean",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Resize", "RMSNormalization", "Softmax", "Softplus", "Sqrt",
}  # fmt: skip
_MOST = float(np.finfo(np.float16).max)
_SINGLE, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose products are fp16.

    Raises:
        TaktError: the graph is quantised, or float16 in places already.
    """
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise TaktError("the graph is quantised: fp16 is made of a graph in fp32")
    types = infer_types(model)
    if _HALF in types.values():
        raise TaktError("the graph computes in float16 already: build it as it is typed")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.value_info[:]
    _Halves(made.graph, types).convert()
    onnx.checker.check_model(skeleton(made))
    return made


class _Halves:
    """One graph while it is converted, its nodes in topological order."""

    def __init__(self, graph: onnx.GraphProto, types: dict[str, int]) -> None:
        self.graph, self.types = graph, types
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.angles = _ancestors(graph, {"Sin", "Cos"})
        self.halves: set[str] = set()  # values that are fp16 now
        self.nodes: list[onnx.NodeProto] = []
        self.casts: dict[tuple[str, int], str] = {}
        self.rounded: dict[str, TensorProto] = {}

    def convert(self) -> None:
        outputs = {port.name for port in self.graph.output}
        for node in list(self.graph.node):
            wanted = self._wanted(node)
            for i, name in enumerate(node.input):
                if self.types.get(name) == _SINGLE:
                    node.input[i] = self._as(name, wanted)
            self._retarget(node, wanted)
            self.nodes.append(node)
            for i, name in enumerate(node.output):
                if wanted == _HALF and self.types.get(name) == _SINGLE:
                    if name not in outputs:
                        self.halves.add(name)
                        continue
                    node.output[i] = self.casts[name, _HALF] = f"{name}_half"
                    self.nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], to=_SINGLE))
        used = {name for node in self.nodes for name in node.input} | outputs
        constants = [t for t in (*self.constants.values(), *self.rounded.values()) if t.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(constants)

    def _wanted(self, node: onnx.NodeProto) -> int:
        """The type that a node computes in."""
        floats = [name for name in node.input if self.types.get(name) == _SINGLE]
        fits = all(_fits(self.constants[name]) for name in floats if name in self.constants)
        bodies = any(a.HasField("g") or a.graphs for a in node.attribute)
        if node.name in self.angles or node.op_type in _SUMS or bodies or not floats or not fits:
            return _SINGLE
        if node.op_type in _PRODUCTS:
            return _HALF
        values = [name for name in floats if name not in self.constants]
        return _HALF if values and all(name in self.halves for name in values) else _SINGLE

    def _as(self, name: str, wanted: int) -> str:
        """The name of a value, or constant, in the type that is wanted."""
        if name in self.constants:
            if wanted == _SINGLE:
                return name
            values = numpy_helper.to_array(self.constants[name]).astype(np.float16)
            self.rounded[name] = numpy_helper.from_array(values, f"{name}_half")
            return f"{name}_half"
        if (name in self.halves) == (wanted == _HALF):
            return name
        if (name, wanted) not in self.casts:
            other = f"{name}_{'half' if wanted == _HALF else 'single'}"
            self.nodes.append(helper.make_node("Cast", [name], [other], to=wanted))
            self.casts[name, wanted] = other
        return self.casts[name, wanted]

    def _retarget(self, node: onnx.NodeProto, wanted: int) -> None:
        """A Cast to float32 says what it makes; it is left fp32, and what follows decides for itself."""
        if node.op_type == "Cast" and wanted == _HALF:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == _SINGLE:
                    attribute.i = _HALF


def _fits(tensor: TensorProto) -> bool:
    """Whether fp16 holds the values: those of a mask, say -1e9, are infinite there, and softmax then NaN."""
    values = numpy_helper.to_array(tensor)
    return values.size == 0 or float(np.abs(values).max()) <= _MOST


def _ancestors(graph: onnx.GraphProto, kinds: set[str]) -> set[str]:
    """Names of the nodes of these kinds, and of all that computes their inputs; nameless nodes get one."""
    makers: dict[str, onnx.NodeProto] = {}
    for i, node in enumerate(graph.node):
        node.name = node.name or f"node_{i}"
        makers |= {name: node for name in node.output}
    found: set[str] = set()
    todo = [node for node in graph.node if node.op_type in kinds]
    while todo:
        node = todo.pop()
        if node.name not in found:
            found.add(node.name)
            todo += [makers[name] for name in node.input if name in makers]
    return found
