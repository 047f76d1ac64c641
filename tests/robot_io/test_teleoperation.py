"""One arm leads another; the episode is recorded, replayed, and made a data set of. All in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robot_io import calibration
from robot_io import registers as r
from robot_io.emulator import Emulator
from robot_io.leader import Leader, make
from runtime import journal_reader
from runtime.so101 import JOINTS
from tests.robot_io.driving import check_bytes, metal
from tests.robot_io.hands import leading, place, swing
from tests.runtime.peers import PATIENCE
from vla.contract import TaktError
from vla.dataset import Dataset

ROOT = Path(__file__).parents[2]
RATE = 20  # low, as two emulated arms and whatever else runs share the machine
TRACKS = 0.03  # rad, rms; a busy machine plays a motion up to a tick late


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The entry points, whatever is installed."""
    path = tmp_path_factory.mktemp("plugin")
    info = path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[takt.robots]\nso101 = robot_io.arm:make\n[takt.leaders]\nso101 = robot_io.leader:make\n"
    )
    return path


def takt(plugin: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vla", *map(str, args)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(plugin)])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )


def robot(arm: Emulator) -> list[object]:
    """The flags of the one that is driven."""
    flags = ["--robot", "so101", "--port", arm.port, "--calibration", arm.calibration]
    return [*flags, "--options", "patience=0.05", "--rate", RATE]


def test_led_recorded_replayed_and_made_a_data_set_of(plugin: Path, arm: Emulator, tmp_path: Path) -> None:
    journals = tmp_path / "journals"
    with Emulator(seed=7) as leader, leading(leader):
        before = leader.heard()
        led = takt(
            plugin, "record", journals, *robot(arm), "--leader", leader.port, "--leader-calibration",
            leader.calibration, "--leader-options", "patience=0.05", "--task", "wave", "--seconds", 2.5,
            "--success", "yes",
        )  # fmt: skip
        assert led.returncode == 0, led.stderr
        assert {seen["torque"] for seen in leader.look().values()} == {r.OFF}
        # Of the leader nothing is written but that it is switched off.
        told = {p.data[0] for _, p in leader.heard()[len(before) :] if p.code == 3}
        assert told <= {r.TORQUE.address}
    check_bytes(arm, metal(arm))
    (folder,) = journal_reader.episodes(journals)
    found = journal_reader.read(folder)
    driven = np.array(found.mode) == "RUNNING"
    assert driven.sum() > 3 and len(found) > 10 and found.commit.success
    # The follower was where the hand was; rows before it had caught up are no part of the episode. A busy
    # machine's overruns hold it for a second, while the hand goes on.
    gaps = np.abs(found.state[driven] - found.target[driven]).max(axis=1)
    assert gaps[0] < 0.2 and np.median(gaps) < 0.15
    hand = np.array([swing(t) for t in np.linspace(0, 6.0, 600)])
    near = np.abs(found.target[driven][:, None] - hand[None]).max(axis=2).min(axis=1)
    assert near.max() < 0.02

    out = tmp_path / "replay.json"
    replayed = takt(plugin, "replay", journals, *robot(arm), "--tolerance", TRACKS, "--json", out)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    tracking = json.loads(out.read_text())["tracking"]
    assert set(tracking) == set(JOINTS)
    assert all(0.0 < row["command"]["rms"] < TRACKS for row in tracking.values())
    check_bytes(arm, metal(arm))

    made = takt(plugin, "dataset", tmp_path / "data", "--journals", journals)
    assert made.returncode == 0, made.stderr
    data = Dataset(tmp_path / "data")
    assert data.robot_type == "so101" and data.tasks == ["wave"]
    columns = data.columns(["observation.state", "action", "measured_time"])
    assert len(data) >= driven.sum()
    assert data.features["action"].names == list(JOINTS)
    last = found.command[np.flatnonzero([mode in ("RUNNING", "HOLD") for mode in found.mode])[-1]]
    np.testing.assert_allclose(columns["action"][-1], last, atol=1e-6)
    assert (np.diff(columns["measured_time"][:, 0]) >= 0).all()


@pytest.mark.parametrize("robot", ["so101", "koch_leader"])
def test_a_leaders_joints_are_those_of_its_shafts_and_go_stale_with_its_line(arm: Emulator) -> None:
    motors = calibration.read(arm.calibration, arm.body)
    with Leader(arm.port, motors, patience=0.1, body=arm.body) as leader:
        for seconds in (0.0, 1.0):
            place(arm, swing(seconds))
            time, joints = leader.joints()
            np.testing.assert_allclose(joints, swing(seconds), atol=r.RAD)
        arm.fail(dead=[3])
        assert leader.joints()[0] == time  # as old as the joint that is silent longest
        arm.fail()
        assert leader.joints()[0] > time
        arm.order(unplug=True)
        after, joints = leader.joints()
        assert after == leader.joints()[0]
        np.testing.assert_allclose(joints, swing(1.0), atol=r.RAD)


def test_another_arms_calibration_is_refused(arm: Emulator, tmp_path: Path) -> None:
    other = calibration.read(arm.calibration)
    motor = other["elbow_flex"]
    other["elbow_flex"] = motor.__class__(**{**vars(motor), "homing_offset": motor.homing_offset + 9})
    with pytest.raises(TaktError, match=r"elbow_flex \(id 3\): homing_offset"), Leader(arm.port, other):
        pass
    with pytest.raises(TaktError, match="--leader-calibration FILE"):
        make(arm.port)
    with pytest.raises(TaktError, match="nobody leads an emulated arm"):
        make("emulated", arm.calibration)
