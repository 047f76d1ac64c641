"""A graph on its way to TensorRT: rewritten with the same numbers, judged by us as TensorRT judges it, and
really built, by TensorRT for RTX, which needs no GPU for that.

tests/export/graphs.py has the list of what is built.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import vla.__main__ as frontdoor
from export import half, tensorrt
from export.compatible import check
from export.rewrite import infer_types, rewrite
from runtime.tensorrt_library import Library
from tests.export.graphs import BUILDS, GRAPHS, HALVES, NAMES, NANO, feeds
from vla.contract import TaktError


@cache
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx")
    return Library("tensorrt-rtx")


def answers(model: onnx.ModelProto, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))


def apart(ours: onnx.ModelProto, theirs: onnx.ModelProto, batch: int) -> float:
    """Largest difference of any output, relative to the output's largest value (a probability's is 1)."""
    given = feeds(theirs, batch)
    got, worst = answers(ours, given), 0.0
    for name, value in answers(theirs, given).items():
        scale = 1.0 if name in ("done", "score") else max(float(np.abs(value).max()), 1e-6)
        worst = max(worst, float(np.abs(got[name] - value).max()) / scale)
    return worst


# -- the shipped graphs


@pytest.mark.parametrize("name", NAMES)
def test_the_rewrite_changes_no_number(name: str, tmp_path: Path) -> None:
    model = onnx.load(str(GRAPHS[name][0]()))
    made = rewrite(model)
    assert [p.name for p in made.graph.input] == [p.name for p in model.graph.input]
    assert [p.name for p in made.graph.output] == [p.name for p in model.graph.output]
    for batch in (1, 3):
        assert apart(made, model, batch) <= 1e-6


@pytest.mark.parametrize("name", ["nano-words", *HALVES])
def test_half_precision_stays_near_and_its_weights_are_half(name: str, tmp_path: Path) -> None:
    whole = rewrite(onnx.load(str(GRAPHS[name][0]())))
    made = half.half(whole)
    onnx.checker.check_model(made, full_check=True)
    assert apart(made, whole, 1) < 5e-3
    products = {"MatMul", "Gemm", "Conv"}
    read = {name for node in made.graph.node if node.op_type in products for name in node.input}
    weights = [t for t in made.graph.initializer if t.name in read]
    assert weights
    assert {t.data_type for t in weights} == {TensorProto.FLOAT16}
    assert [p.type for p in made.graph.input] == [p.type for p in whole.graph.input]
    assert [p.type for p in made.graph.output] == [p.type for p in whole.graph.output]


@pytest.mark.parametrize(("name", "precision"), BUILDS)
def test_every_graph_is_built(name: str, precision: str, tmp_path: Path) -> None:
    file = GRAPHS[name][0]()
    library = rtx()
    made = tensorrt.prepared(file, precision, library)
    data = tensorrt.build(library, made)
    weights = sum(t.ByteSize() for t in made.graph.initializer)
    assert len(data) > 0.5 * weights  # they are all in it


def test_half_precision_halves_the_engine() -> None:
    library = rtx()
    sizes = [
        len(tensorrt.build(library, tensorrt.prepared(NANO / "step.onnx", p, library))) for p in ("", "fp16")
    ]
    assert sizes[1] < 0.7 * sizes[0]


def test_without_the_rewrite_the_shipped_graphs_are_refused() -> None:
    """Were TensorRT to take uint8 and int8 as they stand one day, the rewrite could go."""
    library = rtx()
    for name in ("prefix", "words"):
        with pytest.raises(TaktError):
            tensorrt.build(library, onnx.load(str(NANO / f"{name}.onnx")))


# -- half precision


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any],
    shape: Sequence[int] = (1, 64),
    opset: int = 21,
) -> onnx.ModelProto:
    """x (float32) -> y through `nodes`; constants are arrays or tensors."""
    tensors = [
        c if isinstance(c, TensorProto) else numpy_helper.from_array(np.asarray(c), n)
        for n, c in constants.items()
    ]
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "g",
        [port("x", TensorProto.FLOAT, [1, 64])],
        [port("y", TensorProto.FLOAT, list(shape))],
        tensors,
    )
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node by its inputs and outputs, their names divided by blanks; named as its first output."""
    made = helper.make_node(kind, inputs.split(), outputs.split(), **attributes)
    made.name = outputs.split()[0]
    return made


RNG = np.random.default_rng(0)
WEIGHTS = (RNG.normal(size=(64, 64)) / 8).astype(np.float32)


def test_angles_and_what_leads_to_them_stay_in_single_precision() -> None:
    """A product on the way to a sine would be fp16 elsewhere; 1e3 rad has no digits after the point there."""
    nodes = [
        node("MatMul", "x w", "far"), node("Mul", "far thousand", "angle"), node("Sin", "angle", "s"),
        node("MatMul", "s w", "y"),
    ]  # fmt: skip
    whole = model(nodes, {"w": WEIGHTS, "thousand": np.float32(1000)})
    made = half.half(whole)
    kinds = infer_types(made)
    assert kinds["far"] == kinds["angle"] == kinds["s"] == TensorProto.FLOAT
    assert TensorProto.FLOAT16 in kinds.values()
    assert apart(made, whole, 1) < 2e-3


def test_a_mask_beyond_half_precision_does_not_become_infinite() -> None:
    """All of a row masked by -1e9 is a softmax of equals; by -inf it is NaN."""
    nodes = [
        node("MatMul", "x w", "scores"), node("Less", "x limit", "hidden"),
        node("Where", "hidden far scores", "masked"), node("Softmax", "masked", "p"),
        node("MatMul", "p w", "y"),
    ]  # fmt: skip
    whole = model(nodes, {"w": WEIGHTS, "limit": np.float32(2), "far": np.float32(-1e9)})
    given = {"x": np.zeros((1, 64), np.float32)}
    got = answers(half.half(whole), given)["y"]
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, answers(whole, given)["y"], atol=1e-3)


def test_what_is_quantised_or_half_already_is_not_halved() -> None:
    quantised = model(*symmetric(np.int8(0)))
    with pytest.raises(TaktError, match="quantised"):
        half.half(quantised)
    twice = half.half(model([node("MatMul", "x w", "y")], {"w": WEIGHTS}))
    with pytest.raises(TaktError, match="already"):
        half.half(twice)


# -- what TensorRT refuses, and we first


def symmetric(zero: Any) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("MatMul", "d w", "y"),
    ]
    return nodes, {"w": WEIGHTS, "s": np.float32(0.1), "z": zero}


def stored(kind: int, low: int, high: int, rows: int, **how: Any) -> onnx.ModelProto:
    """A product with weights stored in few bits."""
    values = helper.make_tensor("v", kind, [64, 64], RNG.integers(low, high, 4096).tolist())
    scale = np.full((rows, 64) if rows > 1 else 64, 0.1, np.float32)
    return model(
        [node("DequantizeLinear", "v s", "w", **how), node("MatMul", "x w", "y")], {"v": values, "s": scale}
    )


def eight(kind: int) -> onnx.ModelProto:
    zero = helper.make_tensor("z", kind, [], [0.0])
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"),
        node("QuantizeLinear", "w s z", "p"), node("DequantizeLinear", "p s z", "e"),
        node("MatMul", "d e", "y"),
    ]  # fmt: skip
    return model(nodes, {"w": WEIGHTS, "s": np.float32(0.1), "z": zero})


def integers() -> onnx.ModelProto:
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("MatMulInteger", "q v", "i"),
        node("Cast", "i", "y", to=TensorProto.FLOAT),
    ]  # fmt: skip
    small = RNG.integers(-9, 9, (64, 64)).astype(np.int8)
    return model(nodes, {"s": np.float32(0.1), "z": np.int8(0), "v": small})


def blocks() -> onnx.ModelProto:
    made = node("MatMulNBits", "x v s", "y", domain="com.microsoft", K=64, N=64, bits=4, block_size=32)
    return model(
        [made], {"v": RNG.integers(0, 255, (64, 2, 16)).astype(np.uint8), "s": np.ones(128, np.float32)}
    )


def dynamic() -> onnx.ModelProto:
    return model([node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z", "y")], {})


def determinant() -> onnx.ModelProto:
    nodes = [node("Reshape", "x shape", "square"), node("Det", "square", "y")]
    return model(nodes, {"shape": np.array([1, 8, 8])}, [1])


# name -> (graph, what our check says, or None where it lets it pass)
VERDICTS: dict[str, tuple[Callable[[], onnx.ModelProto], str | None]] = {
    "symmetric int8": (lambda: model(*symmetric(np.int8(0))), None),
    "int8 weights": (lambda: stored(TensorProto.INT8, -100, 100, 1, axis=1), None),
    "int4 weights": (lambda: stored(TensorProto.INT4, -8, 8, 2, axis=0, block_size=32), None),
    "zero point 3": (lambda: model(*symmetric(np.int8(3))), "node 'q' .*zero point that is not 0.*static S8"),
    "uint8": (lambda: model(*symmetric(np.uint8(128))), "node 'q' .*uint8.*static S8"),
    "dynamic": (dynamic, r"node 'q' \(DynamicQuantizeLinear\).*static S8"),
    "integers": (integers, r"node 'i' \(MatMulInteger\).*static S8"),
    "blocks of 4 bits": (blocks, r"node 'y' \(MatMulNBits\).*DequantizeLinear"),
    "another domain": (
        lambda: model([node("QuickGelu", "x", "y", domain="com.microsoft")], {}), r"QuickGelu.*does not know"
    ),
    "an unknown operator": (determinant, r"node 'y' \(Det\).*does not know"),
}  # fmt: skip


@pytest.mark.parametrize("name", VERDICTS)
def test_our_verdict_is_that_of_a_real_build(name: str, tmp_path: Path) -> None:
    make, said = VERDICTS[name]
    library = rtx()
    file = tmp_path / "graph.onnx"
    onnx.save(make(), str(file))
    if said is None:
        tensorrt.build(library, tensorrt.prepared(file, "", library))
        return
    with pytest.raises(TaktError, match=said) as ours:
        tensorrt.prepared(file, "", library)
    with pytest.raises(TaktError) as theirs:
        tensorrt.build(library, make())
    assert "\n" not in f"{ours.value}{theirs.value}"


@pytest.mark.parametrize(("compute", "passes"), [("8.6", False), ("8.9", True), ("12.0", True)])
def test_fp8_needs_a_gpu_that_has_it(compute: str, passes: bool, tmp_path: Path) -> None:
    """The same verdict from us and from a build for that GPU, which need not be here."""
    library = rtx()
    file = tmp_path / "graph.onnx"
    onnx.save(eight(TensorProto.FLOAT8E4M3FN), str(file))
    if passes:
        tensorrt.build(library, tensorrt.prepared(file, "", library, compute), compute=compute)
        return
    with pytest.raises(TaktError, match=r"fp8, which needs compute capability 8\.9"):
        tensorrt.prepared(file, "", library, compute)
    with pytest.raises(TaktError):
        tensorrt.build(library, rewrite(onnx.load(str(file))), compute=compute)


def test_uint8_with_a_zero_point_of_0_would_be_cut_off_in_silence() -> None:
    """TensorRT takes it, as int8: so this refusal is ours alone."""
    with pytest.raises(TaktError, match="uint8"):
        check(model(*symmetric(np.uint8(0))))
    none = [node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "y")]
    with pytest.raises(TaktError, match="uint8"):
        check(model(none, {"s": np.float32(0.1)}))


@pytest.mark.parametrize(
    ("opset", "version", "passes"),
    [
        (8, None, False), (9, None, True), (20, (10, 3), True), (21, (10, 3), False), (21, (10, 16), True),
        (25, None, False),
    ],
)  # fmt: skip
def test_an_opset_that_it_does_not_read_is_refused(
    opset: int, version: tuple[int, int] | None, passes: bool
) -> None:
    graph = model([node("Relu", "x", "y")], {}, opset=opset)
    if passes:
        check(graph, version=version)
    else:
        with pytest.raises(TaktError, match=f"opset {opset};"):
            check(graph, version=version)


def test_an_operator_of_another_domain_is_refused_where_nobody_can_be_asked() -> None:
    """Some TensorRT knows by their name alone, so where it is at hand its word counts."""
    graph = model([node("Gelu", "x", "y", domain="com.microsoft")], {})
    with pytest.raises(TaktError, match=r"domain com\.microsoft"):
        check(graph)
    check(graph, supports=lambda name: name == "Gelu")


def test_a_float64_port_is_refused() -> None:
    graph = model([node("Cast", "x", "y", to=TensorProto.DOUBLE)], {})
    graph.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(TaktError, match="'y' is float64"):
        check(graph)


# -- the command


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(NANO, tmp_path / "nano"))


def test_takt_build_checks_a_bundle_where_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx()
    monkeypatch.setenv("TAKT_ENGINES", str(tmp_path / "engines"))
    out = tmp_path / "out.json"
    args = [
        "build",
        str(NANO),
        "--engine",
        "tensorrt-rtx:fp16",
        "--check",
        "--compute",
        "8.9",
        "--json",
        str(out),
    ]
    assert frontdoor.main(args) == 0
    said = json.loads(out.read_text())
    assert [row["graph"] for row in said["graphs"]] == ["words", "reader", "prefix", "step", "critic"]
    assert all(row["megabytes"] > 0.1 and row["difference"] is None for row in said["graphs"])
    assert not said["kept"]
    assert not (tmp_path / "engines").exists()  # an engine that was built without its GPU is not kept


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--engine", "onnx"], "tensorrt or tensorrt-rtx"),
        (["--engine", "tensorrt:int4"], "valid: tensorrt:tf32"),
        (["--engine", "tensorrt-rtx", "--batch", "0"], "--batch"),
        (["--engine", "tensorrt-rtx", "--workspace", "-1"], "--workspace"),
        (["--engine", "tensorrt-rtx", "--compute", "8.9"], "--check"),
        (["--engine", "tensorrt-rtx", "--check", "--compute", "fast"], "no compute capability"),
        (["--engine", "tensorrt-rtx", "--check", "--compute", "8.7"], "7.5, 8.0, 8.6"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    args: list[str], said: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rtx()
    assert frontdoor.main(["build", str(bundle), *args]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_board_needs_no_torch_to_build() -> None:
    code = "import sys, export.tensorrt; sys.exit(any(n in sys.modules for n in ('torch', 'onnxscript')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=NANO.parents[2]).returncode == 0


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_graph_that_is_cut_short_is_one_line(keep: float, tmp_path: Path) -> None:
    file = tmp_path / "step.onnx"
    whole = (NANO / "step.onnx").read_bytes()
    file.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(TaktError, match=r"step\.onnx .*cut short.*copy it again") as caught:
        tensorrt.prepared(file)
    assert "\n" not in str(caught.value)


def test_a_graph_whose_types_do_not_fit_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "step.onnx"
    onnx.save(model([node("MatMul", "x w", "y")], {"w": WEIGHTS.astype(np.float16)}), str(file))
    with pytest.raises(TaktError, match="cannot be written as TensorRT takes it") as caught:
        tensorrt.prepared(file)
    assert "\n" not in str(caught.value)
