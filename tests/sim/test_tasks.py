"""Every layout that can be drawn can be played."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.tabletop import expert, kinematics, tasks
from sim.tabletop.scene import BOWL_INNER, BOWL_RIM, BOWLS, COLOURS, CUBE_HALF, CUBES
from sim.tabletop.suite import SUITE

LAW = settings(deadline=None, max_examples=150, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
swaps = st.booleans()


def drawn(seed: int, swap: bool) -> tasks.Layout:
    return tasks.sample(np.random.default_rng(seed), swap=swap)


@LAW
@given(seeds, swaps)
def test_two_to_five_things_of_distinct_colours(seed: int, swap: bool) -> None:
    at = drawn(seed, swap)
    least = 2 if swap else 1
    assert least <= len(at.cubes) <= CUBES
    assert least <= len(at.bowls) <= BOWLS
    assert 2 <= len(at.cubes) + len(at.bowls) <= 5
    for colours in (at.cubes, at.bowls):
        assert len(set(colours)) == len(colours)
        assert set(colours) <= set(COLOURS)
    assert at.cube_xy.shape == (len(at.cubes), 2)
    assert at.cube_yaw.shape == (len(at.cubes),)
    assert at.bowl_xy.shape == (len(at.bowls), 2)
    assert at.names == (at.cubes[at.cube], at.bowls[at.bowl])
    assert at.tint.shape == (CUBES + BOWLS,)


@LAW
@given(seeds, swaps)
def test_things_keep_their_distance(seed: int, swap: bool) -> None:
    at = drawn(seed, swap)
    rim = BOWL_INNER + 0.006  # with the wall, which leans outwards [m]
    cube = CUBE_HALF * np.sqrt(2)
    things = [(xy, cube) for xy in at.cube_xy] + [(xy, rim) for xy in at.bowl_xy]
    for i, (here, one) in enumerate(things):
        for there, two in things[:i]:
            # A finger's width stays free on the way down.
            assert np.hypot(*(here - there)) > one + two + 0.015


@LAW
@given(seeds, swaps)
def test_everything_is_within_reach(seed: int, swap: bool) -> None:
    at = drawn(seed, swap)
    for xy in at.cube_xy:
        for z in (expert.GRASP_Z, expert.HOVER_Z, expert.CARRY_Z):
            assert kinematics.solve(np.array([*xy, z]), expert.pitch(z)) is not None
    for xy in at.bowl_xy:
        for z in (expert.DROP_Z, expert.CARRY_Z):
            assert kinematics.solve(np.array([*xy, z]), expert.pitch(z)) is not None


@LAW
@given(seeds)
def test_swapping_names_others_and_moves_nothing(seed: int) -> None:
    at = drawn(seed, swap=True)
    other = at.swapped()
    assert other.cube != at.cube
    assert other.bowl != at.bowl
    assert all(a != b for a, b in zip(other.names, at.names, strict=True))
    for field in fields(tasks.Layout):
        if field.name not in ("cube", "bowl"):
            np.testing.assert_array_equal(getattr(other, field.name), getattr(at, field.name))


@LAW
@given(seeds, swaps)
def test_the_same_seed_draws_the_same(seed: int, swap: bool) -> None:
    one, two = drawn(seed, swap), drawn(seed, swap)
    for field in fields(tasks.Layout):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))


@pytest.mark.parametrize("things", [(1, 1), (3, 1), (2, 2), (CUBES, BOWLS)])
def test_numbers_may_be_given(things: tuple[int, int]) -> None:
    at = tasks.sample(np.random.default_rng(0), things=things)
    assert (len(at.cubes), len(at.bowls)) == things


def test_all_numbers_and_colours_come_up() -> None:
    layouts = [drawn(seed, False) for seed in range(200)]
    assert {(len(at.cubes), len(at.bowls)) for at in layouts} == {(c, b) for c in (1, 2, 3) for b in (1, 2)}
    assert {at.names for at in layouts} == {(c, b) for c in COLOURS for b in COLOURS}


@LAW
@given(st.floats(0, 2 * np.pi), st.floats(0, 0.1), st.floats(0, 0.2))
def test_in_the_bowl_means_below_the_rim_and_inside_it(angle: float, away: float, height: float) -> None:
    bowl = np.array([0.2, 0.1, 0.0])
    cube = bowl + (away * np.cos(angle), away * np.sin(angle), height)
    inside = tasks.in_bowl(cube, bowl)
    if away < BOWL_INNER - 2 * CUBE_HALF and height < BOWL_RIM:
        assert inside
    if away > BOWL_INNER or height > BOWL_RIM + CUBE_HALF:
        assert not inside


# -- the suite's scenarios


@settings(LAW, max_examples=40)
@given(seeds, st.sampled_from(SUITE.splits), swaps)
def test_a_seed_and_a_split_name_the_same_scenarios(seed: int, split: str, swap: bool) -> None:
    one, two = (SUITE.scenarios(seed, split, swap) for _ in range(2))
    assert [s.instruction for s in one] == [s.instruction for s in two]
    assert len(one) == 1 + swap
    for scenario in one:
        cube, bowl = scenario.layout.names
        assert cube in scenario.instruction.lower()
        assert bowl in scenario.instruction.lower()
        assert scenario.strict == swap


@settings(LAW, max_examples=60)
@given(seeds, st.sampled_from(list(COLOURS)), st.sampled_from(list(COLOURS)))
def test_a_table_has_what_the_words_name(seed: int, cube: str, bowl: str) -> None:
    at = SUITE.scenario(f"put the {cube} cube in the {bowl} bowl", seed).layout
    assert at.names == (cube, bowl)
    assert len(set(at.cubes)) == len(at.cubes)
    assert len(set(at.bowls)) == len(at.bowls)
