"""A data set that LeRobot itself has written trains a policy, with nothing said about it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import vla.__main__ as frontdoor
from tests.parity.conftest import PYTHON
from tests.vla.test_train import NEEDS_WORDS
from vla import dataset_body, plain_data, plain_train
from vla.dataset import Dataset
from vla.dataset_body import Told

JOINTS = ("shoulder_pan", "elbow_flex", "gripper")
LENGTHS = (7, 5)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not PYTHON.is_file():
        pytest.skip("LeRobot is not installed: make parity")
    folder = tmp_path_factory.mktemp("lerobot") / "pick"
    script = Path(__file__).with_name("recorder.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [PYTHON, "-W", "ignore", script, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"LeRobot failed: {done.stderr[-3000:]}")
    return folder


def test_its_names_are_the_robot_s_and_its_chunks_are_what_was_driven(recorded: Path) -> None:
    data = Dataset(recorded)
    body = dataset_body.read(data, Told())
    assert body.state == body.actions.names == JOINTS
    assert (body.fps, body.cameras) == (30, ("front",))
    assert body.actions.absolute.all()
    assert {d.unit for d in body.actions.dimensions} == {"1"}  # far beyond a turn: no radians
    cut = plain_data._cut(data, body, plain_data.Wanted(24, 3, 1, 1, ()))
    action = data.columns(["action"])["action"]
    assert np.array_equal(cut["chunk"][:, 0], action)
    assert cut["valid"].sum() == sum(3 * n - 3 for n in LENGTHS)  # 2 rows and 1 behind each end


@NEEDS_WORDS
def test_it_trains(recorded: Path, tmp_path: Path) -> None:
    flags = ["--steps", "1", "--batch", "2", "--draws", "1", "--image-size", "16", "--threads", "1"]
    args = [str(tmp_path / "out"), "--data", str(recorded), *flags]
    assert frontdoor.main(["train", *args]) == 0
    config = plain_train.load(tmp_path / "out").config
    assert (config.name, config.rows, config.dt) == ("plain so101_follower", 20, 1 / 30)
