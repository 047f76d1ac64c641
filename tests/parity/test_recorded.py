"""Recorded episodes in LeRobot's own LeRobotDataset, and its data sets in ours."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import collect, journal_reader, motion
from runtime.journal_writer import Episode
from tests.parity.conftest import PYTHON
from tests.runtime import recording
from vla.contract import ActionSpace, Dimension
from vla.dataset import Dataset

pytestmark = pytest.mark.slow
RATE = 20
CAMERA = "observation.images.front"


def lerobot(*args: object) -> None:
    if not PYTHON.is_file():
        pytest.skip("LeRobot is not installed: make parity")
    script = Path(__file__).with_name("lerobot_data.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [PYTHON, "-W", "ignore", script, *map(str, args)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"LeRobot failed: {done.stderr[-3000:]}")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A data set of two recorded episodes, and what LeRobot reads in it."""
    root = tmp_path_factory.mktemp("recorded")
    for count in (17, 9):
        episode = Episode(root / "journals", recording.meta(("front",), RATE))
        for i in range(count):
            episode.put(recording.row(i, RATE), {"front": recording.frame(i)})
        episode.end("done", success=True)
    found = [journal_reader.read(path) for path in journal_reader.episodes(root / "journals")]
    collect.write(found, root / "data")
    lerobot("read", root / "data", root / "theirs.npz")
    return root / "data", np.load(root / "theirs.npz")


def test_lerobot_reads_every_column(recorded: tuple[Path, Any]) -> None:
    folder, theirs = recorded
    data = Dataset(folder)
    assert (int(theirs["episodes"]), int(theirs["fps"])) == (2, RATE)
    names = [name for name, feature in data.features.items() if not feature.visual]
    ours = data.columns(names)
    for name in names:
        read = theirs[f"column/{name}"].reshape(ours[name].shape)
        np.testing.assert_allclose(read, ours[name], atol=1e-6, err_msg=name)  # they read float64 as float32
    assert json.loads(str(theirs["tasks"])) == data.task_of() == [recording.WORDS] * 26
    assert set(json.loads(str(theirs["stats"]))) >= {"observation.state", "action", CAMERA}


def test_lerobot_decodes_the_frames_that_were_seen(recorded: tuple[Path, Any]) -> None:
    folder, theirs = recorded
    if "why" in theirs:
        pytest.skip(str(theirs["why"]))
    pictures = theirs[f"frames/{CAMERA}"] * 255.0
    assert pictures.shape == (26, recording.SIZE, recording.SIZE, 3)
    saw = [*range(17), *range(9)]
    assert np.abs(pictures.mean(axis=(1, 2, 3)) - [recording.grey(i) for i in saw]).max() < 12
    ours = Dataset(folder).images(CAMERA)
    assert np.abs(pictures - ours).max() <= 3  # two converters round YUV differently


def test_ours_reads_what_lerobot_writes(tmp_path: Path) -> None:
    lerobot("write", tmp_path / "theirs")
    data = Dataset(tmp_path / "theirs")
    assert (data.fps, data.robot_type, data.tasks) == (10, "two", ["task 0", "task 1"])
    states = np.array([[i, episode] for episode in range(2) for i in range(12)], np.float32)
    columns = data.columns(["observation.state", "action"])
    np.testing.assert_array_equal(columns["observation.state"], states)
    np.testing.assert_array_equal(columns["action"], states + 0.5)
    brightness = data.images(CAMERA).mean(axis=(1, 2, 3))
    assert np.abs(brightness - (20 * states[:, 0] + states[:, 1])).max() < 6
    # And it is a motion that a robot of these joints can play.
    space = ActionSpace(tuple(Dimension(name, "rad", -99.0, 99.0) for name in ("pan", "lift")))
    robot = recording.spec().__class__(**{**vars(recording.spec()), "actions": space})
    played = motion.load(tmp_path / "theirs", 1, robot)
    np.testing.assert_array_equal(played.commands, states[12:] + 0.5)
    assert played.actions == space and played.instruction == "task 1"
