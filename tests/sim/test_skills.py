"""What the shipped policy can be told: long sentences, corrections, what cannot be done, other tongues."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import skills
from runtime.skills import Skills
from sim.tabletop import goals
from sim.tabletop.hearing import apart, heard
from sim.tabletop.instructions import canonical, parse, phrase
from sim.tabletop.skills import SKILLS, tasks


def meant(text: str, before: str = "") -> list[str]:
    return [wish.text for wish in SKILLS.read(text, before).wishes]


def test_they_are_found_by_the_name_of_the_shipped_policy() -> None:
    assert skills.find("nano") is SKILLS and isinstance(SKILLS, Skills)


def test_every_instruction_is_known_by_its_plain_wording_and_asks_about_its_thing() -> None:
    for task in tasks():
        (wish,) = SKILLS.read(canonical(task)).wishes
        assert wish.text == canonical(task) and not wish.each
        (probes,) = wish.probes
        assert probes[-1] == wish.text
        assert {parse(probe).thing for probe in probes} == {task.thing}  # type: ignore[union-attr]
        thing, place = wish.names
        assert thing in wish.text and place in wish.text and bool(place) == (task.place is not None)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("pick up the red cube and put it in the blue bowl", ["put the red cube in the blue bowl"]),
        ("find the red cube, then put it in the blue bowl", ["put the red cube in the blue bowl"]),
        ("push the red cube to the left and lift it", ["push the red cube to the left", "lift the red cube"]),
        (
            "put the red cube and the green ball in the blue bowl",
            ["put the red cube in the blue bowl", "put the green ball in the blue bowl"],
        ),
        (
            "put the red cube in the blue bowl and the blue one in the white bowl",
            ["put the red cube in the blue bowl", "put the blue cube in the white bowl"],
        ),
        ("First touch the blue cube. Then lift it.", ["touch the blue cube", "lift the blue cube"]),
        (
            "touch the red cube, the blue ball and the green cylinder",
            ["touch the red cube", "touch the blue ball", "touch the green cylinder"],
        ),
        ("Leg den roten Würfel in die blaue Schüssel", ["put the red cube in the blue bowl"]),
        (
            "heb die rote Kugel hoch und schieb dann den gelben Würfel nach links",
            ["lift the red ball", "push the yellow cube to the left"],
        ),
        (
            "把红色方块叠到蓝色方块上，然后摸绿色的球",
            ["stack the red cube on the blue cube", "touch the green ball"],
        ),
        ("pikc up teh grene cylindar", ["lift the green cylinder"]),
    ],
)
def test_long_and_free_sentences(text: str, steps: list[str]) -> None:
    assert meant(text) == steps


def test_all_of_them_and_the_bowl_are_for_the_policy_to_see() -> None:
    (wish, then) = SKILLS.read("put all the cubes in the bowl, then stack the red one on the blue one").wishes
    assert len(wish.each) == len(wish.probes) == len(wish.choice) == 36
    assert set(wish.choice) == {
        f"the {c} bowl" for c in ("red", "green", "blue", "yellow", "purple", "white")
    }
    assert then.text == "stack the red cube on the blue cube"
    (every,) = SKILLS.read("put everything in the white bowl").wishes
    assert len(every.each) == 18 and set(every.choice) == {""}


@pytest.mark.parametrize(
    ("now", "said", "then"),
    [
        ("put the red cube in the white bowl", "the blue one", "put the blue cube in the white bowl"),
        ("put the red cube in the white bowl", "the blue bowl", "put the red cube in the blue bowl"),
        ("put the red cube in the white bowl", "in the blue one", "put the red cube in the blue bowl"),
        ("put the red cube in the white bowl", "the green ball", "put the green ball in the white bowl"),
        ("push the red cube to the left", "to the right", "push the red cube to the right"),
        ("stack the red cube on the blue cube", "on the green one", "stack the red cube on the green cube"),
        ("touch the red cube", "lift it", "lift the red cube"),
        ("touch the red cube", "put it in the white bowl", "put the red cube in the white bowl"),
        ("touch the red cube", "the ball", "touch the red ball"),
        ("touch the red cube", "den blauen", "touch the blue cube"),
    ],
)
def test_a_few_words_change_what_they_name(now: str, said: str, then: str) -> None:
    assert [wish.text for wish in SKILLS.correct(said, now).wishes] == [then]


def test_what_may_mean_several_things_is_corrected_in_each_of_them() -> None:
    (wish,) = SKILLS.correct("the blue one", "put the red cube in the bowl").wishes
    assert len(wish.each) == 6 and all(text.startswith("put the blue cube in the ") for text in wish.each)
    (sure,) = SKILLS.correct("in the white bowl", "put the red cube in the bowl").wishes
    assert sure.text == "put the red cube in the white bowl" and not sure.each


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("make me coffee", "I do not know how to 'make me coffee'"),
        ("put the orange cube in the bowl", "I know nothing that is orange"),
        ("stack the red ball on the blue cube", "a ball rolls"),
        ("put the red cube in the blue bowl, then make coffee", "'make coffee'"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_of_it_is_done(text: str, says: str) -> None:
    reading = SKILLS.read(text)
    assert reading.wishes == () and says in reading.problem
    assert len(SKILLS.nearest(text)) == 3


def test_the_nearest_are_about_what_was_said() -> None:
    assert all("purple" in text for text in SKILLS.nearest("paint the purple cube"))


@pytest.mark.parametrize("word", ["write", "great", "bell", "read", "hall", "life", "while", "coffee"])
def test_a_word_that_means_something_is_no_slip(word: str) -> None:
    assert heard(word) == word


@given(st.sampled_from(["red", "blue", "cube", "bowl"]), st.text("abcdelru", max_size=6))
def test_the_distance_of_words_is_one(one: str, two: str) -> None:
    assert apart(one, one) == 0 and apart(one, two) == apart(two, one)
    assert abs(len(one) - len(two)) <= apart(one, two) <= max(len(one), len(two))


def test_sequels_of_the_grammar_are_taken_apart() -> None:
    right = 0
    for seed in range(200):
        asked = goals.draw(seed)
        wanted, reading = [canonical(goal) for goal in asked.goals], SKILLS.read(asked.text)
        steps = [wish.text for wish in reading.wishes]
        every = len(reading.wishes) == 1 and set(wanted) <= set(reading.wishes[0].each)
        right += steps == wanted or every
    assert right >= 194


def test_one_wording_is_one_step() -> None:
    rng = np.random.default_rng(0)
    some = list(tasks())[::7]
    right = sum(meant(phrase(task, rng)) == [canonical(task)] for task in some)
    assert right >= 0.97 * len(some)


@given(st.text(max_size=80))
def test_whatever_is_typed_is_answered(text: str) -> None:
    reading = SKILLS.read(text, "touch the red cube")
    assert bool(reading.wishes) != bool(reading.problem)
