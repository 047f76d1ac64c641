"""Fixed scales for products: what TensorRT and OpenVINO read as int8 or fp8 (E4M3), symmetric Q/DQ pairs.

    x -> [Mul by 1/s] -> QuantizeLinear -> DequantizeLinear -> MatMul <- DequantizeLinear <- weight
    x ----------------> QuantizeLinear -> DequantizeLinear -> Conv   <- DequantizeLinear <- weight

Activations have one scale, weights one for each output channel. For each weight the scale of what it is
multiplied with is the one, among several shares of the largest value seen, that errs least, and so is how
much of the difficulty moves from activations to weights: s_j = max|X_j|^a / max|W_j|^(1-a) (SmoothQuant,
arXiv 2211.10438, equation 4). Of a convolution it is the one at which what comes in is rounded best, and
nothing is moved. Products of one weight, as in a graph of all steps, have its scales together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from runtime.graphs import OnnxGraph

Feeds = Mapping[str, np.ndarray]
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the largest value, at which an activation is cut off
ALPHAS = (0.5, 0.75, 0.85)  # of smoothing
GAIN = 0.8  # smoothing is worth a multiplication where the error is below this share of that without
ROWS = 256  # of an activation that are kept of each call
PRODUCTS = 24  # weights whose products' activations are recorded at a time, which bounds the memory


@dataclass(frozen=True)
class Format:
    """A number of few bits.

    Attributes:
        top: the largest one. round: floats -> the nearest of those within -top .. top, as floats.
        store: those as they are kept in a graph.
    """

    top: float
    round: Callable[[np.ndarray], np.ndarray]
    store: Callable[[np.ndarray], np.ndarray]


FORMATS = {
    "int8": Format(127.0, lambda x: np.clip(np.rint(x), -127, 127), lambda x: x.astype(np.int8)),
    "fp8": Format(
        448.0,
        lambda x: np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
        lambda x: x.astype(ml_dtypes.float8_e4m3fn),
    ),
}


@dataclass(frozen=True)
class Scales:
    """Of a product: the activation's, and what its channels are divided by before; None for nothing."""

    activation: float
    smooth: np.ndarray | None


def insert(
    model: onnx.ModelProto, name: str, chosen: Sequence[str], feeds: Sequence[Feeds], per_channel: bool = True
) -> None:
    """Put the pairs of the format of that name around the products of the nodes `chosen`.

    Args:
        per_channel: False gives a weight one scale, which is coarser.
    """
    kind = FORMATS[name]
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    wanted = set(chosen)
    readers: dict[str, list[onnx.NodeProto]] = {}  # weight -> its products
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Conv") and node.name in wanted:
            readers.setdefault(node.input[1], []).append(node)
    found = {}
    for w, x in _recorded(model, readers, feeds):
        plain = weights[w].ndim == 2
        found[w] = scales(x, weights[w], kind, per_channel) if plain else Scales(rounding(x, kind), None)
    for weight, nodes in readers.items():
        stored = _store(model.graph, nodes[0].name, weights[weight], kind, found[weight], per_channel)
        for node in nodes:
            _wrap(model.graph, node, stored, found[weight], per_channel)
    used = {port for node in model.graph.node for port in node.input}
    for unread in [w for w in model.graph.initializer if w.name not in used]:
        model.graph.initializer.remove(unread)


def scales(x: np.ndarray, weight: np.ndarray, kind: Format, per_channel: bool = True) -> Scales:
    """The scales of a product x (N, K) times weight (K, M) that err least on it."""
    wanted = x @ weight

    def error(smooth: np.ndarray | None, share: float) -> tuple[float, float]:
        """Mean square, and the scale it comes of."""
        a, w = (x, weight) if smooth is None else (x / smooth, weight * smooth[:, None])
        scale = share * max(float(np.abs(a).max()), 1e-9) / kind.top
        of_w = weight_scales(w, kind, per_channel)
        got = (kind.round(a / scale) * np.float32(scale)) @ (kind.round(w / of_w) * of_w)
        return float(np.square(got - wanted).mean()), scale

    def best(smooth: np.ndarray | None) -> tuple[float, float]:
        return min(error(smooth, share) for share in SHARES)

    plain = best(None)
    tried = [(best(s), s) for s in (smoothing(x, weight, alpha) for alpha in ALPHAS)]
    (least, scale), smooth = min(tried, key=lambda pair: pair[0][0])
    return Scales(scale, smooth) if least < GAIN * plain[0] else Scales(plain[1], None)


def rounding(x: np.ndarray, kind: Format) -> float:
    """The scale at which x, of any shape, is rounded with the least mean square error."""
    top = max(float(np.abs(x).max()), 1e-9) / kind.top

    def error(share: float) -> float:
        scale = np.float32(share * top)
        return float(np.square(kind.round(x / scale) * scale - x).mean())

    return min(SHARES, key=error) * top


def smoothing(x: np.ndarray, weight: np.ndarray, alpha: float) -> np.ndarray:
    """What each channel of an activation is divided by, shape (K,)."""
    of_x, of_w = np.abs(x).max(axis=0), np.abs(weight).max(axis=1)
    found = np.maximum(of_x, 1e-5) ** alpha / np.maximum(of_w, 1e-5) ** (1 - alpha)
    return np.clip(found, 1e-4, 1e4).astype(np.float32)


def weight_scales(weight: np.ndarray, kind: Format, per_channel: bool) -> np.ndarray:
    """Of each output channel, as the weight is divided by them; or one number.

    Args:
        weight: (K, M), which gives (M,), or a convolution's (M, ...), which gives (M, 1, ...).
    """
    others = 0 if weight.ndim == 2 else tuple(range(1, weight.ndim))
    top = np.abs(weight).max(axis=others, keepdims=weight.ndim > 2) if per_channel else np.abs(weight).max()
    return (np.maximum(np.atleast_1d(top), 1e-9) / kind.top).astype(np.float32)


def _recorded(
    model: onnx.ModelProto, readers: Mapping[str, Sequence[onnx.NodeProto]], feeds: Sequence[Feeds]
) -> Iterator[tuple[str, np.ndarray]]:
    """Each weight with what the activations of its products were, (N, K)."""
    rng, order = np.random.default_rng(0), list(readers)
    for start in range(0, len(order), PRODUCTS):
        some = {weight: [node.input[0] for node in readers[weight]] for weight in order[start:][:PRODUCTS]}
        names = list(dict.fromkeys(name for of in some.values() for name in of))
        listening = onnx.ModelProto()
        listening.CopyFrom(model)
        there = {value.name for value in listening.graph.output}
        new = [name for name in names if name not in there]
        listening.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in new)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "graph.onnx"
            onnx.save(listening, file, save_as_external_data=True, location="graph.onnx.data")
            del listening
            graph, seen = OnnxGraph(file, threads=2), {name: list[np.ndarray]() for name in names}
            for call in feeds:
                out = {**dict(call), **graph(call)}
                for name in names:
                    rows = out[name].reshape(-1, out[name].shape[-1]).astype(np.float32)
                    keep = rng.permutation(len(rows))[:ROWS] if len(rows) > ROWS else slice(None)
                    seen[name].append(rows[keep])
        for weight, of in some.items():
            yield weight, np.concatenate([rows for name in dict.fromkeys(of) for rows in seen[name]])


def _store(
    graph: onnx.GraphProto, name: str, weight: np.ndarray, kind: Format, found: Scales, each: bool
) -> str:
    """Put the constants of a product into the graph; returns what their names begin with."""
    if found.smooth is not None:
        weight = weight * found.smooth[:, None]
        _constant(graph, f"{name}_smooth", (1 / found.smooth).astype(np.float32))
    of_w = weight_scales(weight, kind, each)
    zero = kind.store(np.zeros((), np.float32))
    few = kind.store(kind.round(weight / of_w))
    of_w = of_w.reshape(-1 if each else ())
    for part, value in (
        ("x_scale", np.float32(found.activation)), ("x_zero", zero), ("w_scale", of_w),
        ("w_zero", np.broadcast_to(zero, of_w.shape).copy()),
        ("w_few", few),
    ):  # fmt: skip
        _constant(graph, f"{name}_{part}", np.asarray(value))
    return name


def _wrap(graph: onnx.GraphProto, node: onnx.NodeProto, stored: str, found: Scales, each: bool) -> None:
    """Put the pairs around one product, with the constants whose names begin with `stored`."""
    x, name = node.input[0], node.name
    made = []
    if found.smooth is not None:
        made.append(
            helper.make_node("Mul", [x, f"{stored}_smooth"], [f"{name}_smoothed"], name=f"{name}_Mul")
        )
        x = f"{name}_smoothed"
    pair = [f"{stored}_x_scale", f"{stored}_x_zero"]
    axis: dict[str, Any] = {"axis": 1 if node.op_type == "MatMul" else 0} if each else {}
    of_weight = [f"{stored}_{part}" for part in ("w_few", "w_scale", "w_zero")]
    # A pair for every product, those of one weight included: engines fuse each with its own.
    made += [
        helper.make_node("QuantizeLinear", [x, *pair], [f"{name}_x_few"], name=f"{name}_Q"),
        helper.make_node("DequantizeLinear", [f"{name}_x_few", *pair], [f"{name}_x"], name=f"{name}_DQ"),
        helper.make_node("DequantizeLinear", of_weight, [f"{name}_w"], name=f"{name}_W", **axis),
    ]
    at = list(graph.node).index(node)
    for offset, new in enumerate(made):
        graph.node.insert(at + offset, new)
    node.input[0], node.input[1] = f"{name}_x", f"{name}_w"


def _constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))
