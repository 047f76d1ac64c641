"""An ONNX graph as TensorRT takes it: the same numbers, written in other words.

TensorRT reads uint8 only where a Cast follows the graph's input at once, and int8 weights only where a
DequantizeLinear follows them: all else of eight bits it takes for a quantised tensor that lacks its scale.

    frames (uint8) -> Transpose -> Cast -> ...      ->  frames (uint8) -> Cast -> Transpose -> ...
    weight (int8) -> Cast -> Mul by scales -> ...   ->  weight (float32) -> ...
    table (int8) -> Gather -> Cast -> ...           ->  table (float32) -> Gather -> ...

The first two are exact; the third is as well, since int8 and uint8 values are floats.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.graphs import one_line
from vla.contract import TaktError

_EIGHT = (TensorProto.INT8, TensorProto.UINT8)
_QUANTISED = ("DequantizeLinear", "QuantizeLinear")


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for TensorRT.

    Raises:
        TaktError: what came out is no valid ONNX, with what the checker says.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.value_info[:]  # types inside change
    cast_inputs_first(graph)
    widen_weights(graph)
    fold(graph)
    drop_unused(graph)
    try:
        onnx.checker.check_model(skeleton(made))
        infer_types(made)
    except Exception as error:  # ValidationError and InferenceError, which have no public parent
        raise TaktError(f"the graph cannot be written as TensorRT takes it ({one_line(error)})") from None
    return made


def cast_inputs_first(graph: onnx.GraphProto) -> None:
    """Let a Cast to float32 follow every uint8 input; those further down then do nothing."""
    for port in graph.input:
        if port.type.tensor_type.elem_type not in _EIGHT:
            continue
        users = [node for node in graph.node if port.name in node.input]
        if all(node.op_type == "Cast" for node in users):
            continue
        wide = f"{port.name}_wide"
        for node in users:
            for i, name in enumerate(node.input):
                if name == port.name:
                    node.input[i] = wide
        graph.node.insert(0, helper.make_node("Cast", [port.name], [wide], to=TensorProto.FLOAT))


def widen_weights(graph: onnx.GraphProto) -> None:
    """Store eight-bit constants as float32 where they are not the values of a DequantizeLinear."""
    quantised = {name for node in graph.node if node.op_type in _QUANTISED for name in node.input}
    for tensor in graph.initializer:
        if tensor.data_type in _EIGHT and tensor.name not in quantised:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def fold(graph: onnx.GraphProto) -> None:
    """Compute now what Cast, Unsqueeze and Mul make of constants: weights times their scales.

    TensorRT would as well, but half precision (export/half.py) has to round the product once and not its
    factors, whose scales may be too small for it.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs, kept = {port.name for port in graph.output}, []
    for node in graph.node:
        known = all(name in constants for name in node.input)
        foldable = (node.op_type, len(node.input)) in (("Cast", 1), ("Unsqueeze", 2), ("Mul", 2))
        if not (foldable and known) or node.output[0] in outputs:
            kept.append(node)
            continue
        values = [numpy_helper.to_array(constants[name]) for name in node.input]
        if node.op_type == "Cast":
            kind = next(a.i for a in node.attribute if a.name == "to")
            made = values[0].astype(helper.tensor_dtype_to_np_dtype(kind))
        elif node.op_type == "Mul":
            made = values[0] * values[1]
        else:
            made = np.expand_dims(values[0], tuple(int(axis) for axis in values[1].ravel()))
        constants[node.output[0]] = numpy_helper.from_array(np.asarray(made, order="C"), node.output[0])
    _replace(graph, kept, constants.values())


def drop_unused(graph: onnx.GraphProto) -> None:
    """Leave out constants that no node reads."""
    used = {name for node in graph.node for name in node.input} | {port.name for port in graph.output}
    used |= _inside(graph)
    _replace(graph, list(graph.node), [tensor for tensor in graph.initializer if tensor.name in used])


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights as inputs: enough to check types, quickly and never above 2 GB."""
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = model.graph.name or "graph"
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims)) > 256:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            bare.graph.initializer.append(tensor)
    return bare


def infer_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value; raises what onnx does where types do not fit."""
    inferred = onnx.shape_inference.infer_shapes(skeleton(model), check_type=True, strict_mode=True)
    ports = [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]
    found = {port.name: port.type.tensor_type.elem_type for port in ports}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def _inside(graph: onnx.GraphProto) -> set[str]:
    """Names that the bodies of Loop, Scan and If read, theirs and those of the graph around them."""
    found: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                found |= {name for inner in body.node for name in inner.input}
                found |= {port.name for port in body.output} | _inside(body)
    return found


def _replace(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], constants: Iterable[onnx.TensorProto]
) -> None:
    constants = list(constants)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
