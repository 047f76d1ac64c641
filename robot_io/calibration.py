"""An arm's calibration: LeRobot's file as it is, and what its numbers mean for angles.

    {"shoulder_pan": {"id": 1, "drive_mode": 0, "homing_offset": -50,
                      "range_min": 780, "range_max": 3310}, ...}

A servo says its shaft's place less the homing offset, or an X series servo the sum of both, in steps of a
turn / 4096. The middle of a joint's calibrated range is 0 rad, and drive mode 1 turns the direction round (in
an X series servo, which then does so by itself). A gripper is shut where its range begins. LeRobot's own
degrees count 4095 steps a turn and so differ from these angles by 0.02 %.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from robot_io import registers as r
from robot_io.bodies import GRIPPER as GRIPPER
from robot_io.bodies import SO101, Body
from robot_io.family import Family
from vla import atomic
from vla.contract import TaktError

LEAST = 0.2  # rad; a joint that was moved less was not calibrated


@dataclass(frozen=True)
class Motor:
    """One line of a calibration file: a servo's id and three numbers in steps."""

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int


Calibration = dict[str, Motor]


def settings(joint: str, motor: Motor, body: Body = SO101) -> dict[r.Register, int]:
    """What a joint's servo has to hold in its EPROM."""
    held = (motor.homing_offset, motor.range_min, motor.range_max)
    turned = {body.family.table["drive_mode"]: motor.drive_mode} if body.family.turns else {}
    return body.kept(joint) | dict(zip(body.family.placed, held, strict=True)) | turned


@dataclass(frozen=True)
class Joint:
    """A servo's steps as an angle.

    Attributes:
        zero: the step at 0 rad.
        sign: 1, or -1 where more steps are a smaller angle.
        lower, upper: the calibrated range, rad.
    """

    zero: float
    sign: int
    lower: float
    upper: float

    @staticmethod
    def of(joint: str, motor: Motor, body: Body = SO101) -> Joint:
        middle = (motor.range_min + motor.range_max) / 2.0
        half = (motor.range_max - motor.range_min) / 2.0 * r.RAD
        sign = -1 if motor.drive_mode and not body.family.turns else 1
        shift = body.joints[joint][0] + half if joint == GRIPPER else 0.0
        return Joint(middle - sign * shift / r.RAD, sign, shift - half, shift + half)

    def angle(self, steps: float) -> float:
        """rad."""
        return self.sign * (steps - self.zero) * r.RAD

    def steps(self, angle: float) -> int:
        """The step nearest to an angle in rad."""
        return round(self.zero + self.sign * angle / r.RAD)


def read(path: Path, body: Body = SO101) -> Calibration:
    """The file of an arm.

    Raises:
        TaktError: it is not there or no such file; the line names the joint.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise TaktError(
            f"there is no calibration {path}: takt calibrate makes one; or calibrate with LeRobot, which "
            "leaves it below ~/.cache/huggingface/lerobot/calibration/robots"
        ) from None
    except (OSError, ValueError) as error:
        raise TaktError(f"{path} is no calibration: {error}") from None
    if not isinstance(data, dict) or set(data) != set(body.joints):
        names = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise TaktError(
            f"{path} is no calibration of {body.title}: wanted {sorted(body.joints)}, got {names}"
        )
    found = {joint: _motor(path, joint, data[joint], body.family) for joint in body.joints}
    for joint, motor in found.items():
        whole = (motor.range_min, motor.range_max) == (0, r.STEPS - 1)
        # A Koch's file has them for all joints without stops; an SO-101's may have the stops of its cable.
        if whole > (joint in body.endless) or (body.family.counts and not whole and joint in body.endless):
            turn = "has no stops" if joint in body.endless else "has stops"
            raise TaktError(
                f"{path} looks like another arm's: {joint} of {body.title} {turn}, and its range there is "
                f"{motor.range_min} to {motor.range_max}"
            )
    if len({motor.id for motor in found.values()}) != len(found):
        raise TaktError(f"{path}: two joints have the same id")
    return found


def _motor(path: Path, joint: str, row: object, family: Family) -> Motor:
    names = [field.name for field in fields(Motor)]
    if not isinstance(row, dict) or set(row) != set(names) or not all(type(row[n]) is int for n in names):
        raise TaktError(f"{path}: {joint} has whole numbers {', '.join(names)}, got {row}")
    motor = Motor(**row)
    last = r.STEPS - 1
    valid = 0 <= motor.id <= family.highest and motor.drive_mode in (0, 1)
    valid = valid and abs(motor.homing_offset) <= family.furthest
    if not valid or not 0 <= motor.range_min < motor.range_max <= last:
        raise TaktError(f"{path}: {joint} is out of range: {row}")
    if (motor.range_max - motor.range_min) * r.RAD < LEAST:
        raise TaktError(f"{path}: {joint} was moved by less than {LEAST} rad: calibrate it again")
    return motor


def write(path: Path, calibration: Mapping[str, Motor]) -> None:
    """As LeRobot reads it; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(path, {joint: asdict(m) for joint, m in calibration.items()}, indent=4)
