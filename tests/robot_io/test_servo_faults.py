"""Faults of the line and of servos: real processes, a real pseudo-terminal, and what reached the servos.

Each test drives an arm under the real guard at the real beat, with targets that want more than any limit
allows, and looks at the bytes.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from robot_io import registers as r
from robot_io.emulator import Emulator
from runtime.so101 import METAL
from runtime.states import State
from tests.robot_io.driving import IDS, check_bytes, drive, switched, to_all


@pytest.fixture(params=["so101", "koch"])
def robot(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_unplugged_line_is_a_fault_and_leaving_says_what_is_not_safe(
    arm: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with drive(arm) as driven:
        driven.run(30)
        arm.order(unplug=True)
        driven.until(lambda: driven.state is State.FAULT)
        assert "is gone: was it unplugged?" in driven.told
        driven.until(lambda: driven.guard.still)
    check_bytes(arm, driven.arm)
    told = capsys.readouterr().err
    assert "torque ON" in told
    assert told.count("not made safe") == 6


def test_a_servo_that_is_silent_for_a_moment_holds_the_arm_which_then_goes_on(arm: Emulator) -> None:
    with drive(arm) as driven:
        driven.run(20)
        arm.fail(mute=[3])
        driven.until(lambda: driven.state is State.HOLD)
        assert "state stale" in driven.told
        arm.fail()
        driven.until(lambda: driven.state is State.RUNNING)
        driven.run(20)
        assert driven.state is State.RUNNING
    check_bytes(arm, driven.arm)


def test_a_silent_servo_is_a_fault_with_its_name_and_the_others_hold(
    arm: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with drive(arm) as driven:
        driven.run(30)
        arm.fail(dead=[3])
        driven.until(lambda: driven.state is State.FAULT)
        assert "elbow_flex (id 3): does not answer" in driven.told
        before = [change[2] for change in driven.guard.history]
        assert before[-2:] == [State.HOLD, State.FAULT]
        driven.until(lambda: driven.guard.still)
    told = check_bytes(arm, driven.arm)
    # Nothing lets go of an arm with a fault: it would fall.
    assert not to_all(told, r.OFF) and not switched(told, r.OFF)
    assert {servo for servo, seen in arm.look().items() if seen["torque"] == r.ON} >= set(IDS) - {3}
    # The safing: one packet with all goals, then every servo by itself, the dead one as well.
    safing = [w for w in told if w.name == "goal" and w.alone][6:]
    assert set(IDS) == {w.servo for w in safing}
    err = capsys.readouterr().err
    assert "torque ON" in err and "elbow_flex (id 3): does not answer" in err
    assert err.count("not made safe") == 1


@pytest.mark.parametrize(
    "faults",
    [{"corrupt": 0.05}, {"drop": 0.05}, {"truncate": 0.05}, {"noise": 0.1}, {"late": 0.03, "delay": 0.06}],
    ids=lambda faults: next(iter(faults)),
)
def test_a_bad_line_costs_a_retry_and_never_makes_a_wrong_pose(
    arm: Emulator, faults: dict[str, float]
) -> None:
    with drive(arm, patience=0.03) as driven:
        arm.fail(**faults)
        retried = 0
        for _ in range(50):
            driven.run(1)
            traffic = driven.arm.traffic
            # The feedback and the audit of one servo, each asked at most once more; a packet of goals, and
            # now and then one for the gripper's torque.
            # Of servos that wait for one another those behind one that was lost are, for as long as one is.
            more = 0 if driven.arm.body.family.alert == 0 else 4
            assert traffic.requests <= 6 + more and traffic.retries <= 2
            retried += traffic.retries + traffic.noise
        arm.fail()
        driven.run(5)
        times, poses = zip(*driven.poses, strict=True)
    assert retried
    # A servo runs at 5 rad/s at the most: a pose that leaps further was never measured. Late answers are
    # up to two cycles old.
    apart = np.abs(np.diff(poses, axis=0)).max(1)
    assert (apart <= 0.02 + 5.3 * (np.diff(times) + 0.1)).all()
    assert not driven.arm.faults
    check_bytes(arm, driven.arm)


@pytest.mark.parametrize("end", ["park", "off"])
def test_overload_and_a_dead_servo_leave_safing_complete(arm: Emulator, end: str) -> None:
    """One in overload, one dead: what is done to the others, and to these, is done to all."""
    with drive(arm, end) as driven:
        driven.run(30)
        arm.fail(errors={2: 0x20}, stuck=[2], dead=[5])
        driven.until(lambda: "overload" in "".join(driven.arm.faults))
        driven.until(lambda: driven.state is State.FAULT and driven.guard.still)
        assert "shoulder_lift (id 2): overload" in driven.arm.faults
        mark = arm.order(look=True)["time"]
    told = [w for w in check_bytes(arm, driven.arm) if w.time > mark]
    seen = arm.look()
    if end == "off":
        assert to_all(told, r.OFF)
        assert set(switched(told, r.OFF)) == set(IDS)
        assert {seen[s]["torque"] for s in IDS if s != 5} == {r.OFF}
        return
    assert not to_all(told, r.OFF) and not switched(told, r.OFF)
    assert {w.servo for w in told if w.name == "goal" and w.alone} == set(IDS)
    # The one that is overloaded is told to stay where it is, and so stops pressing.
    assert abs(seen[2]["goal"] - seen[2]["position"]) <= 2


def test_a_servo_that_lost_its_power_is_a_fault_and_is_not_switched_on_again(arm: Emulator) -> None:
    with drive(arm) as driven:
        driven.run(30)
        mark = arm.order(cut=4, seconds=0.15)["time"]
        driven.until(lambda: driven.state is State.FAULT)
        assert "wrist_flex (id 4)" in driven.told
        assert "its torque is off" in driven.told
        driven.run(20)
        assert driven.state is State.FAULT
    told = [w for w in check_bytes(arm, driven.arm) if w.time > mark]
    assert not switched(told, r.ON) and not to_all(told, r.ON)
    assert arm.look()[4]["torque"] == r.OFF


def test_a_joint_that_is_blocked_is_never_pressed_by_more_than_the_lead(arm: Emulator) -> None:
    with drive(arm) as driven:
        driven.run(10)
        arm.fail(stuck=[2])
        mark = arm.order(look=True)["time"]
        # A target that stays out of reach, until the servo protects itself after 2 s.
        driven.until(lambda: driven.state is State.FAULT, lambda now: np.full(6, 1.2))
        assert "shoulder_lift (id 2): overload" in driven.told
        stands = arm.look()[2]["position"]
    told = [w for w in check_bytes(arm, driven.arm) if w.servo == 2 and w.name == "goal"]
    settled = [w.value for w in told if w.time > mark + 0.3]
    assert settled
    assert np.abs(np.array(settled) - stands).max() * r.RAD <= METAL.lead + 2 * r.RAD


def test_heat_is_a_fault(arm: Emulator) -> None:
    with drive(arm) as driven:
        arm.fail(heat={6: 75.0})
        driven.until(lambda: driven.state is State.FAULT)
        assert "gripper (id 6): overheat" in driven.told
        assert driven.arm.telemetry.temperature[5] == 75
    check_bytes(arm, driven.arm)


def test_a_dip_of_the_supply_is_no_fault(arm: Emulator) -> None:
    with drive(arm) as driven:
        driven.run(5)
        for _ in range(3):
            arm.fail(errors={servo: 0x01 for servo in IDS})
            driven.run(2)
            arm.fail()
            driven.run(2)
        assert driven.state in (State.RUNNING, State.HOLD), driven.told
    check_bytes(arm, driven.arm)


def test_an_arm_that_is_blocked_on_its_way_to_park_holds(
    arm: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with drive(arm) as driven:
        driven.run(60)
        arm.fail(stuck=[1])
    told = check_bytes(arm, driven.arm)
    assert not to_all(told, r.OFF) and not switched(told, r.OFF)
    assert "shoulder_pan" in capsys.readouterr().err


def test_motion_ends_within_the_brake_when_the_arm_faults(arm: Emulator) -> None:
    with drive(arm) as driven:
        driven.run(40)
        mark = time.monotonic()
        arm.fail(dead=[6])
        driven.until(lambda: driven.state is State.FAULT and driven.guard.still)
        still = time.monotonic()
        driven.run(20)
    goals = [w for w in check_bytes(arm, driven.arm) if w.name == "goal" and not w.alone]
    for servo in IDS:
        assert len({w.value for w in goals if w.servo == servo and w.time > still}) == 1
    assert mark < still


def test_what_goes_wrong_while_parking_is_told_and_the_arm_is_made_safe(
    arm: Emulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("the gears laughed")

    monkeypatch.setattr("robot_io.arm.park", broken)
    with drive(arm) as driven:
        driven.run(20)
    told = check_bytes(arm, driven.arm)
    safing = [w for w in told if w.name == "goal" and w.alone][6:]
    assert set(IDS) == {w.servo for w in safing}
    err = capsys.readouterr().err
    assert "torque ON" in err and "the gears laughed" in err and "parked" not in err
