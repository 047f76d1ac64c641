"""An arm of emulated servos: how it is met, how it moves, how it is left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robot_io import calibration
from robot_io import registers as r
from robot_io.arm import Arm, make
from robot_io.bus import Bus
from robot_io.emulator import Emulator
from robot_io.port import Port
from runtime.so101 import JOINTS, METAL
from runtime.states import State
from tests.robot_io.driving import IDS, check_bytes, drive, metal, switched, to_all, wave, writes
from vla.contract import Robot, TaktError


@pytest.fixture(params=["so101", "koch"])
def robot(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def arm_at(emulator: Emulator, **options: object) -> Arm:
    return metal(emulator, patience=0.1, **options)


def test_it_describes_itself_with_metals_limits(tmp_path: Path) -> None:
    arm = make(port="emulated")
    assert isinstance(arm, Robot)
    assert arm.spec.state == arm.spec.actions.names == tuple(JOINTS)
    assert arm.spec.max_velocity == METAL.velocity and arm.spec.max_lead == (METAL.lead,) * 6
    for d, (lower, upper) in zip(arm.spec.actions.dimensions, JOINTS.values(), strict=True):
        cut = METAL.margin * (upper - lower)
        assert d.lower == pytest.approx(lower + cut, abs=2e-3) and d.upper == pytest.approx(
            upper - cut, abs=2e-3
        )


def test_a_narrower_calibration_narrows_the_range() -> None:
    arm = dict(make(port="emulated")._calibration)
    arm["elbow_flex"] = replace(arm["elbow_flex"], range_min=1800, range_max=2300)
    elbow = Arm("emulated", arm).spec.actions.dimensions[2]
    assert elbow.upper == pytest.approx(0.96 * 250 * r.RAD) == -elbow.lower


def test_a_run_moves_within_every_limit_and_ends_parked_and_off(
    arm: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = arm.look()
    with drive(arm) as driven:
        driven.run(100)
        assert driven.state is State.RUNNING
        driver = driven.arm
        seen = driver.telemetry
        moved = np.ptp([pose for _, pose in driven.poses], axis=0)
    assert (moved > 0.5).all()
    measures = [arm.body.model(joint).current is not None for joint in arm.body.joints]
    assert np.isfinite([seen.velocity, seen.load, seen.position]).all()
    assert (np.isfinite(seen.current) == measures).all()
    volts = {"STS3215": 12.1, "XL430-W250": 12.0, "XL330-M288": 5.0}
    supplies = [volts[arm.body.model(joint).name] for joint in arm.body.joints]
    assert seen.voltage == pytest.approx(np.array(supplies), abs=0.5)
    assert seen.temperature == pytest.approx(25, abs=1)
    told = check_bytes(arm, driver)
    after = arm.look()
    for servo in IDS:
        assert abs(after[servo]["actual"] - before[servo]["actual"]) * r.RAD < 0.06
        assert after[servo]["torque"] == r.OFF
    assert to_all(told, r.OFF) and set(switched(told, r.OFF)) == set(IDS)
    assert "takt: parked, torque off" in capsys.readouterr().err
    goals = np.array([[w.value for w in told if w.servo == s and w.name == "goal"] for s in IDS])
    # The guard's limit, a tick, and a rounding at both ends.
    assert np.abs(np.diff(goals, axis=1)).max() * r.RAD < METAL.velocity[0] * 0.1 + 2 * r.RAD


def test_a_servo_is_switched_on_only_where_it_stands(arm: Emulator) -> None:
    with arm_at(arm):
        told = writes(arm.heard())
        seen = arm.look()
    for servo in IDS:
        rows = [w for w in told if w.servo == servo and w.alone]
        on = next(i for i, w in enumerate(rows) if w.name == "torque")
        assert rows[on].value == r.ON
        assert rows[on - 1].name == "goal"
        assert abs(rows[on - 1].value - seen[servo]["position"]) <= 1
        assert seen[servo]["torque"] == r.ON


def test_an_arm_that_was_found_on_keeps_its_pose_and_stays_on(
    arm: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with arm_at(arm, end="hold") as first:
        here = first.read().state
    assert "torque ON" in capsys.readouterr().err
    with drive(arm) as driven:
        assert not driven.arm.found.limp
        driven.run(20)
    assert {seen["torque"] for seen in arm.look().values()} == {r.ON}
    told = check_bytes(arm, driven.arm)
    assert not to_all(told, r.OFF) and not switched(told, r.OFF)
    assert "it was found switched on" in capsys.readouterr().err
    assert len(here) == 6


def test_what_an_arm_holds_is_not_let_sink(arm: Emulator) -> None:
    """Its load keeps a servo off its goal. To hold where it stands instead would let it go further."""
    with arm_at(arm, end="hold"):
        pass
    arm.fail(stuck=[2])
    port = Port(arm.port)
    goal = int(arm.look()[2]["position"]) + 25
    Bus(port, 0.2, arm.body.family).write(2, arm.body.family.goal, goal)
    port.close()
    with arm_at(arm, end="hold"):
        assert arm.look()[2]["goal"] == goal
    assert arm.look()[2]["goal"] == goal


def test_a_failure_in_the_loop_holds(arm: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), drive(arm) as driven:
        driven.run(20, lambda now: wave(now + 1 / (len(driven.poses) != 15)))
    assert {seen["torque"] for seen in arm.look().values()} == {r.ON}
    assert "the run failed" in capsys.readouterr().err


def test_an_arm_that_was_never_moved_is_switched_off_even_after_a_failure(arm: Emulator) -> None:
    with pytest.raises(ZeroDivisionError), arm_at(arm):
        1 / 0
    assert {seen["torque"] for seen in arm.look().values()} == {r.OFF}


def test_what_has_not_passed_the_guard_is_refused(arm: Emulator) -> None:
    with arm_at(arm, end="hold") as robot:
        for value in (np.full(6, np.nan), np.zeros(5), np.full(6, np.inf)):
            with pytest.raises(ValueError, match="six finite"):
                robot.write(value)
        robot.write(np.full(6, 100.0))  # the last clamp is the driver's own
    check_bytes(arm, robot)


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"dead": [3]}, r"no answer from elbow_flex \(id 3\)"),
        ({"dead": list(IDS)}, "no servo answers"),
        ({"errors": {6: 0x20}}, r"gripper \(id 6\) reports overload"),
        ({"supply": {2: 3.5}}, r"shoulder_lift \(id 2\) has 3.5 V, not [46].0 to 14.0"),
    ],
)
def test_an_arm_that_is_not_well_is_not_switched_on(
    arm: Emulator, faults: dict[str, object], says: str
) -> None:
    arm.fail(**faults)
    with pytest.raises(TaktError, match=says), arm_at(arm):
        raise AssertionError("it was entered")
    assert writes(arm.heard()) == []
    arm.fail()
    for servo in IDS:
        arm.order(cut=servo)  # errors of an X series' hardware last until then
    with arm_at(arm):
        pass


def test_another_arms_calibration_is_refused_unless_it_is_to_be_written(arm: Emulator) -> None:
    mine = calibration.read(arm.calibration, arm.body)
    mine["elbow_flex"] = replace(mine["elbow_flex"], homing_offset=100)
    with (
        pytest.raises(TaktError, match=r"elbow_flex \(id 3\): homing_offset -10, not 100"),
        Arm(arm.port, mine, body=arm.body),
    ):
        raise AssertionError("it was entered")
    assert writes(arm.heard()) == []
    with Arm(arm.port, mine, configure=True, patience=0.1, body=arm.body):
        pass
    arm.order(cut=3)
    assert arm.look()[3]["homing_offset"] == 100
    table = arm.body.family.table
    told = {w.name for w in writes(arm.heard()) if w.address < table["torque"].address}
    assert told == {"homing_offset"}
    with Arm(arm.port, mine, patience=0.1, body=arm.body):
        pass


def test_the_port_is_free_after_a_refusal(arm: Emulator) -> None:
    arm.fail(dead=[1])
    for _ in range(2):
        with pytest.raises(TaktError, match="no answer"), arm_at(arm):
            pass


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "--port emulated"),
        ({"port": "/dev/ttyACM0"}, "--calibration FILE"),
        ({"port": "emulated", "end": "fall"}, "valid: park, hold, off"),
        ({"port": "emulated", "configure": "maybe"}, "configure=yes or no"),
        ({"port": "emulated", "patience": "long"}, "patience is in seconds"),
        ({"port": "emulated", "calibration": Path("nowhere.json")}, "no calibration nowhere.json"),
    ],
)
def test_options_that_make_no_sense_are_one_line(options: dict[str, object], says: str) -> None:
    with pytest.raises(TaktError, match=says):
        make(**options)  # type: ignore[arg-type]


def test_a_policy_sees_test_patterns_or_there_are_no_cameras(capsys: pytest.CaptureFixture[str]) -> None:
    assert [c.name for c in make(port="emulated").spec.cameras] == ["front", "wrist"]
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert make(port="emulated", cameras="none").spec.cameras == ()


def test_the_emulators_file_is_lerobots(arm: Emulator) -> None:
    data = json.loads(arm.calibration.read_text())
    assert set(data["gripper"]) == {"id", "drive_mode", "homing_offset", "range_min", "range_max"}


def test_the_wave_asks_for_more_than_there_is() -> None:
    asked = np.array([wave(t) for t in np.linspace(0, 3, 50)])
    assert (np.ptp(asked, axis=0) > 7).all()
