"""Suites by a mapping file: real environments played through, processes killed, files that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vla.__main__ as frontdoor
from runtime.latency import Constant
from sim import evaluate, play
from sim.gym.suite import Mapped
from tests import fakes
from tests.sim import mappings
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix, TaktError

ROOT = Path(__file__).parents[2]
FOREIGN = ROOT / ".venv-metaworld" / "bin" / "python"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's Python finds the tests' environment."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


class Steps:
    """A chunk of eight rows, one a control step: 0.05 * (1 + number of the row) and the hold 0.5."""

    def __init__(self, suite: Mapped, rows: int = 8) -> None:
        body = suite.spec()
        dt = 1 / suite.rate
        self._spec = PolicySpec("steps", body.state, body.actions, (), rows, dt, rows * dt / 2)
        self.seen: list[np.ndarray] = []

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, seed: int) -> None:
        self.seen.clear()

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        self.seen.append(observation.state)
        rows = [[0.05 * (1 + i), 0.5] for i in range(self._spec.chunk_length)]
        return ActionChunk(observation.time, self._spec.dt, np.array(rows))


def evaluated(monkeypatch: pytest.MonkeyPatch, mapping: Path, policy: Any, **how: Any) -> dict[str, Any]:
    """The report of `policy`, which this process plays."""
    for module in (play, evaluate):
        monkeypatch.setattr(module, "open_policy", lambda *a, **k: policy)
    return evaluate.Command(suite=f"gym:{mapping}", policy="of-the-test", **how).measure()


# -- relative actions through the whole loop


@pytest.mark.parametrize("rate", [20.0, 40.0, 10.0])
def test_relative_rows_reach_the_environment_unclipped_and_once_a_control_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rate: float
) -> None:
    """Whatever the rate of the ticks, which is the control rate, twice that, or half of it."""
    told: list[np.ndarray] = []
    mapping = mappings.write(tmp_path, mappings.COUNTING, seconds=1.0, success={"reward": 9.0})
    suite = Mapped(str(mapping))
    record = play.loop.run

    def run(robot: Any, *args: Any, **kwargs: Any) -> Any:
        asked = robot.host.ask

        def ask(do: str, arrays: Any = None, **fields: Any) -> Any:
            if do == "step":
                told.extend(arrays["actions"])
            return asked(do, arrays, **fields)

        robot.host.ask = ask
        return record(robot, *args, **kwargs)

    monkeypatch.setattr(play.loop, "run", run)
    policy = Steps(suite)
    report = evaluated(monkeypatch, mapping, policy, episodes=1, seed=3, rate=rate)
    assert len(told) == 20  # a second of control steps, no more and no fewer
    steps = np.array(told)[:, 0]
    if rate == 10.0:  # half as many commands as control steps: each is done once, then the body stands
        assert (steps[1::2] == 0).all()
        steps = steps[::2]
    # Rows follow each other from the first of each chunk on; at twice the rate none is done twice.
    assert steps[0] == pytest.approx(0.05)
    assert (np.abs(steps) > 0.049).all()
    assert set(np.round(steps / 0.05).astype(int)) <= set(range(1, 9))
    # The filter lets an absolute dimension move from the second tick on: until then it rests.
    rests = int(suite.rate // rate)
    np.testing.assert_allclose(np.array(told)[:rests, 1], -1.0)
    np.testing.assert_allclose(np.array(told)[rests:, 1], 0.5, atol=1e-6)
    (row,) = report["episodes"]
    assert (row["instruction"], row["steps"], row["success"]) == ("count from 3", rate, False)


def test_while_the_policy_thinks_physics_goes_on_and_the_body_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mapping = mappings.write(tmp_path, mappings.COUNTING, seconds=1.0, success={"reward": 9.0})
    policy = Steps(Mapped(str(mapping)))
    report = evaluated(monkeypatch, mapping, policy, episodes=1, latency="200ms")
    (row,) = report["episodes"]
    assert row["held"] == 4  # until the first answer
    assert [tuple(s[:2]) for s in policy.seen[:2]] == [(0, 0), (4, 0)]  # asked again when it was there
    # Four steps of nothing, then rows 4 to 7 of the first chunk: they are looked up by time.
    assert tuple(policy.seen[2][[0, 1, 3]]) == (8, pytest.approx(0.05 * (5 + 6 + 7 + 8)), 0.5)


# -- real environments


def test_a_pendulum_is_swung_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mapping = mappings.write(tmp_path, mappings.PENDULUM)
    report = evaluated(monkeypatch, mapping, mappings.Swinger(mapping), episodes=3, seed=0)
    assert report["success"]["k"] == 3
    assert report["rate"] == 20.0
    assert all(e["instruction"] == "hold the pendulum upright" for e in report["episodes"])
    assert all(e["sim_seconds"] < 10 and not e["held"] for e in report["episodes"])
    assert "gymnasium" in report["versions"]
    late = evaluated(monkeypatch, mapping, mappings.Swinger(mapping), episodes=3, seed=0, latency="2s")
    assert late["success"]["k"] == 0  # its answers come when their last row has passed


def test_the_tabletop_through_a_mapping_shows_its_frames_and_says_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mapping = mappings.write(tmp_path, mappings.TABLETOP, seconds=0.5)
    policy = fakes.ScriptedPolicy(fakes.arm_spec())
    report = evaluated(monkeypatch, mapping, policy, episodes=2, seed=7)
    assert [e["seed"] for e in report["episodes"]] == [7, 8]
    assert all("error" not in e and e["instruction"] for e in report["episodes"])
    seen = policy.seen[-1]
    assert seen.instruction == report["episodes"][-1]["instruction"]
    assert {name: frame.shape for name, frame in seen.frames.items()} == {
        "front": (96, 96, 3),
        "wrist": (96, 96, 3),
    }
    assert all(40 < frame.mean() < 220 for frame in seen.frames.values())
    body = Mapped(str(mapping)).robot(play.SimulatedClock())
    with body:
        body.reset({"seed": 7}, 1)
        assert body.read().frames["people"].shape == (480, 640, 3)


@pytest.mark.skipif(not FOREIGN.is_file(), reason="no Python with gymnasium's MuJoCo: make metaworld")
def test_the_example_of_the_docs_plays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Reacher-v5, rendered by MuJoCo, in a Python of its own that the mapping names."""
    text = (ROOT / "docs" / "suites.md").read_text().partition("Python 3.11 on):\n")[2]
    example = json.loads(text.partition("| key |")[0])
    mapping = mappings.write(tmp_path, example, python=str(FOREIGN))
    suite = Mapped(str(mapping))
    body = suite.spec()
    spec = PolicySpec("still", body.state, body.actions, body.cameras, 5, 1 / 50, 4 / 50)
    policy = fakes.ScriptedPolicy(spec)
    (row,) = evaluated(monkeypatch, mapping, policy, episodes=1, seed=1)["episodes"]
    assert "error" not in row and row["task"] == "Reacher-v5" and row["steps"] == 50
    frame = policy.seen[0].frames["top"]
    assert frame.shape == (480, 480, 3) and frame.std() > 10  # and something is to be seen
    assert policy.seen[0].state.shape == (4,)
    assert Mapped(str(mapping)).mapping.python == FOREIGN


# -- processes that die


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_simulator_is_an_error_of_its_episode(tmp_path: Path, workers: int) -> None:
    """Seed 2 kills the simulator's process by SIGKILL, in the middle of the episode."""
    rows = {}
    for name, kwargs in (("dies", {"dies": 2}), ("lives", {})):
        folder = tmp_path / name
        folder.mkdir()
        mapping = mappings.write(folder, mappings.COUNTING, kwargs=kwargs, seconds=0.5)
        spec = replace(fakes.arm_spec(), state=Mapped(str(mapping)).spec().state, cameras=fakes.CAMERAS[:1])
        spec = replace(spec, actions=Mapped(str(mapping)).spec().actions)
        camera = replace(spec.cameras[0], name="side", height=4, width=6)
        bundle = fakes.write_bundle(folder / "policy", replace(spec, cameras=(camera,)), noise=0.2)
        out = folder / "out.json"
        flags = ["--suite", f"gym:{mapping}", "--policy", str(bundle), "--episodes", "5", "--seed", "0"]
        assert frontdoor.main(["eval", *flags, "--workers", str(workers), "--json", str(out)]) == 0
        rows[name] = json.loads(out.read_text())["episodes"]
    assert [("error" in e) for e in rows["dies"]] == [False, False, True, False, False]
    assert rows["dies"][2]["error"].startswith("HostError: the simulator's process died (killed by signal 9)")
    assert rows["dies"][2]["error"].endswith("about to die")
    for one, other in zip(rows["dies"], rows["lives"], strict=True):
        assert one == other or one["seed"] == 2


def test_one_that_raises_is_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mapping = mappings.write(tmp_path, mappings.COUNTING, kwargs={"raises": 1}, seconds=0.5)
    report = evaluated(monkeypatch, mapping, Steps(Mapped(str(mapping))), episodes=3, seed=0)
    errors = [e.get("error") for e in report["episodes"]]
    assert errors == [None, "HostError: RuntimeError: the table fell over", None]
    assert report["versions"]["python"]


# -- what is refused, in one line


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"rate": None}, "lacks 'rate'"),
        ({"speed": 3}, "has 'speed'"),
        ({"rate": 0}, "rate is a number"),
        ({"rate": "fast"}, "rate is a number"),
        ({"success": {"luck": 1}}, "success is an object with one of info"),
        ({"instruction": "go"}, "instruction is an object"),
        ({"state": [{"names": ["a"], "slice": [0, 3]}]}, "slice"),
        ({"frames": {"side": {"size": [4, 4]}}}, "frame 'side'"),
        ({"actions": [{"name": "a", "lower": 1, "upper": 0}]}, "action 'a'"),
        ({"actions": [{"lower": 1, "upper": 0}]}, "lower|name"),
        ({"settle": 5, "seconds": 1}, "settle is below seconds"),
        ({"success": {"reward": "much"}}, "reward is a number"),
    ],
)
def test_a_mapping_that_is_wrong(tmp_path: Path, changed: dict[str, Any], word: str) -> None:
    with pytest.raises(TaktError, match=word) as told:
        Mapped(str(mappings.write(tmp_path, mappings.COUNTING, **changed)))
    assert "\n" not in str(told.value)


def test_a_mapping_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TaktError, match="no UTF-8"):
        Mapped(str(tmp_path / "m.json"))


def test_a_journal_of_a_mapping_that_was_edited_is_refused(tmp_path: Path) -> None:
    same = [Mapped(str(mappings.write(tmp_path, mappings.COUNTING, seconds=s))).identity for s in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_other_files_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = mappings.write(tmp_path, mappings.COUNTING)
    (tmp_path / "broken.json").write_text("{")
    for flags, word in (
        (["--suite", "gym"], "name the mapping file"),
        (["--suite", f"gym:{tmp_path / 'none.json'}"], "No such file"),
        (["--suite", f"gym:{tmp_path / 'broken.json'}"], "cannot be read"),
        (["--suite", "tabletop:x"], "takes no argument"),
        (["--suite", f"gym:{mapping}", "--policy", "expert"], "no scripted expert"),
        (["--suite", f"gym:{mapping}", "--tasks", "a"], "no list of tasks"),
        (["--suite", f"gym:{mapping}"], "differ in state"),
        (["--suite", f"gym:{mapping}", "--split", "phrasings"], "no split"),
    ):
        assert frontdoor.main(["eval", *flags, "--episodes", "1"]) != 0
        said = capsys.readouterr().err.strip()
        assert word in said and "\n" not in said


def test_toml_says_the_same_as_json(tmp_path: Path) -> None:
    pytest.importorskip("tomllib")
    text = """
id = "Pendulum-v1"
rate = 20
seconds = 10
settle = 1.0
instruction = {text = "hold the pendulum upright"}
success = {reward = -0.1}
[[state]]
names = ["cos", "sin", "speed"]
[[actions]]
name = "torque"
unit = "N m"
lower = -2.0
upper = 2.0
absolute = false
"""
    (tmp_path / "mapping.toml").write_text(text)
    one = Mapped(str(tmp_path / "mapping.toml")).mapping
    other = Mapped(str(mappings.write(tmp_path, mappings.PENDULUM))).mapping
    assert replace(one, path=other.path) == other


# -- the tabletop's own expert


def test_the_tabletops_expert_does_what_is_asked() -> None:
    play.start(play.Options("tabletop", "expert", "seen", False, Constant(0.0), None, 30.0))
    try:
        episodes = [e for seed in range(500, 504) for e in play.play(seed)["episodes"]]
    finally:
        play.finish()
    assert sum(e["success"] for e in episodes) >= 3
    assert all(e["asked"] == e["steps"] and not e["held"] for e in episodes)
