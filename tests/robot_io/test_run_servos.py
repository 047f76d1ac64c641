"""`takt run --robot so101` and `koch` from outside: a control process, a policy's, emulated servos."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from robot_io import calibration
from robot_io import registers as r
from robot_io.calibration import Joint
from robot_io.emulator import Emulator
from runtime.so101 import METAL
from tests.robot_io.driving import IDS, check_bytes, metal, switched, to_all, writes
from tests.runtime.peers import PATIENCE, until

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["so101", "koch"])
def robot(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The entry points, whatever is installed."""
    path = tmp_path_factory.mktemp("plugin")
    info = path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[takt.robots]\nso101 = robot_io.arm:make\nkoch = robot_io.koch:make\n"
        "[takt.policies]\nhours = tests.runtime.faults.hours:make\n"
    )
    return path


@contextmanager
def run(
    plugin: Path, emulator: Emulator, out: Path, seconds: float = 60.0
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "vla", "run", "put", "--robot", emulator.body.name, "--policy", "hours"]
    command += ["--port", emulator.port, "--calibration", str(emulator.calibration), "--json", str(out)]
    command += ["--options", "patience=0.05", "--seconds", str(seconds)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(plugin)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def goals(emulator: Emulator) -> int:
    """How many packets of goals to all have come."""
    return sum(w.servo == 1 and w.name == "goal" and not w.alone for w in writes(emulator.heard()))


def moving(emulator: Emulator, process: subprocess.Popen[str]) -> None:
    until(lambda: goals(emulator) > 40 or process.poll() is not None, "no goal came")
    assert process.poll() is None, process.communicate()


def test_a_run_ends_parked(plugin: Path, arm: Emulator, tmp_path: Path) -> None:
    before, out = arm.look(), tmp_path / "out.json"
    with run(plugin, arm, out, seconds=2) as process:
        _, errors = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == 0, errors
    assert errors == "takt: parked, torque off\n"
    assert json.loads(out.read_text())["loop"]["reason"] == "done"
    told = check_bytes(arm, metal(arm))
    assert goals(arm) > 30 and to_all(told, r.OFF)
    after = arm.look()
    assert all(abs(after[s]["actual"] - before[s]["actual"]) * r.RAD < 0.06 for s in IDS)
    assert {seen["torque"] for seen in after.values()} == {r.OFF}


@pytest.mark.parametrize("robot", ["so101"])
def test_ctrl_c_parks(plugin: Path, arm: Emulator, tmp_path: Path) -> None:
    with run(plugin, arm, tmp_path / "out.json") as process:
        moving(arm, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == 130 and "Traceback" not in errors
    assert {seen["torque"] for seen in arm.look().values()} == {r.OFF}
    assert set(switched(check_bytes(arm, metal(arm)), r.OFF)) == set(IDS)


@pytest.mark.parametrize("robot", ["so101"])
def test_an_unplugged_arm_ends_the_run_with_its_reason(plugin: Path, arm: Emulator, tmp_path: Path) -> None:
    with run(plugin, arm, tmp_path / "out.json") as process:
        moving(arm, process)
        arm.order(unplug=True)
        output, errors = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == 1 and "Traceback" not in errors
    assert output.splitlines()[-1].endswith("is gone: was it unplugged?")
    assert errors.count("not made safe") == 6


def test_a_control_process_that_is_killed_leaves_the_arm_at_a_goal_that_is_near(
    plugin: Path, arm: Emulator, tmp_path: Path
) -> None:
    with run(plugin, arm, tmp_path / "out.json") as process:
        moving(arm, process)
        process.kill()
        process.wait()
        seen, told = arm.look(), check_bytes(arm, metal(arm))
    last = {w.servo: w.value for w in told if w.name == "goal"}
    motors = calibration.read(arm.calibration, arm.body)
    joints = [Joint.of(joint, motor, arm.body) for joint, motor in motors.items()]
    for servo, joint in zip(IDS, joints, strict=True):
        lead = abs(joint.angle(last[servo]) - joint.angle(seen[servo]["position"]))
        assert lead <= METAL.lead + METAL.velocity[0] / 30
    # Its servos stay on, and the line is free for who takes over.
    with metal(arm, patience=0.25) as after:
        assert not after.found.limp
