"""Fewer bits: counted, compared, and refused where nothing was won or too much was lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import vla.__main__ as frontdoor
from export import graph, parity, quantise
from export.quantise import How
from runtime import bundle
from runtime.engine_openvino import OpenVinoGraph
from runtime.graphs import OnnxGraph
from tests import fakes
from vla.contract import TaktError

HOWS = [How("int8"), How("int8", static=True), How("fp8", static=True), How("fp16"), How("w4a16")]


class Policy(nn.Module):
    """Modules of the names that real ones have."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.ModuleDict({"mlp": nn.Linear(64, 96)})
        self.expert = nn.ModuleList(
            [nn.ModuleDict({"self_attn": nn.Linear(96, 64), "mlp": nn.Linear(64, 64)})]
        )
        self.action_out_proj = nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.expert[0]
        x = torch.relu(self.vision["mlp"](x))
        x = torch.relu(layer["mlp"](torch.relu(layer["self_attn"](x))))
        return self.action_out_proj(x)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    part = graph.Part("step", Policy(), lambda n: {"x": torch.randn(n, 7, 64)}, ("y",))
    graph.write(part, tmp_path / "step.onnx", dynamic=True)
    return tmp_path / "step.onnx"


def answer(file: Path, x: np.ndarray) -> np.ndarray:
    return next(iter(OnnxGraph(file)({"x": x}).values()))


def given(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 7, 64)).astype(np.float32)


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": given(seed)} for seed in range(4)]


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_products_have_fewer_bits_and_answer_nearly_the_same(file: Path, how: How) -> None:
    wanted = answer(file, given(9))
    report = quantise.quantise(file, how, feeds())
    # Attention of the expert and what makes the actions stay.
    kept = () if how.precision == "fp16" else ("action_out_proj", "expert.0.self_attn")
    assert (report.quantised, report.products, report.kept) == (4 - len(kept), 4, kept)
    assert report.bytes_after == file.stat().st_size < report.bytes_before
    error = np.abs(answer(file, given(9)) - wanted).mean() / np.abs(wanted).mean()
    assert 0 < error < (0.03 if how.precision == "int8" else 0.1)


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_everything_can_be_quantised_and_errs_more(file: Path, how: How) -> None:
    plain = file.read_bytes()
    wanted = answer(file, given(9))
    errors = []
    for keep in (quantise.KEEP, ()):  # to fp16 it makes no difference
        file.write_bytes(plain)
        report = quantise.quantise(file, how, feeds(), keep)
        errors.append(np.abs(answer(file, given(9)) - wanted).mean())
    assert report.quantised == report.products == 4
    assert errors[1] > errors[0] or how.precision == "fp16"


def test_the_count_is_our_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that says nothing and does nothing is found out."""
    assert quantise.count_quantised(onnx.load(file)) == 0
    names = quantise.names(file, (), How("int8"))
    assert len(names) == 4
    assert {quantise.group(n) for n in names} == {"vision", "expert", "action_out_proj"}
    monkeypatch.setattr(quantise, "transform", lambda *args: None)
    with pytest.raises(TaktError, match="nothing was won"):
        quantise.quantise(file, How("int8"))


class Eye(nn.Module):
    """A picture (B, h, w, 3), uint8, through convolutions as policies have them: with a Relu, added, bare."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 5, 2, 2), nn.Conv2d(16, 16, 3, 1, 2, 2)
        self.last, self.mlp = nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.Linear(24, 64)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(frames.permute(0, 3, 1, 2).float() / 255 - 0.5))
        return self.mlp(self.last(x + torch.relu(self.second(x))).flatten(2).transpose(1, 2))


def pictures(seed: int, batch: int = 2) -> dict[str, np.ndarray]:
    return {"frames": np.random.default_rng(seed).integers(0, 256, (batch, 16, 24, 3)).astype(np.uint8)}


@pytest.fixture
def eye(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    shown = {n: torch.from_numpy(pictures(0, n)["frames"]) for n in (1, 3)}
    part = graph.Part("prefix", Eye(), lambda n: {"frames": shown[n]}, ("y",))
    graph.write(part, tmp_path / "e.onnx", dynamic=True)
    return tmp_path / "e.onnx"


@pytest.mark.parametrize("static", [False, True])
def test_convolutions_have_fewer_bits_as_well(eye: Path, static: bool) -> None:
    seen = pictures(9, 5)
    wanted = OnnxGraph(eye)(seen)["y"]
    report = quantise.quantise(eye, How("int8", static), [pictures(seed) for seed in range(4)])
    assert (report.quantised, report.products, report.kept) == (4, 4, ())
    kinds = [node.op_type for node in onnx.load(eye).graph.node]
    assert [kinds.count(kind) for kind in ("QLinearConv", "Conv", "Relu")] == [[3, 0, 0], [0, 3, 2]][static]
    error = np.abs(OnnxGraph(eye)(seen)["y"] - wanted).mean() / np.abs(wanted).mean()
    assert 0 < error < 0.03


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kept", [("first", "second", "last"), ("mlp",), ("second",)], ids=str)
def test_what_is_kept_of_them_stays(eye: Path, kept: tuple[str, ...], static: bool) -> None:
    keep = [f"{name}$" for name in kept]
    report = quantise.quantise(eye, How("int8", static), [pictures(0)], keep)
    assert (report.quantised, report.kept) == (4 - len(kept), tuple(sorted(kept)))
    made = onnx.load(eye).graph
    weights = {tensor.name for tensor in made.initializer if tensor.data_type == TensorProto.FLOAT}
    left = {quantise.module(n.name) for n in made.node if n.op_type == "Conv" and n.input[1] in weights}
    assert left == {name for name in kept if name != "mlp"}


def test_openvino_takes_convolutions_with_scales_of_their_own_and_is_refused_onnx_runtimes(eye: Path) -> None:
    openvino = pytest.importorskip("openvino")
    static = Path(shutil.copy(eye, eye.with_name("s.onnx")))
    quantise.quantise(static, How("int8", static=True), [pictures(0)])
    got, wanted = (
        graph(pictures(0))["y"] for graph in (OpenVinoGraph(static, openvino.Core()), OnnxGraph(eye))
    )
    assert np.abs(got - wanted).mean() < 0.05 * np.abs(wanted).mean()
    quantise.quantise(eye, How("int8"), [pictures(0)])
    with pytest.raises(TaktError, match="--static"):
        OpenVinoGraph(eye, openvino.Core())


def test_only_convolutions_want_observations(eye: Path, file: Path) -> None:
    assert quantise.calibrated(eye, How("int8"))
    assert not quantise.calibrated(file, How("int8"))
    assert not quantise.calibrated(eye, How("w4a16"))
    assert quantise.calibrated(file, How("int8", static=True))
    with pytest.raises(TaktError, match="--observations"):
        quantise.quantise(eye, How("int8"))


def test_one_scale_a_weight_is_coarser(file: Path) -> None:
    """Where channels differ in size, as they do in policies that were trained."""
    model = onnx.load(file)
    quantise.plain_products(model.graph)
    for weight in model.graph.initializer:
        if len(weight.dims) == 2:
            array = numpy_helper.to_array(weight)
            sizes = 10 ** np.linspace(-2, 0, array.shape[1], dtype=np.float32)
            weight.CopyFrom(numpy_helper.from_array(array * sizes, weight.name))
    onnx.save(model, file)
    plain, wanted, errors = file.read_bytes(), answer(file, given(9)), []
    for per_channel in (True, False):
        file.write_bytes(plain)
        quantise.quantise(file, How("int8", True, per_channel), feeds(), ())
        errors.append(np.abs(answer(file, given(9)) - wanted).mean())
    assert errors[1] > 1.3 * errors[0]


def test_a_gemm_is_a_product_and_a_sum(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = {"w": rng.normal(size=(48, 32)), "b": rng.normal(size=48), "v": rng.normal(size=(48, 40))}
    weights = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in array.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="one/Gemm_0", transB=1),
        helper.make_node("Gemm", ["h", "v"], ["y"], name="two/Gemm_1"),
    ]
    port = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [port("x", TensorProto.FLOAT, [5, 32])], [port("y", TensorProto.FLOAT, [5, 40])], weights
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", graph.OPSET)], ir_version=10)
    onnx.save(model, str(tmp_path / "g.onnx"))
    x = rng.normal(size=(5, 32)).astype(np.float32)
    wanted = answer(tmp_path / "g.onnx", x)
    quantise.plain_products(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(tmp_path / "g.onnx"))
    np.testing.assert_allclose(answer(tmp_path / "g.onnx", x), wanted, rtol=1e-5, atol=1e-5)
    assert [n.op_type for n in model.graph.node] == ["MatMul", "Add", "MatMul"]
    assert quantise.products(model.graph, How("w4a16")) == ["one/Gemm_0", "two/Gemm_1"]


def test_fixed_scales_want_observations(file: Path) -> None:
    with pytest.raises(TaktError, match="observations"):
        quantise.quantise(file, How("int8", static=True))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--precision", "w4a16", "--static"], "--static"),
        (["--precision", "int8", "--per-tensor"], "--per-tensor"),
        (["--precision", "bf16"], "openvino:bf16"),
        (["--precision", "int8", "--keep", "("], "regular expression"),
        (["--precision", "int8", "--samples", "0"], "--samples"),
        (["--precision", "int8", "--tolerance", "0"], "--tolerance"),
        ([], "is a bundle in fp32"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.write_bundle(tmp_path / "b", fakes.arm_spec(), steps=2, noise=1.0)
    assert frontdoor.main(["export", str(tmp_path / "b"), str(tmp_path / "out"), *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_bundle_with_nothing_to_quantise_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.write_bundle(tmp_path / "b", fakes.arm_spec(), steps=2, noise=1.0)
    args = [str(tmp_path / "b"), str(tmp_path / "out"), "--precision", "int8"]
    assert frontdoor.main(["export", *args]) == 1
    assert "nothing is left to quantise" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    bundle.load(tmp_path / "b")  # and what it was to be made of is as it was
    assert "precision" not in json.loads((tmp_path / "b/policy.json").read_text())


# -- the gate, on the shipped policy

NANO = Path(bundle.__file__).parent.parent / "vla/bundles/nano"


@pytest.mark.slow
def test_the_gate_lets_the_shipped_policy_through_and_stops_a_bad_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        "export",
        str(NANO),
        str(tmp_path / "good"),
        "--precision",
        "int8",
        "--json",
        str(tmp_path / "good.json"),
    ]
    assert frontdoor.main([*args, "--episodes", "2"]) == 0
    said = json.loads((tmp_path / "good.json").read_text())
    assert said["evidence"]["on"].startswith("tabletop")
    assert said["evidence"]["closed_loop"]["n"] == 2
    assert said["quantised"]["graphs"]["prefix"]["quantised"] == 20
    assert bundle.load(tmp_path / "good").policy["evidence"] == said["evidence"]
    # Everything, one scale a weight, fixed on a few observations: what was stopped on a real arm as jerky.
    bad = ["--static", "--per-tensor", "--keep", "(?!)", "--json", str(tmp_path / "bad.json")]
    capsys.readouterr()
    assert frontdoor.main(["export", str(NANO), str(tmp_path / "bad"), "--precision", "int8", *bad]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "action error" in line
    assert "hurts most" in line
    assert "step: outlet" in line
    assert not (tmp_path / "bad").exists()
    assert json.loads((tmp_path / "bad.json").read_text())["evidence"]["passed"] is False


@pytest.mark.parametrize(
    ("n", "difference", "best", "ratio", "p", "passes"),
    [
        (200, -0.01, 0.02, 1.05, 0.3, True),
        (200, -0.03, 0.01, 1.00, 0.3, False),  # three points of two hundred
        (200, 0.0, 0.02, 1.12, 0.3, False),  # a tenth more jerk, of so many, whatever its p
        (2, 0.0, 0.65, 1.12, 0.5, True),  # two episodes tell nothing of jerk
        (20, 0.0, 0.10, 1.12, 0.01, False),  # unless it is more in nearly all of them
        (4, -0.5, 0.10, 1.00, 1.0, True),
        (12, -0.5, -0.05, 1.00, 1.0, False),  # a loss beyond chance
    ],
)
def test_of_few_episodes_only_what_is_beyond_chance_counts(
    n: int, difference: float, best: float, ratio: float, p: float, passes: bool
) -> None:
    loop = {"n": n, "difference": difference, "ci95": [-1.0, best], "jerk_ratio": ratio, "jerk_p": p}
    assert parity.Evidence("a test", 3, 0.0, 0.0, {}, 1.0, loop).passed is passes
