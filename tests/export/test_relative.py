"""Actions that are steps, from torch to the body: exported in several precisions, served, played by
`takt eval` and executed by `takt run` as torch answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import vla.__main__ as frontdoor
from export import lower, reference, tensorrt
from runtime import bundle, client
from runtime import run as running
from runtime.clock import MonotonicClock
from runtime.engine import GraphPolicy, OnnxPolicy
from runtime.graphs import OnnxGraph
from runtime.tensorrt_library import Library
from sim import evaluate, play
from sim.gym.suite import Mapped
from tests.sim import mappings
from tests.sim.counting_env import STATE
from tests.vla.test_train import NEEDS_WORDS
from vla.contract import ActionChunk, Observation, Policy, Prefix
from vla.dataset import Feature, Writer

pytestmark = [NEEDS_WORDS, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
WORDS = ROOT / "vla/bundles/nano"
SMALL = [
    *("--image-size", "32", "--width", "0.5", "--batch", "4", "--draws", "1"),
    *("--threads", "1", "--steps", "1"),
]
SIDE = 4, 6  # height and width of the counting environment's frames
PRECISIONS = {
    "fp32": [],
    "int8": ["--precision", "int8"],
    "s8": ["--precision", "int8", "--static"],
}
LAW = settings(deadline=None, max_examples=15, derandomize=True)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where the host's Python finds the tests' environment
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recorded(folder: Path) -> Path:
    """Episodes of the counting environment: dx is a step, hold a target that the state does not have."""
    rng, length = np.random.default_rng(0), 12
    columns = {
        "observation.state": Feature("float32", (len(STATE),), list(STATE)),
        "action": Feature("float32", (2,), ["dx", "hold"]),
        "observation.images.side": Feature("image", (*SIDE, 3)),
    }
    with Writer(folder, 20, columns, "counter") as out:
        for seed in range(3):
            dx = 0.1 * (1 + seed) * np.sin(np.arange(length))
            # All of it varies: what fixed scales never saw they cut off.
            state = np.stack([dx * 3, dx.cumsum(), dx, *rng.uniform(-1, 1, (2, length))], 1)
            frames = rng.integers(0, 256, (length, *SIDE, 3), np.uint8)
            rows = {"observation.state": state, "action": np.stack([dx, 0.2 + 0.2 * np.cos(dx * 9)], 1)}
            rows = {name: value.astype(np.float32) for name, value in rows.items()}
            out.add_episode(f"count from {seed}", rows | {"observation.images.side": frames})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a counter, and its bundles by precision."""
    folder = tmp_path_factory.mktemp("relative")
    data = recorded(folder / "data")
    said = ["--data", str(data), "--relative", "dx", "--unit", "1,1", *SMALL]
    assert frontdoor.main(["train", str(folder / "checkpoint"), *said]) == 0
    # What long training would make of it: actions that differ with what is seen.
    file = folder / "checkpoint" / "model.safetensors"
    weights = load_file(file)
    torch.nn.init.normal_(weights["outlet.weight"], std=0.2, generator=torch.Generator().manual_seed(0))
    save_file(weights, file)
    args = [str(folder / "checkpoint"), str(folder / "fp32"), "--words-from", str(WORDS), "--fused"]
    assert frontdoor.main(["export", *args]) == 0
    for name in ("int8", "s8"):
        args = [str(folder / "fp32"), str(folder / name), *PRECISIONS[name], "--observations", str(data)]
        assert frontdoor.main(["export", *args, "--samples", "8", "--tolerance", "0.05"]) == 0
    return folder


def torched(made: Path) -> Policy:
    return reference.plain(made / "checkpoint", bundle.load(made / "fp32"), 1)


def span(policy: Policy) -> np.ndarray:
    """What its actions go through over a few observations, shape (2,)."""
    chunks = [policy.infer(look(seed, [0.2 * seed - 0.4] * 5)).actions for seed in range(5)]
    return np.ptp(np.concatenate(chunks), axis=0)


def look(seed: int, state: list[float]) -> Observation:
    frames = {"side": np.random.default_rng(seed).integers(0, 256, (*SIDE, 3), np.uint8)}
    return Observation(1.0, np.array(state, np.float32), frames, f"count from {seed}")


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("int8", 0.05), ("s8", 0.05)])
def test_steps_come_out_of_the_graph_as_of_torch(precision: str, most: float, made: Path) -> None:
    """Whatever is seen, whichever rows are committed, in one run and step by step; in physical units."""
    loaded = bundle.load(made / precision)
    graphs = {name: OnnxGraph(file) for name, file in loaded.graphs.items()}
    single = {name: graph for name, graph in graphs.items() if name != "denoise"}
    policies = [torched(made), GraphPolicy(loaded, graphs), GraphPolicy(loaded, single)]
    assert [d.absolute for d in loaded.spec.actions.dimensions] == [False, True]
    assert loaded.spec == policies[0].spec
    spread = span(policies[0])
    numbers = st.floats(-0.25, 0.25, width=32)  # as recorded: beyond that fixed scales cut off

    @LAW
    @given(st.integers(0, 99), st.lists(numbers, min_size=5, max_size=5), st.integers(0, 3))
    def law(seed: int, state: list[float], committed: int) -> None:
        rows = np.random.default_rng(seed).uniform(-0.3, 0.3, (loaded.spec.chunk_length, 2))
        weights = (np.arange(len(rows)) < committed).astype(np.float32)
        prefix = Prefix(rows, weights) if committed else None
        chunks = []
        for policy in policies:
            policy.reset(seed)
            chunks.append(policy.infer(look(seed, state), prefix).actions)
        kept = min(committed, loaded.spec.committed)
        for chunk in chunks[1:]:
            error = np.abs(chunk - chunks[0]) / spread
            assert (error.max() if precision == "fp32" else error.mean()) < most
            np.testing.assert_allclose(chunk[:kept], rows[:kept], atol=1e-4)

    law()


@pytest.mark.parametrize("part", lower.GRAPHS)
def test_its_graphs_are_built_by_tensorrt(part: str, made: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    library = Library("tensorrt-rtx")
    for folder, precision in (("fp32", ""), ("fp32", "fp16"), ("s8", "")):
        ready = tensorrt.prepared(made / folder / f"{part}.onnx", precision, library)
        assert len(tensorrt.build(library, ready)) > 1e4


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_served_is_what_the_bundle_answers(precision: str, made: Path) -> None:
    ours = OnnxPolicy(bundle.load(made / precision))
    with running.policy_at(str(made / precision), 1, robot="counter") as remote:
        assert remote.spec == ours.spec
        for policy in (ours, remote):
            policy.reset(5)
        for seed in range(3):
            seen = look(seed, [0.1 * seed] * 5)
            np.testing.assert_array_equal(remote.infer(seen).actions, ours.infer(seen).actions)


def told_by(monkeypatch: pytest.MonkeyPatch, mapping: Path, policy: Policy) -> np.ndarray:
    """What reaches the environment in a second of `takt eval`, shape (20, 2)."""
    told: list[np.ndarray] = []
    record = play.loop.run

    def run(robot: Any, *args: Any, **kwargs: Any) -> Any:
        asked = robot.host.ask

        def ask(do: str, arrays: Any = None, **fields: Any) -> Any:
            if do == "step":
                told.extend(arrays["actions"])
            return asked(do, arrays, **fields)

        robot.host.ask = ask
        return record(robot, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(play.loop, "run", run)
        for module in (play, evaluate):
            patch.setattr(module, "open_policy", lambda *a, **k: policy)
        suite = f"gym:{mapping}"
        evaluate.Command(suite=suite, policy="of-the-test", episodes=1, seed=3, join="naive").measure()
    return np.array(told)


def test_an_evaluation_plays_the_steps_that_torch_would(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = mappings.write(tmp_path, mappings.COUNTING, seconds=1.0, success={"reward": 9.0})
    wanted = told_by(monkeypatch, mapping, torched(made))
    assert wanted.shape == (20, 2) and np.ptp(wanted[:, 0]) > 0.05
    got = {name: told_by(monkeypatch, mapping, OnnxPolicy(bundle.load(made / name))) for name in PRECISIONS}
    np.testing.assert_allclose(got["fp32"], wanted, atol=1e-4)
    for name in ("int8", "s8"):  # the loop is closed: what was done is in the next state
        assert np.abs(got[name] - wanted).mean() < 0.1 * np.ptp(wanted, axis=0).min(), name


class Counter:
    """The counting environment as a robot of `takt run`, in its own process and in real time."""

    def __init__(self, mapping: Path) -> None:
        suite = Mapped(str(mapping))
        self.robot = suite.robot(MonotonicClock())
        self.told: list[np.ndarray] = []
        asked = self.robot.host.ask

        def ask(do: str, arrays: Any = None, **fields: Any) -> Any:
            if do == "step":
                self.told.extend(arrays["actions"])
            return asked(do, arrays, **fields)

        self.robot.host.ask = ask  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.robot, name)

    def __enter__(self) -> Counter:
        self.robot.reset({"seed": 3}, 10_000, False)
        return self

    def __exit__(self, *exc: object) -> None:
        self.robot.__exit__(*exc)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_run_executes_rows_as_they_are_and_each_step_once(
    precision: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a policy in a process of its own; nothing interpolates, scales or repeats a step."""
    mapping = mappings.write(tmp_path, mappings.COUNTING, seconds=60.0, success={"reward": 9.0})
    body, chunks = Counter(mapping), list[ActionChunk]()
    found = EntryPoint("counter", "nowhere:make", "takt.robots")
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda: body)
    monkeypatch.setattr(running, "entry_points", lambda group: [found])
    poll = client.RemotePolicy.poll

    def polled(self: Any) -> list[ActionChunk]:
        new = poll(self)
        chunks.extend(new)
        return new

    monkeypatch.setattr(client.RemotePolicy, "poll", polled)
    out = tmp_path / "out.json"
    args = ["run", "count from 3", "--robot", "counter", "--policy", str(made / precision)]
    args += ["--seconds", "2", "--rate", "20", "--join", "naive", "--json", str(out)]
    assert frontdoor.main(args) == 0
    assert json.loads(out.read_text())["loop"]["reason"] == "done"
    rows = np.clip(np.concatenate([chunk.actions for chunk in chunks])[:, 0], -1, 1)
    steps = np.array(body.told)[:, 0]
    moved = steps[steps != 0]
    assert len(moved) > 10
    apart = np.abs(moved[:, None] - rows).min(axis=1)
    assert apart.max() < 1e-6  # each is a row of a chunk, as the policy gave it
    # In the state's own sum as well: what was told is what was done.
    assert body.robot._state[1] == pytest.approx(steps.sum(), abs=1e-4)
