"""LeRobot's own SO101Follower and KochFollower on emulated servos, behind the bridge and our guard."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_io import calibration
from robot_io import registers as r
from robot_io.calibration import GRIPPER, Joint
from robot_io.emulator import Emulator
from robot_io.lerobot import LeRobot
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from tests.parity.conftest import PYTHON
from tests.robot_io.bridged import install
from tests.robot_io.driving import IDS, wave, writes

TICKS = 150
BODY = {"lower": -60, "upper": 60, "velocity": 90, "acceleration": 400, "lead": 15}
JAW = {"lower": 5, "upper": 90, "velocity": 100, "acceleration": 400, "lead": 30}
NEAR = 0.2  # degrees, or parts of a hundred: a step of a servo, and LeRobot's 4095 of them


# Robot -> LeRobot's name of it, the SDK that it wants, and what else its configuration says.
TYPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "so101": ("so101_follower", "scservo_sdk", {}),
    "koch": ("koch_follower", "dynamixel_sdk", {"use_degrees": True}),
}


@pytest.fixture(params=sorted(TYPES))
def robot(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def limits(arm: Emulator) -> dict[str, dict[str, Any]]:
    return {f"{j}.pos": dict(JAW if j == GRIPPER else BODY) for j in arm.body.joints}


@pytest.mark.slow
def test_lerobots_follower_moves_within_limits_and_is_left_without_torque(
    arm: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    kind, sdk, more = TYPES[arm.body.name]
    if subprocess.run([PYTHON, "-c", f"import {sdk}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} has no {sdk}: make parity")
    config = {"port": arm.port, "id": arm.calibration.stem, "calibration_dir": str(arm.calibration.parent)}
    robot = LeRobot(PYTHON, kind, config | more, limits(arm), patience=3.0)
    motors = calibration.read(arm.calibration, arm.body)
    joints = {j: Joint.of(j, m, arm.body) for j, m in motors.items()}
    assert [d.unit for d in robot.spec.actions.dimensions] == ["rad"] * 5 + ["1"]  # by LeRobot's own word
    with robot:
        seen, stands = robot.read().state, arm.look()
        for at, servo, joint in zip(seen[:5], IDS, joints.values(), strict=False):
            assert abs(at - joint.angle(stands[servo]["position"])) < np.radians(NEAR)
        before = len(arm.heard())
        guard, clock = Guard(robot.spec), MonotonicClock()
        begun, ticks = clock.now(), 0
        for scheduled, now in Ticker(clock, 0.02):
            seen_now = robot.read()
            robot.write(guard(wave(now - begun), seen_now, now, now - scheduled))
            if (ticks := ticks + 1) == TICKS:
                break
        told = [w for w in writes(arm.heard()[before:]) if w.name == "goal"]
    assert len(told) > TICKS  # of six servos
    for servo, (name, joint) in zip(IDS, joints.items(), strict=True):
        motor = motors[name]
        goals = np.array([w.value for w in told if w.servo == servo])
        if name == GRIPPER:
            numbers = 100.0 * (goals - motor.range_min) / (motor.range_max - motor.range_min)
            row = JAW
        else:
            numbers, row = np.degrees([joint.angle(g) for g in goals]), BODY
        assert numbers.min() >= row["lower"] - NEAR and numbers.max() <= row["upper"] + NEAR, name
        assert np.ptp(numbers) > 10.0, name
    assert {state["torque"] for state in arm.look().values()} == {r.OFF}  # LeRobot's default
