"""A bundle answers what its graphs compute, with noise fixed by (seed, call)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime import bundle
from runtime.engine import GraphPolicy, OnnxPolicy
from runtime.graphs import OnnxGraph
from runtime.pace import WARMUP
from tests import fakes
from vla import flow
from vla.contract import ActionChunk, Policy, Prefix, Request, SharedPolicy, TaktError

SPEC = replace(fakes.arm_spec(), joining="prefix", committed=4)
SHAPE = (SPEC.chunk_length, SPEC.actions.size)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    return bundle.load(fakes.write_bundle(tmp_path_factory.mktemp("engine") / "bundle", SPEC))


@pytest.fixture
def policy(loaded: bundle.Bundle) -> OnnxPolicy:
    return OnnxPolicy(loaded)


def noise(seed: int, call: int) -> np.ndarray:
    return np.random.default_rng([seed, call]).standard_normal((SPEC.chunk_length, SPEC.actions.size))


def test_it_is_a_policy(policy: OnnxPolicy) -> None:
    assert isinstance(policy, Policy)
    assert isinstance(policy, SharedPolicy)


@pytest.mark.parametrize("seed", [0, 7])
def test_answers_are_the_graphs_and_the_noise_of_seed_and_call(policy: OnnxPolicy, seed: int) -> None:
    policy.reset(seed)
    for call, (value, shade) in enumerate([(0.0, 0), (0.3, 255), (-0.2, 17)]):
        seen = fakes.observation(SPEC, float(call), value, shade)
        chunk = policy.infer(seen)
        np.testing.assert_allclose(chunk.actions, noise(seed, call) + fakes.goal(seen), atol=1e-5)
        assert (chunk.time, chunk.dt) == (seen.time, SPEC.dt)
        assert set(chunk.stages) == {"preprocess", "words", "prefix", "steps"}
        assert len(chunk.step_seconds) == 5
        assert chunk.origin is not None


class Telling:
    """A prefix graph that says, beside its memory, how likely the task is done."""

    def __init__(self, graph: OnnxGraph, done: float) -> None:
        self.inputs, self.outputs = graph.inputs, [*graph.outputs, "done"]
        self._graph, self._done = graph, done

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**self._graph(feeds), "done": np.array([self._done], np.float32)}


def test_a_chunk_says_how_likely_the_task_is_done_where_the_graph_does(loaded: bundle.Bundle) -> None:
    graphs = {name: OnnxGraph(file) for name, file in loaded.graphs.items()}
    seen = fakes.observation(SPEC)
    silent = GraphPolicy(loaded, graphs).infer(seen)
    telling = GraphPolicy(loaded, graphs | {"prefix": Telling(graphs["prefix"], 0.25)}).infer(seen)
    assert silent.done is None
    assert telling.done == 0.25
    np.testing.assert_array_equal(telling.actions, silent.actions)
    for wrong in (1.5, float("nan")):
        with pytest.raises(TaktError, match="probability"):
            GraphPolicy(loaded, graphs | {"prefix": Telling(graphs["prefix"], wrong)}).infer(seen)


def test_sampling_resumes_at_any_call(policy: OnnxPolicy) -> None:
    seen = fakes.observation(SPEC)
    policy.reset(3)
    expected = [policy.infer(seen).actions for _ in range(3)]
    policy.reset(3, calls=2)
    np.testing.assert_array_equal(policy.infer(seen).actions, expected[2])


def test_committed_rows_come_back_as_they_are(policy: OnnxPolicy) -> None:
    mask = np.arange(SPEC.chunk_length) < 4
    kept = np.full((SPEC.chunk_length, SPEC.actions.size), 0.25)
    actions = policy.infer(fakes.observation(SPEC), Prefix(kept, mask)).actions
    np.testing.assert_array_equal(actions[:4], kept[:4])
    assert not np.isclose(actions[4:], 0.25).all()
    for wrong in (Prefix(kept[1:], mask[1:]), Prefix(kept * np.nan, mask), Prefix(kept, mask * 2)):
        with pytest.raises(TaktError, match="prefix"):
            policy.infer(fakes.observation(SPEC), wrong)


def test_words_are_computed_once_an_instruction(loaded: bundle.Bundle) -> None:
    calls = []

    class Counting(OnnxGraph):
        def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            calls.append(feeds["ids"].tolist())
            return super().__call__(feeds)

    graphs = {name: OnnxGraph(file) for name, file in loaded.graphs.items()}
    policy = GraphPolicy(loaded, graphs | {"words": Counting(loaded.graphs["words"])})
    first = fakes.observation(SPEC)
    for text in ("put the red cube", "put the blue cube", "put the red cube"):
        policy.infer(replace(first, instruction=text))
    assert len(calls) == 2


def test_actions_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    loaded = replace(bundle.load(fakes.write_bundle(tmp_path / "bundle", SPEC)), noise=float("inf"))
    with pytest.raises(TaktError, match="not finite"):
        OnnxPolicy(loaded).infer(fakes.observation(SPEC))


def test_graphs_are_compared_with_the_spec_once(loaded: bundle.Bundle) -> None:
    for change in ({"chunk_length": 8}, {"state": ("a", "b")}, {"cameras": SPEC.cameras[:1]}):
        other = replace(loaded, spec=replace(SPEC, **change))
        with pytest.raises(TaktError, match=r"onnx takes") as caught:
            OnnxPolicy(other)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_no_graph_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(TaktError, match=r"x\.onnx") as caught:
        OnnxGraph(tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)


# -- a policy of numbers on a clock of ours: every run of a graph takes as long as we say


class Clock:
    """Seconds that pass only when a graph runs."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Numbers:
    """prefix: the state's mean, (B, 1). step: x moves towards it; committed rows are repeated.

    Attributes:
        cost: (number of rows) -> s of one run.
        ran: rows of each run.
    """

    def __init__(self, name: str, clock: Clock, batch: int | None, cost: dict[int, float]) -> None:
        row = (batch, *SHAPE)
        self.inputs = {
            "prefix": {"state": ("float32", (batch, len(SPEC.state)))}
            | {f"frames_{c.name}": ("uint8", (batch, c.height, c.width, 3)) for c in SPEC.cameras},
            "step": {"memory_goal": ("float32", (batch, 1)), "x": ("float32", row), "kept": ("float32", row)}
            | {"kept_mask": ("float32", row[:2]), "t": ("float32", (1,)), "dt": ("float32", (1,))},
        }[name]
        self.outputs = {"prefix": ["memory_goal"], "step": ["x_next", "actions"]}[name]
        self.name, self.clock, self.cost, self.ran = name, clock, cost, []  # type: ignore[var-annotated]

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(feeds["state" if self.name == "prefix" else "x"])
        self.ran.append(rows)
        self.clock.now += self.cost.get(rows, self.cost[1] * rows)
        if self.name == "prefix":
            return {"memory_goal": feeds["state"].mean(1, keepdims=True)}
        x = feeds["x"]
        goal, way = feeds["memory_goal"][:, :, None], feeds["dt"] / np.maximum(1 - feeds["t"], 1e-6)
        x = (x + 0.5 * (goal - x) * way).astype(np.float32)
        return {"x_next": x, "actions": np.where(feeds["kept_mask"][:, :, None] > 0, feeds["kept"], x)}


def numbers(
    loaded: bundle.Bundle, batch: int | None = None, cost: float = 0.01, **changes: object
) -> tuple[GraphPolicy, dict[str, Numbers], Clock]:
    clock = Clock()
    graphs = {n: Numbers(n, clock, batch, {1: cost}) for n in ("prefix", "step")}
    made = replace(loaded, tokenizer=None, steps=8, **changes)  # type: ignore[arg-type]
    return GraphPolicy(made, graphs, clock), graphs, clock


def warm(policy: GraphPolicy, runs: int = WARMUP + 4) -> None:
    for _ in range(runs):
        policy.infer(fakes.observation(SPEC))


@pytest.mark.parametrize(
    ("deadline", "steps"),
    [(None, 8), (1.0, 8), (0.0901, 8), (0.0801, 7), (0.0451, 3), (0.0201, 1), (0.0, 1), (-1.0, 1)],
)
def test_as_many_steps_as_fit_beside_the_prefix(
    loaded: bundle.Bundle, deadline: float | None, steps: int
) -> None:
    policy, _, clock = numbers(loaded)
    warm(policy)
    begun = clock.now
    chunk = policy.infer(fakes.observation(SPEC), deadline=deadline)
    assert len(chunk.step_seconds) == steps
    assert chunk.step_seconds == pytest.approx([0.01] * steps)
    assert chunk.origin == begun
    assert sum(chunk.stages.values()) == pytest.approx(clock.now - begun)
    if deadline is not None and deadline > 0.02:
        assert clock.now - begun <= deadline


def test_the_first_runs_after_loading_do_not_count(loaded: bundle.Bundle) -> None:
    policy, graphs, _ = numbers(loaded)
    graphs["step"].cost = {1: 10.0}
    warm(policy, WARMUP)
    assert policy.pace.step() is None
    graphs["step"].cost = {1: 0.01}
    warm(policy, 1)
    assert policy.pace.step() == pytest.approx(0.01)
    assert policy.pace.prefix() == pytest.approx(0.01)


def test_one_bad_second_is_forgotten(loaded: bundle.Bundle) -> None:
    policy, graphs, _ = numbers(loaded)
    warm(policy)
    graphs["step"].cost = {1: 1.0}
    warm(policy, 1)
    graphs["step"].cost = {1: 0.01}
    warm(policy, 10)
    assert policy.pace.step() == pytest.approx(0.01)


def test_steps_that_turn_out_slower_end_early_with_the_clean_estimate(loaded: bundle.Bundle) -> None:
    policy, graphs, clock = numbers(loaded)
    warm(policy)
    graphs["step"].cost = {1: 0.03}  # three times what it took before
    policy.reset(5)
    begun = clock.now
    chunk = policy.infer(fakes.observation(SPEC, value=0.4), deadline=0.1)
    assert len(chunk.step_seconds) == 2
    assert clock.now - begun <= 0.1
    x, goal = flow.noise(SHAPE, 5, 0), 0.4
    x = x + 0.5 * (goal - x) / 8
    np.testing.assert_allclose(chunk.actions, x + 0.5 * (goal - x), atol=1e-5)


def requests(count: int, deadline: float | None = None) -> list[Request]:
    return [
        Request(
            fakes.observation(SPEC, float(i), 0.1 * i, 20 * i),
            Prefix(np.full(SHAPE, 0.1 * i), flow.hard(SHAPE[0], i)) if i else None,
            deadline, seed=i % 2, call=i,
        )
        for i in range(count)
    ]  # fmt: skip


def alone(policy: GraphPolicy, r: Request) -> ActionChunk:
    policy.reset(r.seed, r.call)
    return policy.infer(r.observation, r.prefix, r.deadline)


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_answers_each_as_if_it_were_alone(
    loaded: bundle.Bundle, batch: int | None, count: int
) -> None:
    policy, graphs, _ = numbers(loaded, batch)
    asked = requests(count)
    chunks = policy.infer_batch(asked)
    assert graphs["prefix"].ran == ([count] * bool(count) if batch is None else [1] * count)
    for r, chunk in zip(asked, chunks, strict=True):
        expected = alone(policy, r)
        assert chunk.time == r.observation.time
        np.testing.assert_allclose(chunk.actions, expected.actions, atol=1e-6)
        if count == 1:
            np.testing.assert_array_equal(chunk.actions, expected.actions)


def test_the_earliest_deadline_of_a_batch_rules(loaded: bundle.Bundle) -> None:
    policy, _, clock = numbers(loaded)
    for _ in range(WARMUP + 1):
        policy.infer_batch(requests(3))
    asked = [replace(r, deadline=d) for r, d in zip(requests(3), (None, 0.5, 0.1501), strict=True)]
    begun = clock.now
    assert {len(c.step_seconds) for c in policy.infer_batch(asked)} == {4}  # 0.03 for the prefix, 0.03 each
    assert clock.now - begun <= 0.1501


def test_one_after_the_other_each_is_left_what_those_before_it_took(loaded: bundle.Bundle) -> None:
    policy, _, _ = numbers(loaded, 1)
    warm(policy)
    chunks = policy.infer_batch([replace(r, deadline=0.1301) for r in requests(2)])
    assert [len(c.step_seconds) for c in chunks] == [8, 3]


# -- joining


@pytest.mark.parametrize(("joining", "held"), [("none", 0), ("prefix", 4), ("guided", 9)])
def test_what_the_step_graph_is_given_of_a_prefix(loaded: bundle.Bundle, joining: str, held: int) -> None:
    policy, _, _ = numbers(loaded, spec=replace(SPEC, joining=joining))
    prefix = Prefix(np.full(SHAPE, 0.25), flow.weights(SHAPE[0], 6, 9))
    actions = policy.infer(fakes.observation(SPEC), prefix).actions
    assert (actions == 0.25).all(1).tolist() == [i < held for i in range(SHAPE[0])]


# -- candidates


def test_candidates_share_a_prefix_and_the_nearest_to_the_plan_is_taken(loaded: bundle.Bundle) -> None:
    policy, graphs, _ = numbers(loaded, candidates=4)
    noise = flow.noise((4, *SHAPE), 3, 0)
    plan = noise[2] / 2  # what the third draw arrives at, before the goal's part
    policy.reset(3)
    chunk = policy.infer(fakes.observation(SPEC), Prefix(plan, flow.weights(SHAPE[0], 2, 12)))
    assert graphs["prefix"].ran == [1]
    assert set(graphs["step"].ran) == {4}
    one, _, _ = numbers(loaded)
    apart = [np.abs(chunk.actions[4:] - a[4:]).max() for a in _answers(one, noise)]
    assert int(np.argmin(apart)) == 2
    assert apart[2] == pytest.approx(0, abs=1e-5)


def _answers(policy: GraphPolicy, noise: np.ndarray) -> np.ndarray:
    """What the steps make of each noise, without candidates."""
    x = noise
    for i in range(8):
        x = x + 0.5 * (0 - x) * (1 / 8) / (1 - i / 8)
    return x


def test_without_a_plan_the_medoid_is_taken_and_the_first_draw_is_the_only_ones(
    loaded: bundle.Bundle,
) -> None:
    four, _, _ = numbers(loaded, candidates=4)
    one, _, _ = numbers(loaded)
    seen = fakes.observation(SPEC)
    draws = _answers(one, flow.noise((4, *SHAPE), 0, 0))
    np.testing.assert_allclose(one.infer(seen).actions, draws[0], atol=1e-6)
    scaled = (draws / (SPEC.actions.upper - SPEC.actions.lower)).reshape(4, -1)
    middle = np.argmin([sum(np.linalg.norm(a - b) for b in scaled) for a in scaled])
    np.testing.assert_allclose(four.infer(seen).actions, draws[middle], atol=1e-6)


@pytest.mark.parametrize(("deadline", "count"), [(None, 4), (1.0, 4), (0.2, 2), (0.1, 1), (0.0301, 1)])
def test_only_as_many_candidates_as_fit(loaded: bundle.Bundle, deadline: float | None, count: int) -> None:
    policy, graphs, clock = numbers(loaded, candidates=4)
    warm(policy)
    for _ in range(WARMUP + 2):  # of one draw nothing is known at first, so all of its steps are tried
        begun = clock.now
        policy.infer(fakes.observation(SPEC), deadline=deadline)
        assert deadline is None or clock.now - begun <= deadline
    assert graphs["step"].ran[-1] == count


def test_candidates_need_an_open_batch(loaded: bundle.Bundle) -> None:
    with pytest.raises(TaktError, match="--dynamic-batch"):
        numbers(loaded, 1, candidates=4)
