"""`takt eval`: any number of workers gives the same list, and what is asked wrongly is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vla.__main__ as frontdoor
from runtime import latency
from runtime.bundle import load
from runtime.engine import OnnxPolicy
from runtime.latency import Constant, Draws, Lognormal
from sim import evaluate, play, score
from sim.statistics import wilson
from sim.tabletop.suite import SUITE, Scenario
from tests import fakes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the tabletop's arm and cameras that knows nothing."""
    return fakes.write_bundle(tmp_path_factory.mktemp("eval") / "fake", fakes.arm_spec(), noise=0.2)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Episodes of half a second; workers in other processes play whole ones."""
    scenarios = SUITE.scenarios

    def shorter(*args: Any) -> list[Scenario]:
        return [replace(s, seconds=0.5, settle=min(s.settle, 0.4)) for s in scenarios(*args)]

    monkeypatch.setattr(SUITE, "scenarios", shorter, raising=False)
    yield
    if play._worker is not None:
        play._worker.robot.world.close()
        play._worker = None


def report(policy: Path, out: Path, *flags: str) -> dict[str, Any]:
    assert frontdoor.main(["eval", "--policy", str(policy), "--json", str(out), *flags]) == 0
    return json.loads(out.read_text())


# -- the result


@pytest.mark.usefixtures("short")
def test_the_report_has_its_keys_and_counts_add_up(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = report(policy, tmp_path / "new/folder/out.json", "--episodes", "3", "--seed", "40")
    assert {
        "suite",
        "policy",
        "machine",
        "latency",
        "episodes",
        "success",
        "tasks",
        "latency_ms",
        "jerk",
    } <= set(out)
    assert (out["suite"], out["policy"]) == ("tabletop", "fake")
    assert (out["latency"]["given"], out["latency"]["kind"], out["latency"]["ms"]) == ("0ms", "constant", 0)
    assert len(out["episodes"]) == 3
    for episode, seed in zip(out["episodes"], range(40, 43), strict=True):
        assert set(episode) == {
            "task",
            "group",
            "instruction",
            "seed",
            "success",
            "steps",
            "sim_seconds",
            "held",
            "dry",
            "skipped",
            "asked",
            "late",
            "jerk",
        }
        assert episode["seed"] == seed
        assert episode["sim_seconds"] == pytest.approx(episode["steps"] / 30, abs=1e-3)
        assert episode["sim_seconds"] == pytest.approx(0.5, abs=0.05)
    k = sum(e["success"] for e in out["episodes"])
    assert out["success"] == {"n": 3, "k": k, "rate": k / 3, "ci95": pytest.approx(list(wilson(k, 3)))}
    assert out["tasks"].keys() == {e["task"] for e in out["episodes"]}
    for name, row in out["tasks"].items():
        assert row["n"] == sum(e["task"] == name for e in out["episodes"])
        assert row["k"] == sum(e["task"] == name and e["success"] for e in out["episodes"])
    assert set(out["latency_ms"]) == {"words", "preprocess", "prefix", "steps"}
    for row in out["latency_ms"].values():
        assert 0 <= row["p50"] <= row["p95"] <= row["p99"] <= row["max"]
    assert out["jerk"] > 0
    assert {"processor", "cores", "system", "python", "versions"} <= set(out["machine"])
    assert not {"pairs", "roles", "roles_pairs", "absent"} & set(out)
    said = capsys.readouterr().out
    assert f"{k}/3" in said
    assert "Wilson" in said
    assert all(f"{name}: " in said for name in out["tasks"])


@pytest.mark.usefixtures("short")
def test_swapped_pairs_share_a_table_and_groups_count_apart(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = report(policy, tmp_path / "out.json", "--episodes", "2", "--swap")
    by_seed = [out["episodes"][:5], out["episodes"][5:]]
    for episodes in by_seed:
        assert [e["group"] for e in episodes] == ["", "", "roles", "roles", "absent"]
        assert len({e["seed"] for e in episodes}) == 1
        assert episodes[0]["instruction"] != episodes[1]["instruction"]
        assert episodes[2]["instruction"] != episodes[3]["instruction"]
        assert episodes[4]["task"] == "nothing to do"

    def both(group: str) -> int:
        return sum(all(e["success"] for e in episodes if e["group"] == group) for episodes in by_seed)

    assert (out["success"]["n"], out["pairs"]["n"], out["pairs"]["k"]) == (4, 2, both(""))
    assert (out["roles"]["n"], out["roles_pairs"]["n"], out["roles_pairs"]["k"]) == (4, 2, both("roles"))
    assert out["absent"]["n"] == 2
    assert out["absent"]["k"] == sum(e["success"] for e in out["episodes"] if e["group"] == "absent")
    # What has nothing to do, or other tables, is not in the success of tasks.
    assert "absent_pairs" not in out
    assert sum(row["n"] for row in out["tasks"].values()) == 4
    assert "nothing to do" not in out["tasks"]
    said = capsys.readouterr().out
    for key in ("pairs", "roles", "roles_pairs", "absent"):
        assert f"{evaluate.TITLES[key]}: {out[key]['k']}/{out[key]['n']} " in said


def test_a_score_counts_by_task_and_by_group() -> None:
    """By hand, where successes differ, which half a second of a policy that knows nothing does not show."""
    rows = [
        ("lift X", "", 1),
        ("put X in Y", "", 0),
        ("put X in Y", "", 1),
        ("put X in Y", "roles", 0),
        ("lift X", "x", 1),
    ]
    episodes = [{"task": t, "group": g, "success": bool(s)} for t, g, s in rows]
    table = score.by_task(episodes[:3])
    assert list(table) == ["lift X", "put X in Y"]
    assert [(row["k"], row["n"]) for row in table.values()] == [(1, 1), (1, 2)]
    assert not score.both(episodes, "")
    assert not score.both(episodes, "roles")
    assert score.both(episodes, "x")


@pytest.mark.parametrize(("settle", "seconds", "ticks"), [(0.3, 1.0, 10), (0.6, 1.0, 19), (2.0, 0.5, 16)])
def test_each_scenario_says_how_long_it_lasts_and_success_must(
    policy: Path, settle: float, seconds: float, ticks: int
) -> None:
    """Where nothing is to be done, an arm that rests is right from the first tick on."""
    worker = play.Worker(play.Options("tabletop", str(policy), "seen", True, Constant(5.0), "naive", 30.0))
    *_, absent = SUITE.scenarios(3, "seen", True)
    scenario = replace(absent, settle=settle, seconds=seconds)
    late = Draws(Constant(5.0), 3)
    row, joints = play.obey(worker, scenario, {name: [] for name in play.STAGES}, late)
    worker.robot.world.close()
    assert row["success"] is (settle < seconds)
    assert abs(row["steps"] - ticks) <= 1
    assert len(joints) == row["steps"]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("late", ["100ms", "lognormal:80ms,0.5"])
def test_an_evaluation_repeats_whatever_ran_before(late: str, policy: Path, tmp_path: Path) -> None:
    flags = ("--episodes", "1", "--latency", late, "--split", "phrasings")
    first = report(policy, tmp_path / "a.json", *flags, "--seed", "3")
    both = report(policy, tmp_path / "b.json", "--episodes", "2", *flags[2:], "--seed", "2")
    assert both["episodes"][1] == first["episodes"][0]
    again = report(policy, tmp_path / "c.json", *flags, "--seed", "3")
    assert (again["episodes"], again["jerk"]) == (first["episodes"], first["jerk"])


@pytest.mark.usefixtures("short")
def test_latency_is_felt(policy: Path, tmp_path: Path) -> None:
    """The first answer comes later, so the arm moves otherwise."""
    jerks = {
        latency: report(policy, tmp_path / "out.json", "--episodes", "1", "--latency", latency)["jerk"]
        for latency in ("0ms", "100ms", "0.1s")
    }
    assert jerks["100ms"] == jerks["0.1s"] != jerks["0ms"]


def written(path: Path, milliseconds: float) -> Path:
    """A profile of a board on which every chunk takes as long."""
    parts = (np.full(6, share * milliseconds / 1e3) for share in (0.1, 0.5))
    step = np.full((6, 4), 0.1 * milliseconds / 1e3)
    path.write_text(json.dumps(latency.to_json(*parts, step, {"machine": {"processor": "a board"}})))
    return path


@pytest.mark.usefixtures("short")
def test_latencies_that_are_the_same_give_the_same_episodes(policy: Path, tmp_path: Path) -> None:
    """None in every form is what is done without the option; a constant profile is a constant latency."""

    def played(*flags: str) -> tuple[list[dict[str, Any]], float]:
        out = report(policy, tmp_path / "out.json", "--episodes", "2", *flags)
        return out["episodes"], out["jerk"]

    none = played()
    for late in ("0ms", "lognormal:0ms,0.5", str(written(tmp_path / "none.json", 0.0))):
        assert played("--latency", late) == none
    constant = played("--latency", "100ms")
    assert constant != none
    for late in ("lognormal:100ms,0", str(written(tmp_path / "board.json", 100.0))):
        assert played("--latency", late) == constant


@pytest.mark.usefixtures("short")
def test_the_report_says_what_was_simulated_and_what_it_did(policy: Path, tmp_path: Path) -> None:
    board = written(tmp_path / "board.json", 200.0)
    out = report(policy, tmp_path / "out.json", "--episodes", "2", "--latency", str(board))
    said, episodes = out["latency"], out["episodes"]
    assert (said["given"], said["kind"], said["steps"]) == (str(board), "profile", 4)
    assert said["machine"] == {"processor": "a board"}
    assert said["drawn_ms"]["p50"] == said["drawn_ms"]["max"] == pytest.approx(200.0)
    # 0.2 s are six ticks: the arm holds until its first answer is there, and then has rows to play.
    assert [(e["held"], e["dry"], e["skipped"]) for e in episodes] == [(6, 0, 0)] * 2
    ticks = sum(e["steps"] for e in episodes)
    assert said["ticks"] == {"all": ticks, "held": 12, "dry": 0, "skipped": 0}
    assert said["answers"] == {"asked": sum(e["asked"] for e in episodes), "late": 0}


def test_a_plan_that_runs_out_is_counted_dry(policy: Path) -> None:
    worker = play.Worker(play.Options("tabletop", str(policy), "seen", False, Constant(0.45), "naive", 30.0))
    (scenario,) = SUITE.scenarios(3, "seen", False)
    row, _ = play.obey(
        worker, replace(scenario, seconds=2.0), {n: [] for n in play.STAGES}, Draws(Constant(0.45), 3)
    )
    worker.robot.world.close()
    # Asked at 0 s, there at 14 ticks; asked again then, there 14 ticks later, but its rows end after 22.
    assert row["held"] - row["dry"] == 14
    assert row["dry"] > 0


class Moody:
    """A stopwatch that reads anything, as on a busy machine."""

    def __init__(self, seed: int) -> None:
        self.rng, self.now = np.random.default_rng(seed), 0.0

    def __call__(self) -> float:
        self.now += float(self.rng.exponential(0.03))
        return self.now


def test_episodes_do_not_depend_on_how_fast_the_machine_is(tmp_path: Path) -> None:
    """A policy that continues rows is told how many: by the simulated latency, not by this machine's."""
    spec = replace(fakes.arm_spec(40, 0.02), joining="prefix", committed=40)
    folder = fakes.write_bundle(tmp_path / "bundle", spec, noise=0.2)
    (scenario,) = SUITE.scenarios(3, "seen", False)
    played = []
    for seed in range(3):
        late = Lognormal(0.3, 0.3)
        worker = play.Worker(play.Options("tabletop", str(folder), "seen", False, late, "rtc", 30.0))
        worker.policy = OnnxPolicy(load(folder), clock=Moody(seed))
        stages: dict[str, list[float]] = {name: [] for name in play.STAGES}
        row, joints = play.obey(worker, replace(scenario, seconds=6.0), stages, Draws(late, 3))
        worker.robot.world.close()
        assert min(stages["steps"]) > 0  # which the report tells, for it is what the machine did
        played.append((row, joints.tolist()))
    assert played[0] == played[1] == played[2]
    assert played[0][0]["asked"] > 5


def test_two_workers_give_the_list_of_one(policy: Path, tmp_path: Path) -> None:
    """In processes of their own, as users run it, so that both play episodes of full length."""
    results = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.json"
        flags = ["--policy", str(policy), "--episodes", "2", "--seed", "7", "--latency", "lognormal:60ms,0.4"]
        command = [sys.executable, "-m", "vla", "eval", *flags, "--workers", str(workers), "--json", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(out.read_text()))
    one, two = results
    assert len(one["episodes"]) == 2
    assert one["episodes"] == two["episodes"]
    # Not only the outcomes: every joint at every tick.
    assert one["jerk"] == two["jerk"]


# -- a goal reached


class _Scenario:
    """A scenario whose rule of success is a list of answers."""

    def __init__(self, answers: list[bool]) -> None:
        self.answers = answers

    def successful(self, world: Any) -> bool:
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "ends", "reached"),
    [
        ([False] * 12, 1.0, False),
        ([True] * 12, 0.3, True),
        ([True, True, False] + [True] * 9, 0.6, True),  # a success that did not last starts anew
        ([False] * 8 + [True] * 4, 1.0, False),  # too late to last
    ],
)
def test_success_must_last(answers: list[bool], ends: float, reached: bool) -> None:
    goal = play.Goal(_Scenario(answers), None, settle=0.3, begun=0.0, end=1.0)
    now = next(tick / 10 for tick in range(12) if goal(tick / 10))
    assert now == pytest.approx(ends)
    assert goal.reached is reached


# -- what is refused


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--suite", "tablettop"], "tabletop"),
        (["--split", "unseen"], "phrasings"),
        (["--latency", "soon"], "120ms"),
        (["--latency", "lognormal:80ms"], "sigma"),
        (["--latency", "nowhere.json"], "nowhere.json"),
        (["--latency", "11s"], "longer than an episode"),
        (["--episodes", "0"], "--episodes"),
        (["--workers", "0"], "--workers"),
        (["--seed", "-1"], "--seed"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--policy", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    flags: list[str], said: str, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    args = ["eval", "--policy", str(policy), "--episodes", "1", "--json", str(out), *flags]
    assert frontdoor.main(args) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("takt: ")
    assert said in line
    assert not out.exists()


def test_an_altered_bundle_is_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = fakes.write_bundle(tmp_path / "bundle", fakes.arm_spec())
    with (folder / "step.onnx").open("ab") as file:
        file.write(b"\0")
    command = [
        sys.executable,
        "-m",
        "vla",
        "eval",
        "--policy",
        str(folder),
        "--workers",
        "2",
        "--episodes",
        "2",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "step.onnx was altered" in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_policy_for_another_body_is_refused(workers: str, tmp_path: Path) -> None:
    other = replace(fakes.arm_spec(), state=tuple(f"leg{i}" for i in range(6)))
    folder = fakes.write_bundle(tmp_path / "bundle", other)
    flags = ["--policy", str(folder), "--episodes", "2", "--workers", workers]
    done = subprocess.run(
        [sys.executable, "-m", "vla", "eval", *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "leg0" in line
    assert "shoulder_pan" in line
