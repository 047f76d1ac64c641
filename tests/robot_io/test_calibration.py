"""LeRobot's calibration files, and steps as angles."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_io import calibration
from robot_io.bodies import BODIES, KOCH, Body
from robot_io.calibration import Joint, Motor
from robot_io.emulator import servos_of
from robot_io.xseries import CURRENT_BASED, DRIVE_MODE, EXTENDED, MODE
from runtime.so101 import JOINTS
from vla.contract import TaktError

motors = st.builds(
    Motor,
    id=st.integers(0, 253),
    drive_mode=st.integers(0, 1),
    homing_offset=st.integers(-2047, 2047),
    range_min=st.integers(0, 2000),
    range_max=st.integers(2200, 4095),
)


def rows() -> dict[str, dict[str, Any]]:
    """A file as LeRobot writes it."""
    return {
        joint: {"id": i, "drive_mode": 0, "homing_offset": 31 * i, "range_min": 700 + i, "range_max": 3300}
        for i, joint in enumerate(JOINTS, 1)
    }


def test_a_file_of_lerobots_is_read_and_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(rows(), indent=4))
    found = calibration.read(path)
    assert found["elbow_flex"] == Motor(3, 0, 93, 703, 3300)
    calibration.write(tmp_path / "new" / "copy.json", found)
    assert json.loads((tmp_path / "new" / "copy.json").read_text()) == rows()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["copy.json"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"elbow_flex": None}, "elbow_flex has whole numbers"),
        ({"elbow_flex": {"id": 3}}, "elbow_flex has whole numbers"),
        ({"tail": {}}, "no calibration of an SO-101"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(rows() | change))
    with pytest.raises(TaktError, match=says):
        calibration.read(path)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("range_max", 4096, "elbow_flex is out of range"),
        ("range_min", 3300, "elbow_flex is out of range"),
        ("range_min", 3200, "moved by less than"),
        ("id", 254, "out of range"),
        ("drive_mode", 2, "out of range"),
        ("homing_offset", 2048, "out of range"),
        ("homing_offset", 1.5, "whole numbers"),
        ("drive_mode", True, "whole numbers"),
        ("id", 4, "two joints have the same id"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, field: str, value: Any, says: str) -> None:
    data = rows()
    data["elbow_flex"][field] = value
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(data))
    with pytest.raises(TaktError, match=says):
        calibration.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_what_is_no_file_of_joints_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "arm.json").write_text(text)
    with pytest.raises(TaktError, match="is no calibration"):
        calibration.read(tmp_path / "arm.json")
    with pytest.raises(TaktError, match="calibrate with LeRobot"):
        calibration.read(tmp_path / "nothing.json")


@given(st.sampled_from(sorted(JOINTS)), motors, st.integers(0, 4095))
def test_steps_and_angles_are_each_others_inverse(joint: str, motor: Motor, steps: int) -> None:
    scale = Joint.of(joint, motor)
    assert scale.steps(scale.angle(steps)) == steps
    assert abs(scale.angle(scale.steps(0.7)) - 0.7) <= math.pi / 4096 + 1e-9


@given(st.sampled_from(sorted(JOINTS)), motors)
def test_the_calibrated_range_is_where_its_steps_are(joint: str, motor: Motor) -> None:
    scale = Joint.of(joint, motor)
    ends = sorted((scale.angle(motor.range_min), scale.angle(motor.range_max)))
    assert ends == pytest.approx([scale.lower, scale.upper])
    if joint == "gripper":
        assert scale.lower == pytest.approx(JOINTS["gripper"][0])
    else:
        assert scale.lower == pytest.approx(-scale.upper)


def test_more_steps_are_a_greater_angle_unless_the_drive_mode_says_otherwise() -> None:
    plain, turned = (Joint.of("elbow_flex", Motor(3, mode, 0, 1000, 3000)) for mode in (0, 1))
    assert plain.angle(2512) == pytest.approx(math.pi / 4) == -turned.angle(1000 + 3000 - 2512) * -1
    assert turned.angle(2512) == pytest.approx(-math.pi / 4)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_emulated_servos_hold_what_their_calibration_says(body: Body) -> None:
    servos, arm = servos_of(body, 0.0)
    for servo, (joint, motor) in zip(servos, arm.items(), strict=True):
        for register, value in calibration.settings(joint, motor, body).items():
            assert servo.get(register) == value


def test_a_servo_that_turns_its_direction_round_by_itself_is_not_turned_twice() -> None:
    motor = Motor(3, 1, 0, 1000, 3000)
    assert Joint.of("elbow_flex", motor, KOCH).angle(2512) == pytest.approx(math.pi / 4)
    assert calibration.settings("elbow_flex", motor, KOCH)[DRIVE_MODE] == 1


def test_another_arms_file_is_known_by_the_joints_without_stops(tmp_path: Path) -> None:
    """The names of the joints are the same, and its offsets would be written into the servos."""
    path, data = tmp_path / "arm.json", rows()
    path.write_text(json.dumps(data))
    with pytest.raises(TaktError, match=r"another arm's: shoulder_pan of a Koch v1\.1 has no stops"):
        calibration.read(path, KOCH)
    for joint in KOCH.endless:
        data[joint] |= {"range_min": 0, "range_max": 4095}
    path.write_text(json.dumps(data))
    assert calibration.read(path, KOCH)
    with pytest.raises(TaktError, match="another arm's: shoulder_pan of an SO-101 has stops"):
        calibration.read(path)


def test_a_kochs_file_is_lerobots_with_offsets_of_many_turns(tmp_path: Path) -> None:
    path = tmp_path / "koch.json"
    data = rows()
    data["elbow_flex"]["homing_offset"] = -5000
    for joint in KOCH.endless:
        data[joint] |= {"range_min": 0, "range_max": 4095}
    path.write_text(json.dumps(data))
    found = calibration.read(path, KOCH)
    assert found["elbow_flex"].homing_offset == -5000
    with pytest.raises(TaktError, match="elbow_flex is out of range"):
        calibration.read(path)
    path.write_text(json.dumps({"joint": {}}))
    with pytest.raises(TaktError, match="no calibration of a Koch"):
        calibration.read(path, KOCH)
    modes = {joint: calibration.settings(joint, motor, KOCH)[MODE] for joint, motor in found.items()}
    assert modes == dict.fromkeys(KOCH.joints, EXTENDED) | {"gripper": CURRENT_BASED}
