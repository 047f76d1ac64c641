"""A bundle answers what its graphs compute, with noise fixed by (seed, call)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime import bundle
from runtime.engine import GraphPolicy, OnnxGraph, OnnxPolicy
from tests import fakes
from vla.contract import Policy, Prefix, TaktError

SPEC = fakes.arm_spec()


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


@pytest.mark.parametrize("seed", [0, 7])
def test_answers_are_the_graphs_and_the_noise_of_seed_and_call(policy: OnnxPolicy, seed: int) -> None:
    policy.reset(seed)
    for call, (value, shade) in enumerate([(0.0, 0), (0.3, 255), (-0.2, 17)]):
        seen = fakes.observation(SPEC, float(call), value, shade)
        chunk = policy.infer(seen)
        np.testing.assert_allclose(chunk.actions, noise(seed, call) + fakes.goal(seen), atol=1e-5)
        assert (chunk.time, chunk.dt) == (seen.time, SPEC.dt)
        assert set(chunk.stages) == {"preprocess", "words", "prefix", "steps"}


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
    with pytest.raises(TaktError, match="prefix"):
        policy.infer(fakes.observation(SPEC), Prefix(kept[1:], mask[1:]))


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
