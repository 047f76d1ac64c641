"""What lies between a policy and TensorRT: copies, residence, captured graphs, a cache that trusts nobody.

The GPU and TensorRT are emulated (tests/runtime/emulated.py); the graphs are the shipped bundle's, and so
the answers have to be ONNX Runtime's to the bit.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import vla.__main__ as frontdoor
from export import tensorrt as export_tensorrt
from runtime import bundle, engine_cache, engine_tensorrt
from runtime.cuda import Cuda
from runtime.device import DeviceArray
from runtime.engine import GraphPolicy, OnnxPolicy
from runtime.engine_cache import Key
from runtime.engine_tensorrt import TensorrtGraph
from runtime.graphs import Looping, OnnxGraph
from runtime.policies import open_policy
from runtime.tensorrt_library import Library
from tests.runtime import emulated
from vla import flow
from vla.contract import Observation, Prefix, Request, TaktError

NANO = Path(__file__).parents[2] / "vla" / "bundles" / "nano"
LOADED = bundle.load(NANO)
SPEC = LOADED.spec
SHAPE = (SPEC.chunk_length, SPEC.actions.size)


@pytest.fixture
def cudart() -> emulated.Cudart:
    return emulated.Cudart()


@pytest.fixture
def library(cudart: emulated.Cudart, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setitem(sys.modules, "tensorrt", emulated.tensorrt(cudart))
    return Library("tensorrt")


def graphs(library: Library, device: Cuda, files: dict[str, Path]) -> dict[str, TensorrtGraph]:
    return {name: TensorrtGraph(library, device, file.read_bytes(), name) for name, file in files.items()}


@pytest.fixture
def policy(library: Library, cudart: emulated.Cudart) -> GraphPolicy:
    return GraphPolicy(LOADED, graphs(library, Cuda(cudart), LOADED.graphs))


def look(seed: int) -> Observation:
    rng = np.random.default_rng(seed)
    frames = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in SPEC.cameras}
    state = rng.normal(0, 0.4, len(SPEC.state)).astype(np.float32)
    return Observation(0.1 * seed, state, frames, ["put the red cube", "lift the ball"][seed % 2])


def asked(seed: int, committed: int = 0, deadline: float | None = None) -> Request:
    rows = np.random.default_rng(seed).normal(0, 0.3, SHAPE)
    prefix = Prefix(rows, flow.hard(SHAPE[0], committed)) if committed else None
    return Request(look(seed), prefix, deadline, seed, seed)


def same(ours: GraphPolicy, theirs: GraphPolicy, requests: list[Request]) -> None:
    pairs = zip(ours.infer_batch(requests), theirs.infer_batch(requests), strict=True)
    for ours_chunk, theirs_chunk in pairs:
        np.testing.assert_array_equal(ours_chunk.actions, theirs_chunk.actions)
        assert ours_chunk.done == theirs_chunk.done


# -- answers


def test_answers_are_those_of_onnx_runtime_to_the_bit(policy: GraphPolicy) -> None:
    """Batches of several sizes by turns, so that captured graphs of one meet what another has left."""
    plain = OnnxPolicy(LOADED)
    for batch in (1, 3, 1, 2, 3, 1):
        same(policy, plain, [asked(10 * batch + i, committed=i) for i in range(batch)])


@pytest.mark.parametrize("candidates", [2, 4])
def test_one_memory_serves_several_candidates(
    candidates: int, library: Library, cudart: emulated.Cudart
) -> None:
    several = replace(LOADED, candidates=candidates)
    ours = GraphPolicy(several, graphs(library, Cuda(cudart), LOADED.graphs))
    theirs = OnnxPolicy(several)
    for i in range(3):
        same(ours, theirs, [asked(i, committed=i)])
    same(ours, theirs, [asked(i) for i in range(8 // candidates)])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_single_steps_hand_x_on_without_leaving_the_device(
    count: int, library: Library, cudart: emulated.Cudart
) -> None:
    """What a policy short of time makes instead of a loop: fewer steps, each asked for by itself."""
    graph = graphs(library, Cuda(cudart), {"step": LOADED.graphs["step"]})["step"]
    plain, rng = OnnxGraph(LOADED.graphs["step"]), np.random.default_rng(count)
    for _ in range(3):
        feeds = {n: rng.normal(size=[1 if s is None else s for s in shape]).astype(t)
                 for n, (t, shape) in plain.inputs.items()}  # fmt: skip
        ours, theirs = dict(feeds), dict(feeds)
        for i in range(count):
            moved = {"t": np.full(1, 0.1 * i, np.float32)}
            got, wanted = graph(ours | moved), plain(theirs | moved)
            np.testing.assert_array_equal(got["actions"], wanted["actions"])
            ours["x"], theirs["x"] = got["x_next"], wanted["x_next"]
    assert cudart.count["captured"] == min(count, 3)  # x from the host, and from either of two buffers


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_loop_is_its_steps(steps: int, library: Library, cudart: emulated.Cudart) -> None:
    device = Cuda(cudart)
    graph = graphs(library, device, {"step": LOADED.graphs["step"]})["step"]
    assert isinstance(graph, Looping)
    plain = OnnxGraph(LOADED.graphs["step"])
    rng = np.random.default_rng(steps)
    for _ in range(3):
        feeds = {n: rng.normal(size=[2 if s is None else s for s in shape]).astype(t)
                 for n, (t, shape) in plain.inputs.items()}  # fmt: skip
        looped, out = graph.loop(feeds, steps), {}
        x = feeds["x"]
        for i in range(steps):
            times = {"t": np.full(1, i / steps, np.float32), "dt": np.full(1, 1 / steps, np.float32)}
            out = plain({**feeds, **times, "x": x})
            x = out["x_next"]
        np.testing.assert_array_equal(looped["actions"], out["actions"])
        assert isinstance(looped["x_next"], DeviceArray)
        np.testing.assert_array_equal(np.asarray(looped["x_next"]), x)


# -- residence and capture


def test_memory_stays_on_the_device_and_a_chunk_is_two_launches(
    policy: GraphPolicy, cudart: emulated.Cudart
) -> None:
    for i in range(3):
        policy.infer_batch([asked(2 * i)])  # captures, and computes the words once
    before = dict(cudart.count)
    policy.infer_batch([asked(10)])
    moved = {name: cudart.count[name] - before.get(name, 0) for name in cudart.count}
    assert moved == {name: 0 for name in moved} | {"launched": 2}
    assert cudart.count.get("cudaMemcpyDeviceToDevice", 0) == 0


def test_a_shape_is_captured_once_and_few_are_kept(library: Library, cudart: emulated.Cudart) -> None:
    graph = graphs(library, Cuda(cudart), {"step": LOADED.graphs["step"]})["step"]
    plain = OnnxGraph(LOADED.graphs["step"])

    def run(batch: int) -> None:
        feeds = {n: np.zeros([batch if s is None else s for s in shape], t)
                 for n, (t, shape) in plain.inputs.items()}  # fmt: skip
        graph(feeds)

    for _ in range(3):
        run(2)
    assert cudart.count["captured"] == 1
    for batch in range(1, 9):
        run(batch)
    assert cudart.count["captured"] == 8
    graph.close()
    assert not cudart._graphs


def test_what_cannot_be_captured_runs_all_the_same_and_is_told_once(
    library: Library, cudart: emulated.Cudart, capsys: pytest.CaptureFixture[str]
) -> None:
    cudart.broken = True
    ours, theirs = GraphPolicy(LOADED, graphs(library, Cuda(cudart), LOADED.graphs)), OnnxPolicy(LOADED)
    for i in range(3):
        same(ours, theirs, [asked(2 * i)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # words, reader, prefix, step
    assert all("launched one by one" in line for line in lines)


def test_memory_is_given_back(library: Library, cudart: emulated.Cudart) -> None:
    device = Cuda(cudart)
    graphs(library, device, LOADED.graphs)
    assert cudart.device
    assert cudart.host
    device.close()
    assert not cudart.device
    assert not cudart.host


# -- what is refused


def test_more_rows_than_it_was_built_for_are_one_line(policy: GraphPolicy) -> None:
    with pytest.raises(TaktError, match=r"up to .* takt build --batch") as caught:
        policy.infer_batch([asked(i) for i in range(9)])
    assert "\n" not in str(caught.value)


def test_an_engine_that_tensorrt_refuses_is_one_line(library: Library, cudart: emulated.Cudart) -> None:
    with pytest.raises(TaktError, match="refuses the engine 'step': Serialization assertion") as caught:
        TensorrtGraph(library, Cuda(cudart), b"an engine of another version", "step")
    assert "\n" not in str(caught.value)


def test_without_a_gpu_there_is_one_line() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if not int(runtime.cudaGetDeviceCount()[0]):
        pytest.skip("there is one")
    with pytest.raises(TaktError, match="no NVIDIA GPU can be used here") as caught:
        Cuda()
    assert "\n" not in str(caught.value)


def test_without_its_bindings_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(TaktError, match=r"takt-vla\[tensorrt\]"):
        Cuda()
    for product, module in {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(TaktError, match=rf"takt-vla\[{product}\]"):
            engine_tensorrt.open_graphs(LOADED.graphs, product)


# -- the cache


KEY = Key("ab" * 32, "tensorrt", "10.3.0", "Orin", "8.7")


def test_an_engine_is_read_as_it_was_written(tmp_path: Path) -> None:
    place = tmp_path / "engines"
    file = engine_cache.write(place, "step", KEY, b"machine code")
    assert engine_cache.read(place, "step", KEY) == b"machine code"
    assert place.stat().st_mode & 0o777 == 0o700
    assert sorted(f.suffix for f in place.iterdir()) == [".engine", ".json"]
    engine_cache.write(place, "step", KEY, b"newer")
    assert engine_cache.read(place, "step", KEY) == b"newer"
    assert file.read_bytes() == b"newer"


OTHER = {"graph": "cd" * 32, "product": "tensorrt-rtx", "version": "10.16.1", "gpu": "Thor"}
OTHER |= {"compute": "11.0", "precision": "fp16", "recipe": 99}  # type: ignore[dict-item]


@pytest.mark.parametrize("name", OTHER)
def test_for_anything_else_there_is_none(name: str, tmp_path: Path) -> None:
    """A key's every part counts, both for the file that is looked for and for what stands in it."""
    engine_cache.write(tmp_path, "step", KEY, b"machine code")
    with pytest.raises(TaktError, match="takt build BUNDLE"):
        engine_cache.read(tmp_path, "step", replace(KEY, **{name: OTHER[name]}))  # type: ignore[arg-type]
    (about,) = tmp_path.glob("*.json")
    said = json.loads(about.read_text())
    about.write_text(json.dumps({**said, "key": {**said["key"], name: OTHER[name]}}))
    with pytest.raises(TaktError, match=rf"was built for {name} .*takt build again") as caught:
        engine_cache.read(tmp_path, "step", KEY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("broken", ["", "[]", '{"key": {}}', '{"key": 3, "sha256": "x"}', "{"])
def test_a_description_that_is_none_is_one_line(broken: str, tmp_path: Path) -> None:
    engine_cache.write(tmp_path, "step", KEY, b"machine code")
    (about,) = tmp_path.glob("*.json")
    about.write_text(broken)
    with pytest.raises(TaktError, match="takt build again") as caught:
        engine_cache.read(tmp_path, "step", KEY)
    assert "\n" not in str(caught.value)


def test_an_altered_engine_is_refused(tmp_path: Path) -> None:
    engine_cache.write(tmp_path, "step", KEY, b"machine code").write_bytes(b"machine coda")
    with pytest.raises(TaktError, match="was altered"):
        engine_cache.read(tmp_path, "step", KEY)


def test_a_write_that_is_cut_short_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_cache.write(tmp_path, "step", KEY, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        engine_cache.write(tmp_path, "step", KEY, b"new")
    with pytest.raises(TaktError, match="takt build BUNDLE"):
        engine_cache.read(tmp_path, "step", KEY)
    assert not list(tmp_path.glob(".*"))


def test_external_data_belongs_to_the_graph(tmp_path: Path) -> None:
    (tmp_path / "step.onnx").write_bytes(b"graph")
    digests = {engine_cache.graph_digest(tmp_path / "step.onnx")}
    for data in (b"weights", b"others"):
        (tmp_path / "step.onnx.data").write_bytes(data)
        digests.add(engine_cache.graph_digest(tmp_path / "step.onnx"))
    assert len(digests) == 3


def test_graphs_come_out_of_the_cache_alone(
    library: Library, cudart: emulated.Cudart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_tensorrt, "Cuda", lambda: Cuda(cudart))
    with pytest.raises(TaktError, match="no tensorrt engine of the graph 'words' for Emulated"):
        engine_tensorrt.open_graphs(LOADED.graphs, "tensorrt", place=tmp_path)
    device = Cuda(cudart)
    for name, file in LOADED.graphs.items():
        made = engine_tensorrt.key(library, device, file, "")
        assert asdict(made).items() >= {"gpu": "Emulated", "compute": "8.7", "version": "10.3.0"}.items()
        engine_cache.write(tmp_path, name, made, file.read_bytes())
    opened = engine_tensorrt.open_graphs(LOADED.graphs, "tensorrt", place=tmp_path)
    same(GraphPolicy(LOADED, opened), OnnxPolicy(LOADED), [asked(1)])


# -- from takt build to takt serve, TensorRT emulated


@pytest.fixture
def board(library: Library, cudart: emulated.Cudart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU; the folder of its engines."""
    monkeypatch.setattr(engine_tensorrt, "Cuda", lambda: Cuda(cudart))
    monkeypatch.setattr(export_tensorrt, "Cuda", lambda: Cuda(cudart))
    monkeypatch.setenv("TAKT_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.mark.parametrize(("precision", "most"), [("", 1e-6), ("fp16", 5e-3)])
def test_what_was_built_here_answers_here(precision: str, most: float, board: Path, tmp_path: Path) -> None:
    engine = "tensorrt" + (precision and f":{precision}")
    report = tmp_path / "report.json"
    assert frontdoor.main(["build", str(NANO), "--engine", engine, "--json", str(report)]) == 0
    said = json.loads(report.read_text())
    assert said["kept"]
    assert [row["graph"] for row in said["graphs"]] == ["words", "reader", "prefix", "step"]
    assert all(0 <= row["difference"] <= most for row in said["graphs"])
    assert any(row["difference"] > 0 for row in said["graphs"]) == bool(precision)
    assert (board / "timing-10.3.0-Emulated-8.7.cache").read_bytes() == b"measured"
    ours, theirs = open_policy(str(NANO), engine=engine), OnnxPolicy(LOADED)
    for seen in (look(0), look(1)):
        np.testing.assert_allclose(ours.infer(seen).actions, theirs.infer(seen).actions, atol=10 * most)
    other = "tensorrt" if precision else "tensorrt:fp16"
    with pytest.raises(TaktError, match=rf"no tensorrt engine .*--engine {other} makes one"):
        open_policy(str(NANO), engine=other)


def test_an_engine_that_answers_otherwise_is_not_kept(
    board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = export_tensorrt.prepared

    def wrong(*args: object, **options: object) -> onnx.ModelProto:
        made = real(*args, **options)  # type: ignore[arg-type]
        for tensor in made.graph.initializer:
            if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT:
                tensor.raw_data = (1.1 * np.frombuffer(tensor.raw_data, np.float32)).tobytes()
        return made

    monkeypatch.setattr(export_tensorrt, "prepared", wrong)
    assert frontdoor.main(["build", str(NANO)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "words: the engine differs from ONNX Runtime" in line
    assert not list(board.glob("*.engine"))


@pytest.mark.parametrize(("name", "value"), [("gpu", "Thor"), ("compute", "11.0"), ("version", "10.16.1.11")])
def test_serving_with_an_engine_from_elsewhere_is_one_line(
    name: str, value: str, board: Path, library: Library, cudart: emulated.Cudart,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for graph, file in LOADED.graphs.items():
        made = engine_tensorrt.key(library, Cuda(cudart), file, "")
        engine_cache.write(board, graph, made, file.read_bytes())
    (about,) = board.glob("step-*.json")
    said = json.loads(about.read_text())
    about.write_text(json.dumps({**said, "key": {**said["key"], name: value}}))
    assert frontdoor.main(["serve", str(NANO), "--engine", "tensorrt"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"was built for {name} {value!r}" in line
    assert "run takt build again" in line
