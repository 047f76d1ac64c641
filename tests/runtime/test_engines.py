"""Whatever engine runs a bundle, the answers are those of ONNX Runtime on the CPU, or there is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vla.__main__ as frontdoor
from runtime import bundle, engine_openvino, engine_ort, engines
from runtime.graphs import OnnxGraph, blank
from runtime.policies import open_policy
from tests import fakes
from vla import flow
from vla.contract import Prefix, Request, TaktError

ROOT = Path(__file__).parents[2]
NANO = ROOT / "vla" / "bundles" / "nano"
SPEC = fakes.arm_spec()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose graphs take a batch of one."""
    return fakes.write_bundle(tmp_path_factory.mktemp("engines") / "bundle", SPEC)


def feeds(graph: OnnxGraph, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of a graph, its open sizes taken as `batch`."""
    rng, made = np.random.default_rng(seed), {}
    for name, (dtype, shape) in graph.inputs.items():
        sizes = [batch if size is None else size for size in shape]
        if name == "mask":
            made[name] = np.ones(sizes, dtype)
        elif dtype == "float32":
            made[name] = rng.uniform(0, 0.5, sizes).astype(dtype)
        else:
            made[name] = rng.integers(0, 200, sizes).astype(dtype)
    return made


# -- names


@pytest.mark.parametrize("name", engines.PRECISIONS)
def test_a_name_and_its_precisions(name: str) -> None:
    assert engines.parse(name) == (name, "")
    for precision in engines.PRECISIONS[name]:
        assert engines.parse(f"{name}:{precision}") == (name, precision)


@pytest.mark.parametrize(
    ("text", "said"),
    [("tensorflow", "valid: onnx, cuda"), ("", "valid: onnx"), ("onnx:int8", "onnx alone"),
     ("openvino:int4", "openvino:bf16"), ("cuda:", "empty precision")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["serve", "run", "eval"])
def test_a_name_that_is_none_is_one_line(
    command: str, text: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "eval":
        pytest.importorskip("mujoco")
    args = {
        "serve": ["serve", str(folder)],
        "run": ["run", "fold", "--robot", "dryrun", "--policy", str(folder)],
        "eval": ["eval", "--policy", str(folder), "--episodes", "1"],
    }[command]
    assert frontdoor.main([*args, "--engine", text]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("takt: ")
    assert said in line


@pytest.mark.parametrize("name", engines.PRECISIONS)
def test_the_docs_tell_of_every_engine_and_precision(name: str) -> None:
    row = next(
        r for r in (ROOT / "docs" / "engines.md").read_text().splitlines() if r.startswith(f"| `{name}`")
    )
    assert all(f":{precision}`" in row for precision in engines.PRECISIONS[name] if precision != "fp32")


def test_only_a_bundle_has_an_engine_to_choose(folder: Path) -> None:
    with pytest.raises(TaktError, match="takt export"):
        open_policy(str(folder.parent), engine="openvino")
    with pytest.raises(TaktError, match="give it to the server"):
        frontdoor.dispatch(
            ["run", "fold", "--robot", "dryrun", "--policy", "tcp://127.0.0.1:1", "--engine", "openvino"]
        )


# -- ONNX Runtime's providers


@pytest.mark.parametrize("engine", engine_ort.PROVIDERS)
def test_a_provider_that_this_build_lacks_is_one_line(engine: str, folder: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    if engine_ort.PROVIDERS[engine] in ort.get_available_providers():
        pytest.skip("it is here")
    with pytest.raises(TaktError, match=r"takt-vla\[gpu\]") as caught:
        open_policy(str(folder), engine=engine)
    assert "\n" not in str(caught.value)


def test_a_provider_that_is_listed_and_runs_nothing_is_refused(folder: Path) -> None:
    """Azure's is in every build and has no kernel: the CPU runs all of its graphs, without a word."""
    ort = pytest.importorskip("onnxruntime")
    provider = "AzureExecutionProvider"
    if provider not in ort.get_available_providers():
        pytest.skip("this build lacks it")
    with pytest.raises(TaktError, match=r"runs none of the \d+ nodes of step\.onnx") as caught:
        engine_ort.ProviderGraph(folder / "step.onnx", provider, {})
    assert "\n" not in str(caught.value)


def test_a_provider_that_runs_every_node_is_taken_and_answers_the_same() -> None:
    graph = engine_ort.ProviderGraph(NANO / "step.onnx", "CPUExecutionProvider", {})
    assert set(graph.nodes) == {"CPUExecutionProvider"}
    assert sum(graph.nodes.values()) > 10
    plain = OnnxGraph(NANO / "step.onnx")
    given = feeds(plain, 2)
    for name, value in plain(given).items():
        np.testing.assert_array_equal(graph(given)[name], value)


def test_blank_inputs_fit_every_graph() -> None:
    for file in sorted(NANO.glob("*.onnx")):
        graph = OnnxGraph(file)
        assert set(graph(blank(graph))) == set(graph.outputs)


# -- OpenVINO


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["words", "reader", "prefix", "step", "critic"])
def test_openvino_computes_what_onnx_runtime_does(name: str, batch: int) -> None:
    pytest.importorskip("openvino")
    file = NANO / f"{name}.onnx"
    plain = OnnxGraph(file)
    graph = engine_openvino.open_graphs({name: file})[name]
    assert (graph.inputs, graph.outputs) == (plain.inputs, plain.outputs)
    given = feeds(plain, batch)
    first = graph(given)
    kept = {key: value.copy() for key, value in first.items()}
    for key, value in plain(given).items():
        # A probability of 1e-4 need not be right to five digits.
        scale = 1.0 if key in ("done", "score") else float(np.abs(value).max()) or 1.0
        np.testing.assert_allclose(first[key] / scale, value / scale, atol=1e-5)
    graph(feeds(plain, batch, seed=1))
    for key, value in kept.items():  # the next run must not write into what was handed out
        np.testing.assert_array_equal(first[key], value)


@pytest.mark.parametrize("static", [True, False])
def test_openvino_answers_as_the_default_engine(static: bool, folder: Path) -> None:
    pytest.importorskip("openvino")
    place = folder if static else NANO
    spec = bundle.load(place).spec
    ours, plain = open_policy(str(place), engine="openvino"), open_policy(str(place))
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.3, (spec.chunk_length, spec.actions.size))
    asked = []
    for i in range(3):
        seen = fakes.observation(spec, 0.1 * i, 0.1 * i, 40 * i)
        frames = {k: rng.integers(0, 256, v.shape, dtype=np.uint8) for k, v in seen.frames.items()}
        prefix = Prefix(rows, flow.hard(spec.chunk_length, i)) if i else None
        asked.append(Request(replace(seen, frames=frames), prefix, seed=i, call=i))
    for a, b in zip(ours.infer_batch(asked), plain.infer_batch(asked), strict=True):  # type: ignore[attr-defined]
        np.testing.assert_allclose(a.actions, b.actions, atol=2e-5)


def test_a_precision_that_this_processor_lacks_is_one_line(folder: Path) -> None:
    openvino = pytest.importorskip("openvino")
    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    lacking = [p for p, listed in (("bf16", "BF16"), ("fp16", "FP16")) if listed not in has]
    if not lacking:
        pytest.skip("this processor has them all")
    with pytest.raises(TaktError, match=f"does not compute in {lacking[0]}; it has fp32"):
        open_policy(str(folder), engine=f"openvino:{lacking[0]}")


def test_what_openvino_cannot_read_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    file = tmp_path / "step.onnx"
    whole = (NANO / "step.onnx").read_bytes()
    for broken in (b"not a graph", whole[: len(whole) // 2]):
        file.write_bytes(broken)
        with pytest.raises(TaktError, match=r"step\.onnx cannot be loaded by OpenVINO") as caught:
            engine_openvino.open_graphs({"step": file})
        assert "\n" not in str(caught.value)


def test_without_openvino_its_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(TaktError, match=r"takt-vla\[openvino\]"):
        open_policy(str(folder), engine="openvino")


def test_an_evaluation_says_which_engine_it_used(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("mujoco")
    report = tmp_path / "report.json"
    args = ["eval", "--episodes", "1", "--engine", "openvino", "--json", str(report)]
    assert frontdoor.main(args) == 0
    assert json.loads(report.read_text())["engine"] == "openvino"
