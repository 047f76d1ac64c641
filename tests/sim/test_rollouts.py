"""Episodes with the expert's label on every frame, in the columns of a demonstration data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sim import demos, rollouts
from sim.tabletop import expert, instructions, rules, tasks
from sim.tabletop.meaning import VERBS, Task, Thing, classes
from sim.tabletop.scene import CUBE_HALF, HALF
from sim.tabletop.world import CAMERAS, ROLES, World
from tests import fakes
from tests.sim.tables import drawn, move, table, thing
from vla.dataset import Dataset

ROWS = 3  # rows of a short episode


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def started(world: World, seed: int, ticks: int = 0) -> rollouts.Arm:
    world.reset(*drawn(seed, verb=VERBS[seed % len(VERBS)]))
    arm = rollouts.Arm(world)
    for _ in range(ticks):
        arm.tick(expert.act(world))
    return arm


# -- labels


@pytest.mark.parametrize("ticks", [0, 20, 60])
@pytest.mark.parametrize("seed", range(5))
def test_labelling_leaves_the_world_as_it_was(world: World, seed: int, ticks: int) -> None:
    arm = started(world, seed, ticks)
    world.command(world.data.ctrl + 0.01)  # a command under way counts too
    before, ctrl, highest = world.save(), world.data.ctrl.copy(), world.highest
    rollouts.label(arm)
    np.testing.assert_array_equal(world.save(), before)
    np.testing.assert_array_equal(world.data.ctrl, ctrl)
    # A label that lifts must not turn a push into carrying.
    assert world.highest == highest


def test_a_label_is_a_function_of_the_state(world: World) -> None:
    arm = started(world, 2, 40)
    first = rollouts.label(arm)
    np.testing.assert_array_equal(rollouts.label(arm), first)
    assert (first.shape, first.dtype) == ((rollouts.ROWS, 6), np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_a_label_is_what_the_expert_does_from_there(world: World, seed: int) -> None:
    arm = started(world, seed, 30)
    label = rollouts.label(arm)
    done = []
    for tick in range(rollouts.ROWS * rollouts.ROW_TICKS):
        target = expert.act(world)
        if tick % rollouts.ROW_TICKS == 0:
            done.append(target)
        arm.tick(target)
    np.testing.assert_allclose(label, done, atol=1e-4)


def test_a_label_goes_on_from_where_committed_rows_lead(world: World) -> None:
    arm = started(world, 3, 30)
    away = world.joints() + np.linspace(0, 1, 5)[:, None] * np.array([0.3, 0, 0, 0, 0, 0])
    label = rollouts.label(arm, away)
    np.testing.assert_allclose(label[:5], away, atol=1e-6)
    for tick in range(4 * rollouts.ROW_TICKS + 1):
        at = tick / rollouts.ROW_TICKS
        arm.tick(np.array([np.interp(at, range(5), away[:, j]) for j in range(6)]))
    for _ in range(rollouts.ROW_TICKS - 1):
        arm.tick(expert.act(world))
    np.testing.assert_allclose(label[5], expert.act(world), atol=1e-4)


# -- columns


def record(world: World, seed: int, strength: float = 1.0, **how: int) -> rollouts.Episode:
    rng = np.random.default_rng(seed)
    world.reset(*tasks.draw(rng, verb=VERBS[seed % len(VERBS)]))
    noise = rollouts.Noise(rng, strength)
    how = {"rows": ROWS, **how}
    return rollouts.episode(rollouts.Arm(world), "do", rollouts.ExpertDriver(), noise, **how)


def test_columns_are_those_of_the_data_set(world: World) -> None:
    columns = record(world, 0).columns
    features = demos.features()
    assert columns.keys() == features.keys()
    for name, feature in features.items():
        value = columns[name]
        assert len(value) == (ROWS + 1) // rollouts.EVERY
        assert value.shape[1:] == feature.shape, name
        assert value.dtype == ("uint8" if feature.dtype == "image" else feature.dtype), name
    np.testing.assert_array_equal(columns["action"], columns["expert.chunk"][:, 0])


def test_an_episode_is_a_function_of_its_seed(world: World) -> None:
    first = record(world, 5).columns
    record(world, 6)
    for name, value in record(world, 5).columns.items():
        np.testing.assert_array_equal(value, first[name], err_msg=name)


PAIR = table(
    {
        "red cube": (0.20, 0.10),
        "red cube+": (0.25, -0.06),
        "blue ball": (0.28, 0.05),
        "white bowl": (0.18, -0.12),
    },
    zones={"green": (0.16, 0.0)},
)


@pytest.mark.parametrize(
    ("task", "present"),
    [
        (Task("touch", thing("blue ball")), (1, 0, 0)),
        (Task("put", thing("blue ball"), thing("white bowl")), (1, 1, 0)),
        (Task("put", thing("red cube"), thing("white bowl"), "", "left of", thing("blue ball")), (1, 1, 1)),
        (Task("lift", thing("red cube"), relation="rightmost"), (1, 0, 0)),
        (Task("put", thing("blue ball"), thing("red bowl")), (1, 0, 0)),
        (Task("put", thing("red ball"), thing("white bowl")), (0, 1, 0)),
        (Task("push", thing("blue cube"), thing("green zone")), (0, 1, 0)),
        (Task("lift", thing("white ball")), (0, 0, 0)),
    ],
    ids=str,
)
def test_privileged_columns_are_what_the_task_means_there(
    world: World, task: Task, present: tuple[int, int, int]
) -> None:
    world.reset(PAIR, task)
    columns = rollouts.episode(
        rollouts.Arm(world),
        "do",
        rollouts.ExpertDriver(),
        rollouts.Noise(np.random.default_rng(0), 0.0),
        rows=3,
    ).columns
    world.reset(PAIR, task)
    np.testing.assert_array_equal(columns["privileged.present"][0], present)
    np.testing.assert_array_equal(columns["privileged.meaning"], [classes(task)] * len(columns["action"]))
    pixels = columns["privileged.pixels"][0].reshape(len(CAMERAS), len(ROLES), 3)
    for role, there in enumerate(present):
        at = world.named(ROLES[role])
        assert (at is not None) is bool(there)
        if role < 2:
            stored = columns["privileged.positions"][0, 3 * role : 3 * role + 3]
            np.testing.assert_allclose(stored, np.zeros(3) if at is None else at, atol=1e-6)
        for camera, name in enumerate(CAMERAS):
            seen = np.zeros(3) if at is None else world.project(name, at)
            np.testing.assert_allclose(pixels[camera, role], seen, atol=1e-5)


@pytest.mark.parametrize("verb", VERBS)
def test_an_episode_ends_some_rows_after_success(world: World, verb: str) -> None:
    after = 4
    episode = record(world, VERBS.index(verb), 0.0, rows=60, after=after)
    assert episode.success
    done = episode.columns["task.done"][:, 0]
    length, frames = len(done), after // rollouts.EVERY
    assert frames < length < 60 // rollouts.EVERY
    # A frame is seen before its row is driven, so the last row's success is on no frame.
    assert set(done) <= {0.0, 1.0}
    assert done[-frames:].all()
    assert not done[: length - frames].any()


def test_the_last_rows_show_what_was_asked(world: World) -> None:
    columns = record(world, 0, 0.0, rows=60, after=2).columns
    cube, bowl = columns["privileged.positions"][:, :3], columns["privileged.positions"][:, 3:]
    inside = [rules.in_bowl(c, b) for c, b in zip(cube, bowl, strict=True)]
    assert inside[-1]
    assert not any(inside[: len(inside) // 2])


# -- in hindsight


def test_what_was_driven_is_known_in_hindsight(world: World) -> None:
    """From each row on the rows that were driven, the last one when the episode is over."""
    columns = record(world, 1, 1.0, rows=16).columns
    chunk, every = columns["driver.chunk"], rollouts.EVERY
    driven = chunk[:, :every].reshape(16, 6)
    for frame in range(16 // every):
        for k in range(rollouts.ROWS):
            np.testing.assert_array_equal(chunk[frame, k], driven[min(every * frame + k, 15)])
    # Without noise the expert drives what its label wants.
    quiet = record(world, 1, 0.0, rows=8).columns
    np.testing.assert_allclose(quiet["driver.chunk"][:, 0], quiet["expert.chunk"][:, 0], atol=1e-6)
    noise = chunk[:, 0] - columns["expert.chunk"][:, 0]
    assert np.abs(noise).max() > 0.01  # it is in what was driven


@pytest.mark.parametrize("verb", VERBS)
def test_the_outcome_grows_up_to_the_success(world: World, verb: str) -> None:
    episode = record(world, VERBS.index(verb), 0.0, rows=60, after=3)
    assert episode.success
    outcome = episode.columns["outcome"][:, 0]
    at = np.arange(len(outcome)) * rollouts.EVERY
    # Rows driven before the one that did it; the last row may or may not be on a frame.
    took = [rollouts.EVERY * len(outcome) - 1 - 3 - odd for odd in range(rollouts.EVERY)]
    wanted = [rollouts.DISCOUNT ** np.maximum(rows - at, 0) for rows in took]
    assert any(np.allclose(outcome, each, rtol=1e-5) for each in wanted)
    assert outcome[-1] == 1.0
    assert 0 < outcome[0] < 1


def test_a_failure_is_worth_nothing(world: World) -> None:
    episode = record(world, 0, 0.0)  # too short to do anything
    assert not episode.success
    assert not episode.columns["outcome"].any()


@pytest.mark.parametrize("shoved", [False, True])
def test_where_nothing_can_be_done_success_is_to_move_nothing(world: World, shoved: bool) -> None:
    layout, task = drawn(4, verb="put")
    missing = next(m for s in range(9) if (m := tasks.absent(np.random.default_rng(s), layout, task)))
    world.reset(layout, missing)
    if shoved:
        move(world, {0: world.things()[layout.slots[0]] + [0, 1.5 * rules.STILL, 0]})
    noise = rollouts.Noise(np.random.default_rng(0), 0.0)
    episode = rollouts.episode(rollouts.Arm(world), "do", rollouts.ExpertDriver(), noise, rows=18)
    assert len(episode.columns["action"]) == 6 // rollouts.EVERY  # a third of the time
    assert episode.success is not shoved
    assert episode.columns["outcome"].any() == (not shoved)
    assert not episode.columns["task.done"].any()


# -- who drives


def test_noise_of_no_strength_is_none_and_noise_comes_in_bursts() -> None:
    target = np.arange(6.0)
    quiet = rollouts.Noise(np.random.default_rng(0), 0.0)
    assert all((quiet(target) == target).all() for _ in range(200))
    loud = rollouts.Noise(np.random.default_rng(0), 1.0)
    pushed = np.array([loud(target) - target for _ in range(2000)])
    moving = np.abs(pushed).max(axis=1) > 0
    assert 0.05 < moving.mean() < 0.6
    assert (pushed[:, 4] == 0).all()  # the roll is left alone
    # The same push lasts for some ticks.
    starts = np.flatnonzero(moving[1:] & ~moving[:-1]) + 1
    for start in starts[:20]:
        np.testing.assert_array_equal(pushed[start, :4], pushed[min(start + 3, len(pushed) - 1), :4])


@pytest.mark.parametrize(("share", "asked"), [(0.0, True), (1.0, False)])
def test_a_policy_drives_unless_the_expert_does(world: World, share: float, asked: bool) -> None:
    spec = fakes.arm_spec(chunk_length=rollouts.ROWS, dt=rollouts.DT)
    policy = fakes.ScriptedPolicy(spec, lambda o: np.tile(o.state, (rollouts.ROWS, 1)))
    rng = np.random.default_rng(0)
    world.reset(*tasks.draw(rng, verb="put"))
    driver = rollouts.PolicyDriver(policy, rng, share)
    noise = rollouts.Noise(rng, 0.0)
    done = rollouts.episode(rollouts.Arm(world), "put", driver, noise, rows=6)
    states = done.columns["observation.state"]
    assert bool(policy.seen) is asked
    moved = np.abs(states[-1] - states[0]).max()
    assert moved < 0.05 if asked else moved > 0.1
    # Either way every frame carries the expert's label, which wants to move.
    assert np.abs(done.columns["expert.chunk"][0, -1] - states[0]).max() > 0.1
    # ... and beside it what was driven.
    still = np.abs(done.columns["driver.chunk"] - states[0]).max() < 0.05
    assert still is np.True_ if asked else not still


# -- takt demos: two things asked at a table


def test_what_lies_in_a_bowl_or_on_another_is_out_of_reach(world: World) -> None:
    at = table(
        {
            "red cube": (0.20, 0.06), "green cylinder": (0.24, -0.02), "blue ball": (0.20, -0.09),
            "yellow bowl": (0.28, 0.10), "white cube": (0.16, 0.0),
        }
    )  # fmt: skip
    world.reset(at, Task("lift", thing("blue ball")))
    assert demos.out_of_reach(world) == set()
    here = world.things()[list(at.slots)]
    move(world, {0: here[3] + [0.025, 0, 0.003 + CUBE_HALF]})
    assert demos.out_of_reach(world) == {thing("red cube")}
    # In the middle of the bowl it leaves no room for a second one.
    move(world, {0: here[3] + [0, 0, 0.003 + CUBE_HALF]})
    assert demos.out_of_reach(world) == {thing("red cube"), thing("yellow bowl")}
    move(world, {0: here[0]})
    move(world, {4: here[1] + [0.004, 0, CUBE_HALF + HALF["cylinder"]]})
    assert demos.out_of_reach(world) == {thing("white cube"), thing("green cylinder")}


class Sink:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, np.ndarray], dict[str, object]]] = []

    def add_episode(self, words: str, columns: dict[str, np.ndarray], extra: dict[str, object]) -> None:
        self.rows.append((words, columns, extra))


@pytest.fixture
def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[tuple[Task, bool, set[Thing]]]]:
    """For 30 tables what was recorded there: (task, whether it could be done, what was out of reach).

    Nobody looks and nobody drives but the expert, and only its world goes on.
    """
    found: dict[int, list[tuple[Task, bool, set[Thing]]]] = {}

    def quick(arm: rollouts.Arm, *rest: object) -> rollouts.Episode:
        task, possible, away = arm.world.task, arm.world.possible(), demos.out_of_reach(arm.world)
        assert task is not None
        found[seed].append((task, possible, away))
        for _ in range(100 if possible else 5):
            arm.tick(expert.act(arm.world))
        return rollouts.Episode({}, arm.world.success() or not possible)

    monkeypatch.setattr(rollouts, "episode", quick)
    for seed in range(30):
        found[seed] = []
        demos.Command(Path("nowhere"))._table(world, None, seed, Sink())  # type: ignore[arg-type]
    return found


def test_tables_are_asked_one_thing_or_two_of_which_each_can_be_taken(
    asked: dict[int, list[tuple[Task, bool, set[Thing]]]],
) -> None:
    counts = [len(rows) for rows in asked.values()]
    assert set(counts) <= {0, 1, 2}
    assert 0.15 < np.mean([n == 2 for n in counts]) < 0.7
    # One task and yet another one than the table's own: the first was broken off and not recorded.
    alone = [(seed, rows[0][0]) for seed, rows in asked.items() if len(rows) == 1]
    assert any(task.thing != drawn(seed)[1].thing for seed, task in alone)
    every = [row for rows in asked.values() for row in rows]
    assert 0.02 < np.mean([not possible for _, possible, _ in every]) < 0.3
    for task, possible, away in every:
        assert not possible or not {task.thing, task.place, task.landmark} & away
    for rows in asked.values():
        assert len({task for task, _, _ in rows}) == len(rows)


def test_the_seed_decides_what_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    short = rollouts.episode
    monkeypatch.setattr(
        rollouts, "episode", lambda arm, words, driver, noise, rows: short(arm, words, driver, noise, 3)
    )
    sinks = []
    for _ in range(2):
        sink = Sink()
        for seed in (11, 12):
            demos.Command(Path("nowhere"))._table(world, None, seed, sink)  # type: ignore[arg-type]
        sinks.append(sink)
    one, two = sinks
    assert [row[0] for row in one.rows] == [row[0] for row in two.rows]
    assert [row[2] for row in one.rows] == [row[2] for row in two.rows]
    for (_, mine, _), (_, theirs, _) in zip(one.rows, two.rows, strict=True):
        for name, value in mine.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_a_data_set_has_its_wordings_and_reads_back(tmp_path: Path) -> None:
    command = demos.Command(tmp_path / "set", episodes=1, seed=7, workers=1, json=tmp_path / "out.json")
    assert command.run() == 0
    rows = Dataset(tmp_path / "set")
    summary = json.loads((tmp_path / "out.json").read_text())
    assert summary["episodes"] == len(rows.episodes) >= 1
    assert summary["frames"] == len(rows) > 0
    for episode in rows.episodes:
        others = json.loads(episode["paraphrases"])
        assert len(others) == demos.WORDINGS - 1
        words = {*others, *episode["tasks"]}
        meanings = {instructions.parse(text) for text in words}
        assert None not in meanings and len(meanings) == 1
