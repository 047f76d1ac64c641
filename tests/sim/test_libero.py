"""LIBERO: what of the suite there is without its package, which has gigabytes of assets elsewhere."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

import vla.__main__ as frontdoor
from sim.foreign import suite as foreign
from sim.foreign.process import Host
from sim.foreign.worlds import libero_world
from sim.libero.suite import Libero
from vla.contract import TaktError


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Libero:
    python = tmp_path / "python"
    python.touch()
    monkeypatch.setenv("TAKT_LIBERO_PYTHON", str(python))
    return Libero()


def saved(path: Path, value: object) -> str:
    """As torch.save writes an object that is no tensor."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/version", "3\n")
    return str(path)


def test_initial_states_are_read_without_running_anything(tmp_path: Path) -> None:
    states = np.random.default_rng(0).normal(size=(50, 79))
    np.testing.assert_array_equal(libero_world.initial_states(saved(tmp_path / "a", states)), states)
    for value in (states.astype(np.float32), {"states": states}, states.T.copy().T, print, [1.0]):
        with pytest.raises(ValueError, match="another form"):
            libero_world.initial_states(saved(tmp_path / "b", value))


def test_words_are_those_of_the_tasks_name() -> None:
    assert libero_world.words("KITCHEN_SCENE10_close_the_top_drawer") == "close the top drawer"
    assert libero_world.words("put_the_bowl_on_the_stove") == "put the bowl on the stove"


def test_a_rotation_as_axis_times_angle() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(libero_world.axis_angle([0, 0, half, half]), [0, 0, np.pi / 2])
    np.testing.assert_allclose(libero_world.axis_angle([1, 0, 0, 0]), [np.pi, 0, 0])
    np.testing.assert_array_equal(libero_world.axis_angle([0, 0, 0, 1.0000001]), 0)


def test_a_seed_is_a_task_and_one_of_its_fixed_states(suite: Libero) -> None:
    seeds = suite.seeds(0, 10, ())
    assert sorted(seeds) == list(range(400))
    (episode,) = suite.scenarios(seeds[1], "seen", False)
    assert (seeds[1], episode.task) == (40, "spatial-0")
    assert episode.request == {"benchmark": "libero_spatial", "task": 0, "state": 1}
    (long,) = suite.scenarios(39, "seen", False)
    assert (long.task, long.steps, long.seconds) == ("10-9", 520, 26.0)
    assert suite.seeds(0, 2, ("goal-3",)) == [23, 63]
    assert suite.seconds == 26.0 and Libero("90").seeds(0, 1, ()) == list(range(90))
    two = [{"task": "spatial-0", "success": True}, {"task": "10-9", "success": False}]
    found = suite.summary(two)
    assert "mean_of_buckets" not in found and list(found["buckets"]) == ["spatial", "10"]
    rest = [{"task": f"{name}-1", "success": True} for name in ("object", "goal")]
    assert suite.summary([*two, *rest])["mean_of_buckets"] == 0.75


def test_the_body_has_eight_numbers_and_seven_actions(suite: Libero) -> None:
    body = suite.spec()
    assert (len(body.state), body.actions.absolute.tolist()) == (8, [False] * 6 + [True])
    assert body.rest[-1] == -1.0


def test_without_it_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TAKT_LIBERO_PYTHON", raising=False)
    monkeypatch.setattr(foreign, "ROOT", tmp_path)
    assert frontdoor.main(["eval", "--suite", "libero"]) != 0
    said = capsys.readouterr().err.strip()
    assert "hf-libero" in said and "TAKT_LIBERO_PYTHON" in said and "\n" not in said
    with pytest.raises(TaktError, match="no suite libero:100; valid: libero:spatial"):
        Libero("100")


def test_a_python_without_the_package_says_so() -> None:
    python = foreign.ROOT / ".venv-metaworld" / "bin" / "python"
    if not python.is_file():
        pytest.skip("no other Python here: make metaworld")
    with pytest.raises(TaktError, match="hf-libero is not installed there"):
        Host(python, "libero_world", {})
