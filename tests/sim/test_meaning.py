"""What is asked, as data: classes are a code of it, and what is held out hides nothing for good."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.tabletop.meaning import (
    BESIDES,
    COLOURS,
    EXTREMES,
    KINDS,
    MEANING,
    RELATIONS,
    SHAPES,
    SIDES,
    VERBS,
    Task,
    Thing,
    classes,
    held_out,
)
from tests.sim.tables import every_task

LAW = settings(deadline=None, max_examples=80, derandomize=True)
TASKS = list(every_task())

colours = st.sampled_from(list(COLOURS))
takable = st.builds(Thing, colours, st.sampled_from(SHAPES))
anything = st.builds(Thing, colours, st.sampled_from(KINDS))
asked = st.builds(
    Task,
    st.sampled_from(VERBS),
    takable,
    st.none() | anything,
    st.sampled_from(("", *SIDES)),
    st.sampled_from(("", *RELATIONS)),
    st.none() | anything,
)


def read(numbers: list[int]) -> Task:
    """The task of class numbers, by MEANING alone."""
    said = {
        name: options[number - 1] if number else ""
        for (name, options), number in zip(MEANING, numbers, strict=True)
    }

    def thing(role: str) -> Thing | None:
        return Thing(said[f"{role} colour"], said[f"{role} kind"]) if said[f"{role} colour"] else None

    x = thing("thing")
    assert x is not None
    return Task(said["verb"], x, thing("place"), said["side"], said["relation"], thing("landmark"))


@LAW
@given(asked)
def test_classes_read_back_as_the_task(task: Task) -> None:
    numbers = classes(task)
    assert all(0 <= n <= len(options) for n, (_, options) in zip(numbers, MEANING, strict=True))
    assert read(numbers) == task


def test_no_two_tasks_have_the_same_classes() -> None:
    spatial = [replace(t, relation=r) for t in TASKS if t.verb == "touch" for r in EXTREMES]
    marks = [
        replace(t, relation=r, landmark=Thing("red", "bowl"))
        for t in TASKS
        if t.verb == "lift"
        for r in BESIDES
    ]
    every = [*TASKS, *spatial, *marks]
    assert len({tuple(classes(task)) for task in every}) == len(set(every)) == len(every)


def test_what_is_not_said_is_class_nought() -> None:
    numbers = dict(
        zip((name for name, _ in MEANING), classes(Task("lift", Thing("red", "cube"))), strict=True)
    )
    assert [name for name, number in numbers.items() if number] == ["verb", "thing colour", "thing kind"]


def test_about_a_fifth_is_held_out() -> None:
    assert 0.17 < sum(map(held_out, TASKS)) / len(TASKS) < 0.23
    for verb in VERBS:
        mine = [held_out(task) for task in TASKS if task.verb == verb]
        assert 0.14 < sum(mine) / len(mine) < 0.25, verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_part_of_a_held_out_task_is_trained_with_others(verb: str) -> None:
    """So that nothing in it is new but the combination."""
    trained = [t for t in TASKS if t.verb == verb and not held_out(t)]
    kept = [t for t in TASKS if t.verb == verb and held_out(t)]
    assert {t.thing.colour for t in kept} <= {t.thing.colour for t in trained} == set(COLOURS)
    assert {t.thing.kind for t in kept} <= {t.thing.kind for t in trained}
    assert {(t.place, t.side) for t in kept} <= {(t.place, t.side) for t in trained}
    # With a target to combine it with, each thing is trained as a whole; else by another verb.
    others = trained if kept[0].place or kept[0].side else [t for t in TASKS if not held_out(t)]
    assert {t.thing for t in kept} <= {t.thing for t in others}


@pytest.mark.parametrize("verb", ["put", "stack", "push"])
def test_each_target_and_each_thing_is_held_out_with_something(verb: str) -> None:
    """The split is of combinations: it is no list of things or places that are never seen."""
    mine = [t for t in TASKS if t.verb == verb]
    kept = [t for t in mine if held_out(t)]
    assert {t.thing for t in kept} == {t.thing for t in mine}
    assert {(t.place, t.side) for t in kept} == {(t.place, t.side) for t in mine}


@LAW
@given(asked)
def test_spatial_words_do_not_decide_what_is_held_out(task: Task) -> None:
    assert held_out(task) == held_out(replace(task, relation="", landmark=None))
