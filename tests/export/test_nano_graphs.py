"""A bundle answers what the checkpoint answers: graph by graph, and a whole chunk for the same noise."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import vla.__main__ as frontdoor
from export import command, graph, int8, nano_graphs
from runtime import bundle
from runtime.engine import OnnxPolicy
from runtime.graphs import OnnxGraph
from tests import fakes
from vla import flow, nano, train_data
from vla.contract import Observation, Prefix, Request

LAW = settings(deadline=None, max_examples=40, derandomize=True)
CONFIG = nano.tiny()
TEXT = "put the red cube"
STEPS = 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> nano.Nano:
    """A tiny model with weights and a normalisation such as training leaves, the zero ones random too."""
    torch.manual_seed(0)
    made = nano.Nano(CONFIG)
    with torch.no_grad():
        torch.nn.init.normal_(made.outlet.weight, std=0.1)
        for name in ("state", "action", "position"):
            getattr(made, f"{name}_mean").normal_(std=0.3)
            getattr(made, f"{name}_std").uniform_(0.05, 1.0)
    return made.eval()


def words(folder: Path) -> np.ndarray:
    """A words graph in place of the sentence encoder: one vector a word, looked up. Returns the table."""
    folder.mkdir()
    table = np.random.default_rng(0).normal(size=(len(fakes.VOCABULARY), CONFIG.words)).astype(np.float32)
    row = [1, train_data.TOKENS]
    ports = [helper.make_tensor_value_info(name, TensorProto.INT64, row) for name in ("ids", "mask")]
    out = helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [*row, CONFIG.words])
    node = helper.make_node("Gather", ["table", "ids"], ["tokens"], axis=0)
    made = helper.make_graph([node], "words", ports, [out], [numpy_helper.from_array(table, "table")])
    opset = helper.make_opsetid("", graph.OPSET)
    onnx.save(helper.make_model(made, opset_imports=[opset], ir_version=10), str(folder / "words.onnx"))
    tokenizer = Tokenizer(models.WordLevel(fakes.VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return table


@pytest.fixture(scope="module")
def exported(model: nano.Nano, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """`takt export` of the tiny model, and the table of its words."""
    folder = tmp_path_factory.mktemp("export")
    table = words(folder / "words")
    bundle.write_manifest(folder / "words")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/config.json").write_text(json.dumps({"type": "nano", **CONFIG.to_json()}))
    save_file(model.state_dict(), folder / "checkpoint/model.safetensors")
    flags = [
        "--critic",
        "--words-from",
        str(folder / "words"),
        "--steps",
        str(STEPS),
        "--json",
        str(folder / "report.json"),
    ]
    status = frontdoor.main(["export", str(folder / "checkpoint"), str(folder / "bundle"), *flags])
    assert status == 0
    return folder / "bundle", table


def tokens(table: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    ids = [fakes.VOCABULARY[word] for word in TEXT.split()]
    padded = np.array([ids + [0] * (train_data.TOKENS - len(ids))])
    mask = (torch.arange(train_data.TOKENS)[None] < len(ids)).long()
    return torch.from_numpy(table[padded]), mask


def look(seed: int) -> Observation:
    rng = np.random.default_rng(seed)
    size = CONFIG.size
    frames = {c: rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for c in CONFIG.cameras}
    return Observation(0.5, rng.normal(0, 0.5, CONFIG.state).astype(np.float32), frames, TEXT)


@torch.inference_mode()
def torch_chunk(
    model: nano.Nano,
    seen: Observation,
    table: np.ndarray,
    noise: np.ndarray,
    kept: np.ndarray,
    mask: np.ndarray,
) -> np.ndarray:
    """What the torch sampler makes of the same observation and noise, shape (H, A)."""
    frames = [torch.from_numpy(seen.frames[c])[None] for c in CONFIG.cameras]
    memory = model.prefix(frames, torch.from_numpy(seen.state)[None], *tokens(table))

    def step(m: Any, x: Any, t: float, dt: float, kept: Any, mask: Any) -> Any:
        return model.step(*m, x, torch.tensor([t]), torch.tensor([dt]), kept, mask)

    start = torch.from_numpy(noise.astype(np.float32))[None]
    held = [torch.from_numpy(a.astype(np.float32))[None] for a in (kept, mask)]
    return flow.euler(step, memory, start, STEPS, *held)[0].numpy()  # type: ignore[arg-type]


# -- the command and its bundle


def test_an_export_is_a_bundle_that_says_what_it_measured(exported: tuple[Path, np.ndarray]) -> None:
    folder, _ = exported
    loaded = bundle.load(folder)
    assert loaded.spec == nano_graphs.spec(CONFIG, 0.2)
    assert (loaded.steps, loaded.words_length) == (STEPS, train_data.TOKENS)
    tolerances = loaded.policy["tolerances"]
    assert {"prefix", "step"} <= tolerances.keys()
    assert all(0 <= error <= graph.TOLERANCE for error in tolerances.values())
    report = json.loads((folder.parent / "report.json").read_text())
    assert report["difference"] == tolerances


def test_no_graph_names_the_machine_that_wrote_it(exported: tuple[Path, np.ndarray]) -> None:
    for name in ("reader", "prefix", "step"):
        content = (exported[0] / f"{name}.onnx").read_bytes()
        assert str(Path(__file__).parent.parent.parent).encode() not in content
        assert b"site-packages" not in content


@pytest.mark.parametrize("seed", range(4))
def test_prefix_and_step_equal_torch(exported: tuple[Path, np.ndarray], model: nano.Nano, seed: int) -> None:
    folder, table = exported
    seen = look(seed)
    states, mask = tokens(table)
    feeds = {f"frames_{c}": seen.frames[c][None] for c in CONFIG.cameras}
    said = OnnxGraph(folder / "reader.onnx")({"tokens": states.numpy(), "mask": mask.numpy()})
    feeds |= {"state": seen.state[None]} | said
    cond, joints, still, done = run(folder / "prefix.onnx", feeds)
    frames = [torch.from_numpy(seen.frames[c])[None] for c in CONFIG.cameras]
    with torch.inference_mode():
        wanted = model.prefix(frames, torch.from_numpy(seen.state)[None], states, mask)
        for name, value in model.read(states, mask).items():
            np.testing.assert_allclose(said[f"said_{name}"], value.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(cond, wanted[0].numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(joints, seen.state[None])
    np.testing.assert_array_equal(still, wanted[2].numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(done, model.finished(wanted[0]).numpy(), atol=1e-4, rtol=1e-4)

    rng = np.random.default_rng(seed)
    shape = (1, CONFIG.rows, CONFIG.actions)
    flow_time = rng.uniform(0, 0.9)
    feeds = {"memory_cond": cond, "memory_state": joints, "memory_still": np.float32([[seed % 2]])}
    feeds |= {name: rng.normal(size=shape).astype(np.float32) for name in ("x", "kept")}
    feeds |= {"t": np.float32([flow_time]), "dt": np.float32([1 - flow_time])}
    feeds["kept_mask"] = (rng.random(shape[:2]) < 0.3).astype(np.float32)
    got = run(folder / "step.onnx", feeds)
    with torch.inference_mode():
        expected = model.step(*(torch.from_numpy(feeds[name]) for name in (
            "memory_cond", "memory_state", "memory_still", "x", "t", "dt", "kept", "kept_mask"
        )))  # fmt: skip
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=1e-4)


def run(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})


def test_a_whole_chunk_equals_the_torch_samplers(exported: tuple[Path, np.ndarray], model: nano.Nano) -> None:
    folder, table = exported
    policy = OnnxPolicy(bundle.load(folder))
    shape = (CONFIG.rows, CONFIG.actions)
    policy.reset(11)
    for call in range(3):
        noise = np.random.default_rng([11, call]).standard_normal((1, *shape))[0]
        seen = look(call)
        got = policy.infer(seen)
        expected = torch_chunk(model, seen, table, noise, np.zeros(shape), np.zeros(shape[0]))
        np.testing.assert_allclose(got.actions, expected, atol=1e-4, rtol=1e-4)
        assert (got.time, got.dt) == (seen.time, 0.1)
        assert got.done is not None and 0 < got.done < 1


def test_the_critic_equals_torch(exported: tuple[Path, np.ndarray], model: nano.Nano) -> None:
    rng = np.random.default_rng(3)
    for batch in (1, 5):
        shapes = {"memory_cond": (CONFIG.cond,), "memory_state": (CONFIG.state,)}
        shapes |= {"actions": (CONFIG.rows, CONFIG.actions)}
        feeds = {n: rng.normal(0, 0.5, (batch, *shape)).astype(np.float32) for n, shape in shapes.items()}
        (got,) = run(exported[0] / "critic.onnx", feeds)
        with torch.inference_mode():
            wanted = model.score(*(torch.from_numpy(value) for value in feeds.values()))
        assert got.shape == (batch,)
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4, rtol=1e-4)


def test_a_chunk_with_committed_rows_equals_the_torch_samplers(
    exported: tuple[Path, np.ndarray], model: nano.Nano
) -> None:
    folder, table = exported
    policy = OnnxPolicy(bundle.load(folder))
    shape = (CONFIG.rows, CONFIG.actions)
    kept, mask = np.random.default_rng(1).normal(0, 0.5, shape), np.arange(CONFIG.rows) < 3
    policy.reset(5)
    noise = np.random.default_rng([5, 0]).standard_normal((1, *shape))[0]
    got = policy.infer(look(9), Prefix(kept, mask)).actions
    np.testing.assert_allclose(
        got, torch_chunk(model, look(9), table, noise, kept, mask), atol=1e-4, rtol=1e-4
    )
    np.testing.assert_allclose(got[mask], kept[mask], atol=1e-5)


def test_words_of_another_encoder_or_length_are_told_apart(
    exported: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported[0].parent
    shutil.copytree(folder / "words", tmp_path / "words")
    policy: dict[str, Any] = {"provenance": {"encoder": "bag"}}
    args = [str(folder / "checkpoint"), str(tmp_path / "b"), "--words-from", str(tmp_path / "words")]
    (tmp_path / "words/policy.json").write_text(json.dumps(policy))
    bundle.write_manifest(tmp_path / "words")
    assert frontdoor.main(["export", *args]) == 1
    assert "the words of bag" in capsys.readouterr().err
    made = command.Command(folder / "checkpoint", tmp_path / "b", words_from=tmp_path / "words")
    (tmp_path / "words/policy.json").write_text(json.dumps({"words_length": 24}))
    bundle.write_manifest(tmp_path / "words")
    assert made._wanted().words_length == 24


def test_a_bag_of_words_is_a_graph(tmp_path: Path) -> None:
    assert nano_graphs.export_words(tmp_path, tmp_path / "words.onnx", "bag") < graph.TOLERANCE
    assert (tmp_path / "words.onnx").stat().st_size < 13e6  # stored as int8
    assert set(OnnxGraph(tmp_path / "words.onnx").inputs) == {"ids", "mask"}


def test_all_steps_in_one_graph_are_the_steps(exported: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder = exported[0].parent
    args = [str(folder / "checkpoint"), str(tmp_path / "b"), "--words-from", str(folder / "words")]
    assert frontdoor.main(["export", *args, "--fused", "--steps", str(STEPS), "--candidates", "3"]) == 0
    loaded = bundle.load(tmp_path / "b")
    assert "denoise" in loaded.graphs
    left = {name: file for name, file in loaded.graphs.items() if name != "denoise"}
    whole, stepwise = OnnxPolicy(loaded), OnnxPolicy(replace(loaded, graphs=left))
    rows = np.random.default_rng(0).normal(0, 0.5, (CONFIG.rows, CONFIG.actions))
    for i, prefix in enumerate((None, Prefix(rows, flow.hard(CONFIG.rows, 2)))):
        one, two = whole.infer(look(i), prefix), stepwise.infer(look(i), prefix)
        np.testing.assert_allclose(one.actions, two.actions, atol=1e-5)
        assert len(one.step_seconds) == len(two.step_seconds) == STEPS


# -- joining and the batch


@pytest.fixture(scope="module")
def step_graphs(model: nano.Nano, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple, Path]:
    """(joining, open batch) -> step.onnx."""
    folder, made = tmp_path_factory.mktemp("steps"), {}
    for joining, beta in (("prefix", None), ("guided", 7.0)):
        for dynamic in (True, False):
            made[joining, dynamic] = folder / f"{joining}{dynamic}.onnx"
            assert (
                graph.write(nano_graphs.step(model, beta), made[joining, dynamic], dynamic) < graph.TOLERANCE
            )
    return made


@pytest.mark.parametrize("t", [0.0, 0.25, 0.75, 1.0])
@pytest.mark.parametrize("joining", ["prefix", "guided"])
def test_a_step_equals_torch_for_every_joining_and_batch(
    step_graphs: dict[tuple, Path], model: nano.Nano, joining: str, t: float
) -> None:
    for dynamic, batch in ((True, 1), (True, 3), (True, 8), (False, 1)):
        rng = np.random.default_rng(batch)
        chunk = (batch, CONFIG.rows, CONFIG.actions)
        weights = rng.random(chunk[:2]) if joining == "guided" else rng.random(chunk[:2]) < 0.3
        feeds = {
            "memory_cond": rng.normal(size=(batch, CONFIG.cond)),
            "memory_state": rng.normal(size=(batch, CONFIG.state)),
            "memory_still": np.arange(batch)[:, None] % 2,
            "x": rng.normal(size=chunk),
            "t": np.array([t]),
            "dt": np.array([min(0.25, 1 - t)]),
            "kept": rng.normal(size=chunk),
            "kept_mask": weights,
        }
        feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
        tensors = [torch.from_numpy(value) for value in feeds.values()]
        with torch.inference_mode():
            expected = model.step(*tensors) if joining == "prefix" else model.step_guided(*tensors, 7.0)
        for ours, theirs in zip(run(step_graphs[joining, dynamic], feeds), expected, strict=True):
            assert np.isfinite(ours).all()
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=1e-4)


def test_both_joinings_have_the_same_ports(step_graphs: dict[tuple, Path]) -> None:
    ports = {key: OnnxGraph(path) for key, path in step_graphs.items()}
    for dynamic in (True, False):
        assert ports["prefix", dynamic].inputs == ports["guided", dynamic].inputs
        assert ports["prefix", dynamic].outputs == ports["guided", dynamic].outputs
        sizes = {port: shape[0] for port, (_, shape) in ports["guided", dynamic].inputs.items()}
        assert sizes.pop("t") == sizes.pop("dt") == 1
        assert set(sizes.values()) == {None if dynamic else 1}


def test_several_requests_are_answered_as_alone(exported: tuple[Path, np.ndarray]) -> None:
    policy = OnnxPolicy(bundle.load(exported[0]))
    shape, rng = (CONFIG.rows, CONFIG.actions), np.random.default_rng(0)
    texts = ["put the red cube", "put the blue cube", "the cube"]
    asked = [
        Request(
            replace(look(i), instruction=text),
            Prefix(rng.normal(0, 0.5, shape), flow.hard(CONFIG.rows, i)) if i else None,
            seed=i, call=2 * i,
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip
    together = policy.infer_batch(asked)
    for i, r in enumerate(asked):
        policy.reset(r.seed, r.call)
        single = policy.infer(r.observation, r.prefix)
        np.testing.assert_allclose(together[i].actions, single.actions, atol=1e-4, rtol=1e-4)
        (again,) = policy.infer_batch([r])
        np.testing.assert_array_equal(again.actions, single.actions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "committed", "batch", "sampler"),
    [
        (["--joining", "guided", "--beta", "7"], CONFIG.rows // 2, None, {"beta": 7.0}),
        (["--joining", "none", "--no-dynamic-batch"], 0, 1, {}),
        (["--candidates", "4"], CONFIG.committed, None, {}),
    ],
)
def test_a_bundle_says_how_it_joins(
    flags: list[str], committed: int, batch: int | None, sampler: dict[str, float],
    exported: tuple[Path, np.ndarray], tmp_path: Path,
) -> None:  # fmt: skip
    folder = exported[0].parent
    words = ["--words-from", str(folder / "words")]
    assert frontdoor.main(["export", str(folder / "checkpoint"), str(tmp_path / "b"), *words, *flags]) == 0
    loaded = bundle.load(tmp_path / "b")
    joining = flags[1] if flags[0] == "--joining" else "prefix"
    assert (loaded.spec.joining, loaded.spec.committed) == (joining, committed)
    assert sampler.items() <= loaded.policy["sampler"].items()
    policy = OnnxPolicy(loaded)
    assert OnnxGraph(loaded.graphs["step"]).inputs["x"][1][0] == batch
    rows = np.random.default_rng(0).normal(0, 0.5, (CONFIG.rows, CONFIG.actions))
    answer = policy.infer(look(0), Prefix(rows, flow.weights(CONFIG.rows, 3, 8)))
    policy.reset(0)
    changed = not np.allclose(answer.actions, policy.infer(look(0)).actions, atol=1e-4)
    assert changed == (joining != "none")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "0"], "--steps"), (["--words-from", "nowhere"], "nowhere"), ([], "nowhere"),
        (["--beta", "0"], "--beta"), (["--candidates", "2", "--no-dynamic-batch"], "--candidates"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_one_line(
    flags: list[str],
    said: str,
    exported: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = exported[0].parent / "checkpoint" if flags else tmp_path / "nowhere"
    kept = tmp_path / "bundle"
    kept.mkdir()
    assert frontdoor.main(["export", str(checkpoint), str(kept), *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("takt: ")
    assert said in line
    assert kept.is_dir()


def test_a_folder_that_is_no_bundle_is_not_replaced(
    exported: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("five years")
    folder = exported[0].parent
    args = [str(folder / "checkpoint"), str(tmp_path), "--words-from", str(folder / "words")]
    assert frontdoor.main(["export", *args]) == 1
    assert (tmp_path / "thesis.txt").read_text() == "five years"
    assert str(tmp_path) in capsys.readouterr().err


# -- int8 as storage


def steps(seed: int, shape: tuple[int, int], axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A matrix of int8 times a scale per index of `axis`, as rounding leaves it, with both factors."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-127, 128, shape).astype(np.float32)
    # Rounding chooses the scale so that the largest of each index is 127 steps.
    where = rng.integers(0, shape[1 - axis], shape[axis])
    for i, j in enumerate(where):
        values[(i, j) if axis == 0 else (j, i)] = rng.choice([-127, 127])
    scale = (10 ** rng.uniform(-4, 1, shape[axis])).astype(np.float32)
    wide = scale[:, None] if axis == 0 else scale[None]
    return values * wide, values, scale


@LAW
@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.integers(4, 40), st.sampled_from([0, 1]))
def test_the_axis_of_any_int8_matrix_is_found(seed: int, rows: int, columns: int, axis: int) -> None:
    array, values, scale = steps(seed, (rows, columns), axis)
    found = int8.axis_of(array)
    assert found is not None
    assert found[0] == axis
    np.testing.assert_array_equal(found[1], values)
    np.testing.assert_allclose(found[2], scale, rtol=1e-6)
    assert found[1].dtype == np.int8


@LAW
@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.integers(4, 40))
def test_other_floats_have_none(seed: int, rows: int, columns: int) -> None:
    array = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    assert int8.axis_of(array) is None


def test_a_row_of_zeros_does_not_hide_the_axis() -> None:
    """Such a row is what a word that was never trained may leave, and `round_int8` allows for it."""
    array, values, _ = steps(0, (12, 9), 0)
    array[3], values[3] = 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = int8.axis_of(array)
    assert found is not None
    np.testing.assert_array_equal(found[1], values)
    assert np.isfinite(found[2]).all()


def test_int8_storage_answers_the_same_and_is_a_quarter(tmp_path: Path) -> None:
    table, _, _ = steps(0, (500, 256), 0)  # looked up
    right, _, _ = steps(1, (256, 400), 1)  # multiplied, a scale per output
    left, _, _ = steps(2, (400, 300), 0)  # multiplied, stored the other way about
    places = np.random.default_rng(3).normal(size=(500, 256)).astype(np.float32)  # not rounded
    small = np.random.default_rng(4).normal(size=(300, 8)).astype(np.float32)
    weights = {"table": table, "right": right, "left": left, "places": places, "small": small}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"], axis=0),
        helper.make_node("Gather", ["places", "ids"], ["b"], axis=0),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "right"], ["d"]),
        helper.make_node("Tanh", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "left"], ["f"]),
        helper.make_node("MatMul", ["f", "small"], ["out"]),
    ]
    port = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "test",
        [port("ids", TensorProto.INT64, [1, 16])], [port("out", TensorProto.FLOAT, [1, 16, 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", graph.OPSET)], ir_version=10)
    onnx.save(whole, str(tmp_path / "floats.onnx"))
    int8.store(whole.graph)
    onnx.checker.check_model(whole, full_check=True)
    onnx.save(whole, str(tmp_path / "int8.onnx"))
    kinds = {i.name: i.data_type for i in whole.graph.initializer}
    for name in ("table", "right", "left"):
        assert name not in kinds
        assert kinds[f"{name}_int8"] == TensorProto.INT8
    assert kinds["places"] == kinds["small"] == TensorProto.FLOAT
    ids = np.random.default_rng(5).integers(0, 500, (1, 16))
    (one,), (two,) = (run(tmp_path / f"{name}.onnx", {"ids": ids}) for name in ("floats", "int8"))
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4 * np.abs(one).max())
    kept = places.nbytes + small.nbytes
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size - kept for name in ("floats", "int8")]
    assert sizes[1] < 0.3 * sizes[0]
