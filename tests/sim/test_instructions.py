"""The grammar: what it writes it reads, and what was held out shares nothing with what was trained on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.tabletop import instructions, wordings
from sim.tabletop.instructions import SPLITS_OF_WORDS, canonical, parse, phrase, phrases
from sim.tabletop.meaning import BESIDES, COLOURS, EXTREMES, SHAPES, SIDES, VERBS, Task, Thing
from vla.preprocess import Words

SHIPPED = Path(instructions.__file__).parents[2] / "vla/bundles/nano/tokenizer.json"
LAW = settings(deadline=None, max_examples=400, derandomize=True)
FAMILIES = ("put", "stack", "zone", "side", "touch", "lift")

colours = st.sampled_from(tuple(COLOURS))
things = st.builds(Thing, colours, st.sampled_from(SHAPES))
landmarks = st.builds(Thing, colours, st.sampled_from((*SHAPES, "bowl")))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def all_tasks(draw: st.DrawFn) -> Task:
    """Anything the grammar has words for, whether or not it is ever asked on a table."""
    verb, thing = draw(st.sampled_from(VERBS)), draw(things)
    place, side = None, ""
    if verb == "put":
        place = Thing(draw(colours), "bowl")
    elif verb == "stack":
        place = draw(st.builds(Thing, colours, st.sampled_from(("cube", "cylinder"))))
        thing = thing if thing != place else replace(thing, kind="ball")
    elif verb == "push" and draw(st.booleans()):
        place = Thing(draw(colours), "zone")
    elif verb == "push":
        side = draw(st.sampled_from(SIDES))
    task = Task(verb, thing, place, side)
    if draw(st.booleans()):
        return task
    if draw(st.booleans()):
        return replace(task, relation=draw(st.sampled_from(EXTREMES)))
    return replace(task, relation=draw(st.sampled_from(BESIDES)), landmark=draw(landmarks))


@settings(LAW, max_examples=1500)
@given(all_tasks(), seeds, st.sampled_from(SPLITS_OF_WORDS))
def test_what_is_written_is_read(task: Task, seed: int, split: str) -> None:
    text = phrase(task, np.random.default_rng(seed), split)
    assert parse(text) == task, text
    assert text == phrase(task, np.random.default_rng(seed), split)


@LAW
@given(all_tasks())
def test_the_plain_wording_is_read(task: Task) -> None:
    assert parse(canonical(task)) == task


@settings(LAW, max_examples=100)
@given(all_tasks(), seeds, st.integers(1, 9))
def test_several_wordings_differ_and_mean_the_same(task: Task, seed: int, count: int) -> None:
    texts = phrases(task, np.random.default_rng(seed), count)
    assert len(set(texts)) == len(texts) == count
    assert {parse(text) for text in texts} == {task}


@settings(LAW, max_examples=1500)
@given(all_tasks(), seeds, st.sampled_from(SPLITS_OF_WORDS))
def test_the_reader_has_room_for_every_wording(task: Task, seed: int, split: str) -> None:
    _, mask = WORDS(phrase(task, np.random.default_rng(seed), split))
    assert mask.sum() <= 24


WORDS = Words(SHIPPED, 40)


@LAW
@given(st.text(max_size=200))
def test_nothing_that_is_typed_breaks_it(text: str) -> None:
    assert parse(text) is None or isinstance(parse(text), Task)


tokens = [*COLOURS, "cube", "bowl", "zone", "ball", "left", "right", "of", "to", "in", "on", "the", "put",
          "push", "touch", "lift", "nearest", "behind", "not", ","]  # fmt: skip


@LAW
@given(st.lists(st.sampled_from(tokens), max_size=14))
def test_no_salad_of_its_words_breaks_it(words: list[str]) -> None:
    task = parse(" ".join(words))
    if task is not None:
        assert task.thing.kind in SHAPES
        assert parse(canonical(task)) == task


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_words_share_no_verb_and_no_sentence(family: str) -> None:
    seen, new = (wordings.VERBS[split][family] for split in SPLITS_OF_WORDS)
    assert len(seen) >= 6
    assert not set(seen) & set(new)
    assert len(sentences("seen", family)) >= 12
    assert not sentences("seen", family) & sentences("phrasings", family)


def sentences(split: str, family: str) -> set[str]:
    asked = {ask.format(do=do) for ask in wordings.ASK[split] for do in wordings.DO[split][family]}
    return asked | set(wordings.SAY[split][family])


@pytest.mark.parametrize("kind", wordings.NOUNS["seen"])
def test_half_of_the_held_out_nouns_are_new(kind: str) -> None:
    seen, new = (wordings.NOUNS[split][kind] for split in SPLITS_OF_WORDS)
    assert len(set(new) - set(seen)) >= len(new) / 2


def test_no_noun_means_two_kinds() -> None:
    nouns = [
        n for split in SPLITS_OF_WORDS for kind, ns in wordings.NOUNS[split].items() for n in {*ns, kind}
    ]
    kinds = {n: {k for s in SPLITS_OF_WORDS for k, ns in wordings.NOUNS[s].items() if n in ns} for n in nouns}
    assert all(len(found) == 1 for found in kinds.values()), kinds


def test_every_example_is_read_and_every_verb_has_one() -> None:
    found = [parse(text) for text in instructions.examples()]
    assert {task.verb for task in found if task is not None} == set(VERBS)
    assert None not in found


RED, BLUE = Thing("red", "cube"), Thing("blue", "bowl")


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Red block into the RED dish!", Task("put", RED, Thing("red", "bowl"))),
        ("red cube, blue bowl", Task("put", RED, BLUE)),
        ("in the blue bowl put the red cube", Task("put", RED, BLUE)),
        ("move the red cube to the blue bowl", Task("put", RED, BLUE)),
        ("move the red cube left", Task("push", RED, side="left")),
        ("put the red block on the blue brick", Task("stack", RED, Thing("blue", "cube"))),
        ("put the red cube on the yellow zone", Task("push", RED, Thing("yellow", "zone"))),
        ("pick up the red cube", Task("lift", RED)),
        ("pick up the red cube and place it in the blue bowl", Task("put", RED, BLUE)),
        ("touch the left red cube", Task("touch", RED, relation="leftmost")),
        (
            "push the red cube left of the blue bowl to the right",
            Task("push", RED, None, "right", "left of", BLUE),
        ),
    ],
)
def test_what_people_type(text: str, task: Task) -> None:
    assert parse(text) == task


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "tidy up", "the red one", "put the red cube away", "push the red cube", "red green blue",
        "put the orange cube in the beige bowl", "touch and lift the red cube", "do not touch the red cube",
        "put the red cube in the blue bowl and the green bowl", "lift the blue bowl", "push the ball to the left",
        "put the red cube on the red cube", "stack the red cube on the blue ball", 
        "lift the leftmost rightmost red cube",
    ],
)  # fmt: skip
def test_what_it_cannot_tell_it_does_not_guess(text: str) -> None:
    assert parse(text) is None


def test_wordings_are_plain_lower_case() -> None:
    tables = (wordings.DO, wordings.SAY, wordings.WHICH, wordings.VERBS, wordings.NOUNS)
    texts = [t for table in tables for split in table.values() for ts in split.values() for t in ts]
    texts += [t for ts in wordings.ASK.values() for t in ts]
    assert all(re.fullmatch(r"[a-z {}',:?-]+", text) for text in texts)
