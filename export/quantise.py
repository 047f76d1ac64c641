"""A float32 graph becomes one with fewer bits, and says how many of its products did.

    int8     weights per output channel; activations per tensor, of products measured as it runs (dynamic), of
             convolutions fixed by calibration; or for TensorRT and OpenVINO all of them fixed (Q/DQ,
             symmetric int8)
    fp16     products in half precision (half.py)
    w4a16    weights of 4 bits in blocks of 32 along the input; activations as they are
    fp8      E4M3 Q/DQ, for TensorRT from sm_89 on

What is sensitive stays as it is (`KEEP`). A transform that changed nothing, or made the file no smaller, is
an error: a published "int8" policy was byte for byte its float32 one.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export import int8, integer, qdq
from export.graph import LARGE, validate
from export.half import half
from vla.contract import TaktError

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8", "w4a16"]
BLOCK = 32  # inputs that share a scale in w4a16
LEAST = 1024  # numbers of a weight below which fewer bits save nothing
TABLE = 1_000_000  # numbers of a table that is looked up, from which it is stored as int8
# Modules that keep their precision, by their path: attention of the action expert (QuantVLA: quantising it
# takes pi0.5 from 97.1 to 71.6 on LIBERO), what makes actions, the flow time and the state, adaptive norms;
# of nano and plain what makes coordinates of maps, and the small heads whose verdicts are thresholds; the one
# convolution of a transformer that looks.
KEEP = (
    r"expert\.\d+(\.self_attn.*)?$",
    r"action_\w+$", r"state_proj$", r"time_\w+$", r"norm\w*\.dense$",
    r"outlet$", r"inlet$", r"places$", r"blocks\.\d+\.time$", r"done(\.\d+)?$",
    r"eyes\.\d+$", r"points$", r"possible\.", r"tell\.\w+$", r"patch_embedding$",
)  # fmt: skip

# Names of inputs -> arrays, of one call.
Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Report:
    """What became of a graph.

    Attributes:
        quantised, products: products of an activation and a weight that have fewer bits, and all of them.
        kept: modules whose products were left as they were.
        bytes_before, bytes_after: of the graph with its weights.
    """

    precision: str
    quantised: int
    products: int
    kept: tuple[str, ...]
    bytes_before: int
    bytes_after: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class How:
    """
    Attributes:
        static: activations' scales are fixed. per_channel: each output channel of a weight has a scale.
    """

    precision: str
    static: bool = False
    per_channel: bool = True

    @property
    def convolutions(self) -> bool:
        """Whether convolutions have fewer bits as well; their activations always have fixed scales."""
        return self.precision == "int8"


def quantise(
    path: Path,
    how: How,
    feeds: Sequence[Feeds] = (),
    keep: Iterable[str] = KEEP,
    smaller: bool = True,
) -> Report:
    """Replace the graph at `path`.

    Args:
        smaller: whether a file that has become no smaller is refused.
        feeds: what activations' scales are found on, where they are fixed, see `calibrated`.
        keep: regular expressions of modules' paths that stay as they are.

    Raises:
        TaktError: nothing was quantised, the file is no smaller, or the precision is unknown.
    """
    before = size(path)
    model = onnx.load(path)
    plain_products(model.graph)
    found = products(model.graph, how)
    rules = () if how.precision == "fp16" else tuple(keep)  # what fp16 may not touch half.py knows
    kept = {name for name in found if any(re.search(rule, module(name)) for rule in rules)}
    chosen = [name for name in found if name not in kept]
    if how.precision in ("int8", "w4a16"):
        tables(model.graph)
    if chosen:
        transform(model, path, how, chosen, feeds)
    validate(path)
    after = size(path)
    count = count_quantised(onnx.load(path, load_external_data=False))
    if chosen and (count < len(chosen) or (smaller and after >= before)):
        raise TaktError(
            f"{path.name} in {how.precision} has {count} of {len(chosen)} products quantised and "
            f"{after} bytes of {before}: nothing was won"
        )
    return Report(how.precision, count, len(found), tuple(sorted({module(n) for n in kept})), before, after)


def transform(
    model: onnx.ModelProto,
    path: Path,
    how: How,
    chosen: Sequence[str],
    feeds: Sequence[Feeds],
) -> None:
    """Write the model at `path`, with the products of the names `chosen` in fewer bits."""
    with _quiet():
        _transform(model, path, how, chosen, feeds)


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools tell of every node and give advice."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _transform(
    model: onnx.ModelProto, path: Path, how: How, chosen: Sequence[str], feeds: Sequence[Feeds]
) -> None:
    if how.precision == "int8" and not how.static:
        _dynamic(model, path, chosen, feeds)
    elif how.precision in qdq.FORMATS:
        _static(model, path, how, chosen, feeds)
    elif how.precision == "fp16":
        save(half(model), path)
    elif how.precision == "w4a16":
        _four_bits(model, path, chosen)
    else:
        raise TaktError(f"no transform makes {how.precision}; known: fp16, int8, fp8, w4a16")


def size(path: Path) -> int:
    """Bytes of a graph with the file of its weights."""
    data = path.with_name(path.name + ".data")
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def module(name: str) -> str:
    """The module's path in a node's name (`graph.tidy`), without the wrappers' "step." and "model."."""
    return name.rpartition("/")[0].removeprefix("step.").removeprefix("model.")


def names(path: Path, keep: Iterable[str], how: How) -> list[str]:
    """Of the products that would be quantised, by their nodes."""
    graph = onnx.load(path).graph
    plain_products(graph)
    return [name for name in products(graph, how) if not any(re.search(rule, module(name)) for rule in keep)]


def calibrated(path: Path, how: How) -> bool:
    """Whether a graph needs observations, to fix scales of activations on."""
    return how.static or (
        how.convolutions and bool(convolved(onnx.load(path, load_external_data=False).graph))
    )


def group(name: str) -> str:
    """The part of a policy that a product is in: "vision mlp", "expert self_attn" ..."""
    path = [part for part in module(name).split(".") if not part.isdigit()]
    return (
        " ".join(dict.fromkeys(path[:1] + [p for p in path[1:-1] if p not in ("encoder", "layers")][-1:]))
        or "all"
    )


def exactly(name: str) -> str:
    """A rule that keeps the module of a product."""
    return re.escape(module(name))


def products(graph: onnx.GraphProto, how: How) -> list[str]:
    """Names of the products of an activation and a weight that is worth quantising."""
    weights = {w.name for w in _large(graph)}
    found = [n.name for n in graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    return found + (convolved(graph) if how.convolutions else [])


def convolved(graph: onnx.GraphProto) -> list[str]:
    """Names of the convolutions of pictures by a weight that is worth quantising."""
    weights = {w.name for w in _large(graph, 4)}
    return [n.name for n in graph.node if n.op_type == "Conv" and n.input[1] in weights]


def _large(graph: onnx.GraphProto, dimensions: int = 2) -> list[onnx.TensorProto]:
    """Weights that are worth quantising."""
    return [w for w in graph.initializer if len(w.dims) == dimensions and np.prod(w.dims) >= LEAST]


def plain_products(graph: onnx.GraphProto) -> None:
    """Each Gemm whose factor is a weight as MatMul and Add, which is what the tools quantise.

    Products that share a weight, as the steps in a graph of all steps do, share it afterwards as well.
    """
    weights = {w.name: w for w in graph.initializer}
    turned: dict[str, str] = {}
    for at, node in reversed(list(enumerate(graph.node))):
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        if node.op_type != "Gemm" or not plain or node.input[1] not in weights:
            continue
        factor = node.input[1]
        if given.get("transB", 0):
            if factor not in turned:
                turned[factor] = f"{factor}_turned"
                values = np.ascontiguousarray(numpy_helper.to_array(weights[factor]).T)
                graph.initializer.append(numpy_helper.from_array(values, turned[factor]))
            factor = turned[factor]
        biased = len(node.input) > 2 and node.input[2]
        out = f"{node.output[0]}_product" if biased else node.output[0]
        made = [helper.make_node("MatMul", [node.input[0], factor], [out], name=node.name)]
        if biased:
            made.append(
                helper.make_node("Add", [out, node.input[2]], [node.output[0]], name=f"{node.name}_bias")
            )
        graph.node.remove(node)
        for offset, each in enumerate(made):
            graph.node.insert(at + offset, each)
    used = {name for node in graph.node for name in node.input}
    for name in turned.keys() - used:
        graph.initializer.remove(weights[name])


def tables(graph: onnx.GraphProto) -> None:
    """Round each large table that is looked up to int8, with a scale a row, and store it so."""
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    for tensor in list(graph.initializer):
        if tensor.name not in looked_up or len(tensor.dims) != 2 or np.prod(tensor.dims) < TABLE:
            continue
        rows = numpy_helper.to_array(tensor)
        scale = np.maximum(np.abs(rows).max(axis=1), 1e-8) / 127
        rounded = (np.rint(rows / scale[:, None]) * scale[:, None]).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
        int8.store(graph, {tensor.name})


def count_quantised(model: onnx.ModelProto) -> int:
    """Products whose weight has fewer bits, whatever form they have; our own count, not a tool's."""
    made = {name: node for node in model.graph.node for name in node.output}
    narrow = {
        w.name
        for w in model.graph.initializer
        if w.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT8E4M3FN)
    }
    halves = {w.name for w in _large(model.graph) if w.data_type == onnx.TensorProto.FLOAT16}
    count = 0
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            count += 1
        elif node.op_type == "MatMulInteger":
            count += node.input[1] in narrow
        elif node.op_type == "QLinearConv":
            count += node.input[3] in narrow
        elif node.op_type in ("MatMul", "Conv"):
            behind = made.get(node.input[1])
            count += node.input[1] in halves
            count += behind is not None and behind.op_type == "DequantizeLinear" and behind.input[0] in narrow
    return count


def save(model: onnx.ModelProto, path: Path) -> None:
    """With the weights in a file of their own where they are large."""
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    if model.ByteSize() > LARGE:
        onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)
    else:
        onnx.save(model, path)


def _dynamic(model: onnx.ModelProto, path: Path, chosen: Sequence[str], feeds: Sequence[Feeds]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    del model.graph.value_info[:]  # the tool stumbles over shapes that are there already
    wanted = set(chosen)
    convolutions = [name for name in convolved(model.graph) if name in wanted]
    rest = [name for name in chosen if name not in convolutions]
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        save(model, plain)
        large = model.ByteSize() > 4 * LARGE
        path.with_name(path.name + ".data").unlink(missing_ok=True)
        if convolutions:
            integer.convolve(plain, plain if rest else path, convolutions, calibration(feeds))
        if rest:
            quantize_dynamic(
                plain, path, op_types_to_quantize=["MatMul"], nodes_to_quantize=rest, per_channel=True,
                reduce_range=integer.SEVEN_BITS, weight_type=QuantType.QInt8,
                use_external_data_format=large, extra_options={"MatMulConstBOnly": True},
            )  # fmt: skip


def calibration(feeds: Sequence[Feeds]) -> Sequence[Feeds]:
    """
    Raises:
        TaktError: there are none.
    """
    if not feeds:
        raise TaktError("fixed scales of activations need observations: say --observations")
    return feeds


def _static(
    model: onnx.ModelProto, path: Path, how: How, chosen: Sequence[str], feeds: Sequence[Feeds]
) -> None:
    qdq.insert(model, how.precision, chosen, calibration(feeds), how.per_channel)
    save(model, path)


def _four_bits(model: onnx.ModelProto, path: Path, chosen: Sequence[str]) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    wanted = set(chosen)
    left = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in wanted]
    tool = MatMulNBitsQuantizer(
        model, bits=4, block_size=BLOCK, is_symmetric=False, accuracy_level=1, nodes_to_exclude=left
    )
    tool.process()
    made = tool.model.model
    once = {w.name: w for w in made.graph.initializer}  # a weight is written for each product that reads it
    del made.graph.initializer[:]
    made.graph.initializer.extend(once.values())
    save(made, path)
