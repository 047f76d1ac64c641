"""Looks: one picture, many instructions, and the truth about what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sim import demos, looks
from sim.tabletop.meaning import classes
from sim.tabletop.world import World
from tests.sim.tables import drawn
from vla.contract import TaktError
from vla.dataset import Dataset
from vla.train_data import LOOKS


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def taken(world: World, seed: int, count: int = 5) -> list[tuple[dict[str, np.ndarray], bool]]:
    """Each look's columns, and whether the world could do what was asked."""
    world.reset(*drawn(seed))
    seen = looks.looks(world, np.random.default_rng(seed), count, 1.0)
    return [(columns, world.possible()) for columns in seen]


def test_looks_are_of_one_moment_under_instructions_of_their_own(world: World) -> None:
    rows = taken(world, 3)
    first = rows[0][0]
    assert len(rows) == 5
    for columns, _ in rows:
        assert columns.keys() == set(looks.COLUMNS)
        for name, value in columns.items():
            assert value.shape == (1, *demos.features()[name].shape), name
            if name.startswith("observation."):
                np.testing.assert_array_equal(value, first[name])
    assert len({tuple(columns["privileged.meaning"][0]) for columns, _ in rows}) > 1


def test_what_is_missing_is_marked_and_some_is_missing_at_many_tables(world: World) -> None:
    moved, possible = [], []
    for seed in range(8):
        for columns, there in taken(world, seed):
            colour, kind = columns["privileged.meaning"][0, [1, 3]], columns["privileged.meaning"][0, [2, 4]]
            named = (colour > 0) | (kind > 0)
            present = columns["privileged.present"][0, :2] > 0
            assert there == (present | ~named).all()
            possible.append(there)
        assert world.task is not None
        np.testing.assert_array_equal(columns["privileged.meaning"][0], classes(world.task))
        moved.append(np.abs(columns["observation.state"][0] - drawn(seed)[0].arm).max() > 0.05)
    assert 0.2 < np.mean(possible) < 0.9
    assert 0 < sum(moved) < len(moved)  # some are of a table at rest, some of an arm at work


def test_a_seed_decides_what_is_looked_at(world: World) -> None:
    one, two = (taken(world, 2, 3) for _ in range(2))
    for (mine, _), (theirs, _) in zip(one, two, strict=True):
        for name, value in mine.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_a_data_set_of_looks_has_what_the_trainer_takes(tmp_path: Path) -> None:
    assert demos.Command(tmp_path / "set", episodes=2, looks=3, seed=7, workers=1).run() == 0
    rows = Dataset(tmp_path / "set")
    assert len(rows) == len(rows.episodes) == 6
    assert set(LOOKS) <= set(rows.features) and "expert.chunk" not in rows.features
    assert len({e["tasks"][0] for e in rows.episodes}) > 1


@pytest.mark.parametrize("flags", [{"looks": -1}, {"looks": 2, "relabel": Path("vla/bundles/nano")}])
def test_looks_that_cannot_be_made_are_refused(tmp_path: Path, flags: dict) -> None:
    with pytest.raises(TaktError, match="--looks"):
        demos.Command(tmp_path / "set", **flags).run()
