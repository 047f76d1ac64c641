"""Weights that were rounded to int8 are stored as int8: a quarter of the file, the same answers."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def store(graph: onnx.GraphProto, names: Container[str] | None = None) -> None:
    """Replace each large matrix, already rounded to int8 steps, by int8 values and their scales.

    Args:
        names: of the matrices; all by default.
    """
    for tensor in list(graph.initializer):
        if names is not None and tensor.name not in names:
            continue
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.ndim != 2 or array.size < 100_000:
            continue
        found = axis_of(array)
        if found is None:  # the table of places is not rounded
            continue
        axis, values, scale = found
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(values, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        gather = [n for n in graph.node if n.op_type == "Gather" and n.input[0] == name]
        if gather:
            _gather(graph, gather[0], name)
        else:
            _matrix(graph, name, axis)


def axis_of(array: np.ndarray) -> tuple[int, np.ndarray, np.ndarray] | None:
    """(axis, int8 values, scales) when the array is int8 times one scale per index of an axis, else None."""
    for axis in (0, 1):
        scale = (np.maximum(np.abs(array).max(axis=1 - axis), 1e-8) / 127).astype(np.float32)
        wide = scale[:, None] if axis == 0 else scale[None, :]
        values = np.rint(array / wide)
        if np.abs(values * wide - array).max() < 1e-6 * np.abs(array).max():
            return axis, values.astype(np.int8), scale
    return None


def _matrix(graph: onnx.GraphProto, name: str, axis: int) -> None:
    """int8 values times scales, folded to floats when a session loads.

    Not DequantizeLinear: ONNX Runtime fuses that into a product with rounded activations.
    """
    graph.initializer.append(numpy_helper.from_array(np.array([1 - axis], np.int64), f"{name}_other"))
    nodes = [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [f"{name}_scale", f"{name}_other"], [f"{name}_wide"]),
        helper.make_node("Mul", [f"{name}_float", f"{name}_wide"], [name]),
    ]
    for offset, new in enumerate(nodes):
        graph.node.insert(offset, new)


def _gather(graph: onnx.GraphProto, node: onnx.NodeProto, name: str) -> None:
    """Look up int8 rows and their scales instead of rows of floats: the table stays small in memory."""
    at = list(graph.node).index(node)
    ids, out = node.input[1], node.output[0]
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), f"{name}_last"))
    nodes = [
        helper.make_node("Gather", [f"{name}_int8", ids], [f"{name}_rows"], axis=0),
        helper.make_node("Cast", [f"{name}_rows"], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scale", ids], [f"{name}_row_scale"], axis=0),
        helper.make_node("Unsqueeze", [f"{name}_row_scale", f"{name}_last"], [f"{name}_wide"]),
        helper.make_node("Mul", [f"{name}_float", f"{name}_wide"], [out]),
    ]
    graph.node.remove(node)
    for offset, new in enumerate(nodes):
        graph.node.insert(at + offset, new)
