"""Meta-World MT50: its tables, its protocol, and, where `make metaworld` has been run, its simulator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vla.__main__ as frontdoor
from runtime.clock import SimulatedClock
from sim.foreign import suite as foreign
from sim.foreign.robot import ForeignRobot
from sim.metaworld import tasks
from sim.metaworld.suite import MetaWorld
from sim.play import make_suite
from tests.vla.test_train import NEEDS_WORDS
from vla import plain_train
from vla.contract import CameraSpec, TaktError

PYTHON = foreign.ROOT / ".venv-metaworld" / "bin" / "python"
installed = pytest.mark.skipif(not PYTHON.is_file(), reason="Meta-World is not installed: make metaworld")
SOME = "reach,door-lock,soccer"
MT50 = foreign.ROOT / "checkpoints" / "mt50"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MetaWorld:
    """The suite's tables, which need no simulator."""
    python = tmp_path / "python"
    python.touch()
    monkeypatch.setenv("TAKT_METAWORLD_PYTHON", str(python))
    return MetaWorld()


# -- tables


def test_there_are_fifty_tasks_in_the_published_buckets() -> None:
    sizes = {name: len(of) for name, of in tasks.BUCKETS.items()}
    assert sizes == {"easy": 28, "medium": 11, "hard": 6, "very hard": 5}
    assert len(tasks.NAMES) == len(set(tasks.NAMES)) == 50
    said = Counter(tasks.words(None).values())
    assert set(said.values()) == {1}  # language alone tells every task from every other
    assert all(text == text.strip().lower() and not text.endswith(".") for text in said)


def test_words_can_be_replaced_by_those_that_a_checkpoint_was_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"push-v3": "Push the puck to a goal", "reach": "Go"}))
    found = tasks.words(str(file))
    assert (found["push"], found["reach"]) == ("Push the puck to a goal", "Go")
    assert found["soccer"] == tasks.words(None)["soccer"]
    for text in ('{"fly": "up"}', "[]", "{", '{"push": 3}'):
        file.write_text(text)
        with pytest.raises(TaktError, match="TAKT_METAWORLD_WORDS"):
            tasks.words(str(file))


def test_a_seed_is_one_episode_and_ten_of_each_task_are_five_hundred(suite: MetaWorld) -> None:
    seeds = suite.seeds(0, 10, ())
    assert sorted(seeds) == list(range(500))
    names = [suite.scenarios(seed, "seen", False)[0].task for seed in seeds]
    assert Counter(names) == dict.fromkeys(tasks.NAMES, 10)
    assert names == sorted(names)  # task by task: each simulator is built once
    assert sorted(suite.seeds(7, 2, ())) == list(range(7, 107))
    assert suite.seeds(0, 3, ("push",)) == [37, 87, 137]
    (episode,) = suite.scenarios(37, "seen", False)
    assert (episode.steps, episode.seconds, episode.settle) == (500, 6.25, 0.0)
    assert episode.request == {"task": "push", "seed": 37}
    with pytest.raises(TaktError, match="no task 'fly'; valid: assembly, basketball"):
        suite.seeds(0, 1, ("fly",))
    with pytest.raises(TaktError, match="leave --swap out"):
        suite.scenarios(0, "seen", True)


def test_the_published_average_is_the_mean_of_the_buckets(suite: MetaWorld) -> None:
    def of(bucket: str, won: int, all_: int) -> list[dict[str, Any]]:
        names = list(tasks.BUCKETS[bucket])
        return [{"task": names[i % 2], "success": i < won} for i in range(all_)]

    found = suite.summary(of("easy", 8, 8) + of("medium", 2, 4) + of("hard", 1, 4) + of("very hard", 0, 4))
    assert found["mean_of_buckets"] == pytest.approx((1 + 0.5 + 0.25 + 0) / 4)
    assert found["mean_of_tasks"] == pytest.approx((1 + 1 + 0.5 + 0.5 + 0.5 + 0 + 0 + 0) / 8)
    assert found["buckets"]["hard"]["n"] == 4
    assert "mean_of_buckets" not in suite.summary(of("easy", 1, 2))  # of some tasks it would be no such mean


def test_the_body_steps_by_relative_actions_and_keeps_its_grip(suite: MetaWorld) -> None:
    body = suite.spec()
    assert [d.absolute for d in body.actions.dimensions] == [False, False, False, True]
    assert body.rest == (0.0, 0.0, 0.0, -1.0)  # open, until it is told otherwise
    assert body.cameras == (CameraSpec("corner2", 480, 480),)


def test_without_it_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TAKT_METAWORLD_PYTHON", raising=False)
    monkeypatch.setattr(foreign, "ROOT", tmp_path)
    assert frontdoor.main(["eval", "--suite", "metaworld", "--policy", "expert"]) != 0
    said = capsys.readouterr().err.strip()
    assert "make metaworld" in said and "TAKT_METAWORLD_PYTHON" in said and "\n" not in said
    monkeypatch.setenv("TAKT_METAWORLD_PYTHON", "/no/python")
    with pytest.raises(TaktError, match="/no/python, which is not there"):
        make_suite("metaworld")
    with pytest.raises(TaktError, match="not metaworld:pretty"):
        make_suite("metaworld:pretty")


# -- the simulator


@pytest.fixture(scope="module")
def robot() -> Iterator[ForeignRobot]:
    with make_suite("metaworld:plain").robot(SimulatedClock()) as body:
        yield body


def lay(robot: ForeignRobot, seed: int) -> foreign.Scenario:
    (episode,) = make_suite("metaworld:plain").scenarios(seed, "seen", False)
    robot.clock = SimulatedClock()
    episode.lay(robot)
    return episode


@installed
def test_a_step_moves_the_hand_and_the_frame_is_the_right_way_up(robot: ForeignRobot) -> None:
    assert robot.versions["metaworld"] == "3.1.1" and robot.versions["mujoco"] == "3.3.0"
    lay(robot, tasks.NAMES.index("drawer-open"))
    begin = robot.read().state
    assert begin[3] > 0.9  # the gripper is open
    for _ in range(20):
        robot.write(np.array([1.0, 0.0, 0.0, 1.0]))
        robot.clock.advance(1 / 80)  # type: ignore[attr-defined]
        seen = robot.read()
    # A step asks for 1 cm, which the hand follows with some lag; nothing has clipped it on its way.
    assert 0.1 < seen.state[0] - begin[0] <= 0.2
    assert np.abs(seen.state[1:3] - begin[1:3]).max() < 0.02
    assert seen.state[3] < 0.7  # and the gripper has shut
    robot.fit([CameraSpec("corner2", 96, 96)])
    frame = robot.read().frames["corner2"]
    assert frame.shape == (96, 96, 3)
    # Wood lies below, the red arm comes from the upper left, the wall is behind it.
    wood, wall = frame[80:, 30:90].mean((0, 1)), frame[:10, 50:].mean((0, 1))
    assert wood[0] > wood[2] + 20 and np.ptp(wall) < 20
    arm = frame[:48, :48].astype(int)
    assert ((arm[..., 0] > 2 * arm[..., 1]) & (arm[..., 0] > 60)).mean() > 0.1


@installed
def test_what_is_told_of_places_is_where_the_camera_sees_them(robot: ForeignRobot) -> None:
    robot.fit([CameraSpec("corner2", 256, 256)])
    looks = []
    for seed in range(2):  # the green peg lies elsewhere each time; nothing else is green
        lay(robot, tasks.NAMES.index("peg-insert-side") + 50 * seed)
        frame = robot.read().frames["corner2"].astype(int)
        green = (frame[..., 1] > 150) & (frame[..., 0] < 100) & (frame[..., 2] < 100)
        v, u = (np.argwhere(green).mean(0) + 0.5) / 128 - 1
        places, points = robot.places()
        assert places.shape == (3, 4)
        assert places[:, 3].tolist() == [1.0, 0.0, 1.0]  # there is no second thing
        assert points["corner2"][:, 2].tolist() == [1.0, 0.0, 1.0]
        np.testing.assert_allclose(points["corner2"][0, :2], [u, v], atol=0.06)
        looks.append((u, v))
    assert np.abs(np.subtract(*looks)).max() > 0.1


@installed
@pytest.mark.parametrize("task", ["door-close", "door-open", "reach"])
def test_asking_the_expert_moves_nothing_that_is_told(robot: ForeignRobot, task: str) -> None:
    lay(robot, 1_000_000 + tasks.NAMES.index(task))
    robot.read()
    before, _ = robot.places()
    first = robot.expert()
    after, _ = robot.places()
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(robot.expert(), first)


@installed
def test_an_initial_condition_is_its_seeds_and_no_other_episodes(robot: ForeignRobot) -> None:
    number = tasks.NAMES.index("push")

    def played(seed: int) -> np.ndarray:
        lay(robot, seed)
        rows = [robot.read().state]
        for _ in range(8):
            robot.write(robot.expert())
            robot.clock.advance(1 / 80)  # type: ignore[attr-defined]
            rows.append(robot.read().state)
        return np.array(rows)

    one, two = played(number), played(number + 50)
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(played(number), one)
    np.testing.assert_array_equal(played(number + 50), two)


@installed
@pytest.mark.slow
def test_any_number_of_workers_plays_the_same_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for workers in ("1", "2", "4"):
        out = tmp_path / f"{workers}.json"
        flags = ["--suite", "metaworld", "--policy", "expert", "--episodes", "2", "--seed", "0"]
        flags += ["--tasks", SOME, "--workers", workers, "--json", str(out)]
        assert frontdoor.main(["eval", *flags]) == 0
        reports.append(json.loads(out.read_text()))
    assert reports[0] == reports[1] == reports[2]
    (first, *_) = reports
    assert first["tasks"].keys() == set(SOME.split(","))
    assert first["rate"] == 80.0 and first["success"]["n"] == 6 and first["success"]["k"] >= 5
    assert first["versions"]["metaworld"] == "3.1.1"
    said = capsys.readouterr().out
    assert "episodes a minute a core" in said and "mean of the tasks" in said and "bucket easy: 4/4" in said


@installed
@pytest.mark.slow
def test_demonstrations_are_the_experts_successes_whatever_the_number_of_processes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from vla import dataset_body
    from vla.dataset import Dataset

    found = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        flags = ["--suite", "metaworld:plain", "--tasks", "reach,drawer-close", "--episodes", "1"]
        flags += ["--size", "32", "--every", "4", "--workers", workers]
        assert frontdoor.main(["demos", str(out), *flags]) == 0
        found.append(Dataset(out))
    for data in found:
        assert sorted(data.tasks) == ["push the drawer shut", "reach the goal position"]
        assert len(data.episodes) == 2 and all(e["success"] for e in data.episodes)
        assert {e["seed"] % 50 for e in data.episodes} == {17, 40}  # of drawer-close and reach
        body = dataset_body.read(data, dataset_body.Told())  # nobody has to say what its actions are
        assert body.actions == MetaWorld("plain").spec().actions
    one, two = (data.columns(["observation.state", "action"]) for data in found)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert dataset_body.places(found[0], ["corner2"]) == 3
    assert one["action"].shape == (len(found[0]), 4) and np.abs(one["action"]).max() <= 1.0
    pictures = [np.array(list(data.images("observation.images.corner2", [0]))) for data in found]
    np.testing.assert_array_equal(*pictures)
    assert pictures[0].shape[1:] == (32, 32, 3)
    # A camera that is four times slower than the control: its frames stand until the next.
    fresh = found[0].columns([dataset_body.FRESH], [0])[dataset_body.FRESH][:, 0]
    assert fresh[0] == 1 and 0.2 < fresh.mean() < 0.35
    changed = (pictures[0][1:] != pictures[0][:-1]).any((1, 2, 3))
    assert changed.any() and not (changed & (fresh[1:] == 0)).any()


@installed
@NEEDS_WORDS
@pytest.mark.slow
def test_a_policy_drives_first_and_the_expert_is_recorded_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    from vla.dataset import Dataset

    suite = ["--suite", "metaworld:plain", "--tasks", "reach", "--episodes", "2", "--size", "32"]
    demos = ["--every", "4", "--workers", "1"]
    assert frontdoor.main(["demos", str(tmp_path / "data"), *suite, *demos]) == 0
    small = ["--image-size", "32", "--width", "0.5", "--batch", "4", "--draws", "1", "--steps", "2"]
    assert frontdoor.main(["train", str(tmp_path / "out"), "--data", str(tmp_path / "data"), *small]) == 0
    assert frontdoor.main(["export", str(tmp_path / "out"), str(tmp_path / "bundle")]) == 0
    led = ["--relabel", str(tmp_path / "bundle")]
    for name in ("a", "b"):
        assert frontdoor.main(["demos", str(tmp_path / name), *suite, *demos, *led]) == 0
    one, two, plain = (Dataset(tmp_path / name) for name in ("a", "b", "data"))
    states = [data.columns(["observation.state"])["observation.state"] for data in (one, two)]
    np.testing.assert_array_equal(*states)
    assert all(e["success"] for e in one.episodes)
    # The same episodes begin elsewhere: where the policy has led.
    first = [data.columns(["observation.state"], [0])["observation.state"][0] for data in (one, plain)]
    assert np.abs(first[0] - first[1]).max() > 0.01
    capsys.readouterr()
    assert frontdoor.main(["demos", str(tmp_path / "c"), *suite[:-1], "64", *demos, *led]) == 1
    assert "--size" in capsys.readouterr().err


# -- the policy that is shipped for it


def test_the_shipped_checkpoint_is_of_the_suite_s_body() -> None:
    config = plain_train.load(MT50).config
    spec = config.spec(0.125, "prefix")
    body = MetaWorld.spec(MetaWorld.__new__(MetaWorld))
    assert (spec.state, spec.actions) == (body.state, body.actions)
    assert [c.name for c in spec.cameras] == [c.name for c in body.cameras]
    assert spec.dt * MetaWorld.rate == 1
    assert sum(p.numel() for p in plain_train.load(MT50).parameters()) < 20_000_000


@installed
@NEEDS_WORDS
@pytest.mark.slow
def test_the_shipped_checkpoint_does_what_is_asked(tmp_path: Path) -> None:
    """Of two tasks that grasp and one that opens, two seeds each: all of them where it was measured."""
    out, bundle = tmp_path / "said.json", tmp_path / "bundle"
    assert frontdoor.main(["export", str(MT50), str(bundle)]) == 0
    asked = ["--tasks", "pick-place,bin-picking,door-open", "--episodes", "2", "--seed", "0"]
    suite = ["--suite", "metaworld:plain", "--policy", str(bundle)]
    assert frontdoor.main(["eval", *suite, *asked, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["success"]["k"] >= 5
