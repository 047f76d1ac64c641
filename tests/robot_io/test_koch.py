"""What is particular to an arm of X series servos: watchdogs, turns, fast sync reads, a gripper's current."""

from __future__ import annotations

import time

import numpy as np
import pytest

from robot_io import calibration
from robot_io import xseries as x
from robot_io.arm import Arm
from robot_io.bodies import KOCH
from robot_io.bus import Bus
from robot_io.calibration import Joint, Motor
from robot_io.emulator import Emulator
from robot_io.koch import make
from robot_io.port import Port
from robot_io.xseries import X
from runtime.guard import Guard
from runtime.states import State
from tests.robot_io.driving import IDS, check_bytes, drive, metal, switched, to_all, writes
from tests.runtime.peers import until
from vla.contract import TaktError


@pytest.fixture
def robot() -> str:
    return "koch"


def dogs(arm: Emulator) -> set[float]:
    return {seen["watchdog"] for seen in arm.look().values()}


def test_its_description_is_the_narrower_of_model_and_calibration() -> None:
    arm = make(port="emulated", cameras="none")
    assert arm.spec.name == "koch" and arm.spec.state == tuple(KOCH.joints)
    for d, (lower, upper) in zip(arm.spec.actions.dimensions, KOCH.joints.values(), strict=True):
        cut = 0.02 * (upper - lower)
        assert (d.lower, d.upper) == pytest.approx((lower + cut, upper - cut), abs=2e-3)
    assert KOCH.ids == {joint: i for i, joint in enumerate(KOCH.joints, 1)}
    with pytest.raises(TaktError, match="limits=metal; a Koch v1\\.1 has no others"):
        make(port="emulated", limits="simulation")


def test_watchdogs_watch_from_the_first_goal_to_the_end(arm: Emulator) -> None:
    with metal(arm, patience=0.1) as entered:
        entered.read()
        assert dogs(arm) == {0}
    with drive(arm) as driven:
        driven.run(5)
        assert dogs(arm) == {X.bite}
    assert dogs(arm) == {0}
    assert {seen["torque"] for seen in arm.look().values()} == {0}


def test_a_watchdog_that_missed_its_packet_is_woken(arm: Emulator) -> None:
    with drive(arm) as driven:
        driven.run(5)
        driven.arm._bus.write(3, x.WATCHDOG, 0)
        driven.until(lambda: arm.look()[3]["watchdog"] == X.bite)
        assert driven.state is State.RUNNING


def test_a_host_that_hangs_is_stopped_by_its_servos_which_then_hold(
    arm: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    far = np.full(6, 0.9)
    with drive(arm) as driven:
        driven.run(8, lambda now: far)
        until(lambda: dogs(arm) == {X.bitten}, "the watchdogs sleep")
        stands = {s: seen["actual"] for s, seen in arm.look().items()}
        driven.until(lambda: driven.state is State.FAULT, lambda now: far)
        assert "its watchdog stopped it" in driven.told
        assert {s: seen["actual"] for s, seen in arm.look().items()} == stands
    told = check_bytes(arm, driven.arm)
    assert not to_all(told, 0) and not switched(told, 0)
    # Their watchdogs rest, and every goal got in: where the arm is held from now on.
    seen = arm.look()
    assert dogs(arm) == {0} and {s["torque"] for s in seen.values()} == {1}
    goals = {w.servo: w.value for w in told if w.name == "goal" and w.alone}
    assert {s: seen[s]["goal"] for s in IDS} == goals
    assert "not made safe" not in capsys.readouterr().err


def test_an_arm_whose_host_was_killed_is_taken_over_where_its_servos_stopped(arm: Emulator) -> None:
    with metal(arm, end="hold", patience=0.1) as first:
        first.read()
    bus_port = Port(arm.port)
    bus = Bus(bus_port, 0.2, X)
    bus.broadcast(x.WATCHDOG, 1)
    bus.sync_write(x.GOAL, {s: int(arm.look()[s]["position"]) + 3000 for s in IDS})
    bus_port.close()
    until(lambda: dogs(arm) == {X.bitten}, "the watchdogs sleep")
    stands = {s: seen["actual"] for s, seen in arm.look().items()}
    with metal(arm, end="hold", patience=0.1) as second:
        assert not second.found.limp
        time.sleep(0.2)
        second.read()
    assert dogs(arm) == {0}
    for servo, seen in arm.look().items():
        # While its watchdog is let rest and before its goal is written, a servo goes for the old one.
        assert abs(seen["actual"] - stands[servo]) < 300
        assert abs(seen["goal"] - seen["position"]) <= 2


def test_watchdogs_that_an_earlier_program_left_bitten_are_let_rest_first(arm: Emulator) -> None:
    port = Port(arm.port)
    bus = Bus(port, 0.2, X)
    bus.broadcast(x.TORQUE, 1)
    bus.broadcast(x.WATCHDOG, 1)
    until(lambda: dogs(arm) == {X.bitten}, "the watchdogs sleep")
    bus.broadcast(x.TORQUE, 0)
    port.close()
    with metal(arm, patience=0.1):
        assert dogs(arm) == {0}
        assert arm.look()[6]["goal_current"] == 350


def test_safing_holds_also_servos_that_their_watchdogs_stopped(arm: Emulator) -> None:
    """One has an error, one is dead, and all were stopped."""
    port = Port(arm.port)
    bus = Bus(port, 0.1, X)
    try:
        bus.broadcast(x.TORQUE, 1)
        bus.broadcast(x.WATCHDOG, 1)
        until(lambda: dogs(arm) == {X.bitten}, "the watchdogs sleep")
        arm.fail(errors={2: 0x20}, dead=[4])
        goals = {s: int(seen["position"]) + 3 for s, seen in arm.look().items()}
        outcome = bus.safe(IDS, goals)
    finally:
        port.close()
    assert {s: bool(words) for s, words in outcome.items()} == {s: s == 4 for s in IDS}
    assert all(arm.look()[s]["goal"] == goals[s] for s in IDS if s != 4)


def test_a_joint_that_counts_another_turn_is_not_switched_on(arm: Emulator) -> None:
    motor = calibration.read(arm.calibration, KOCH)["elbow_flex"]
    arm.hand({3: 4096 + motor.range_min - motor.homing_offset})
    with pytest.raises(TaktError, match=r"elbow_flex \(id 3\) stands at .* counts another turn"), metal(arm):
        raise AssertionError("it was entered")
    assert writes(arm.heard()) == []
    arm.order(cut=3)  # as the line says
    with metal(arm, patience=0.1) as entered:
        joint = Joint.of("elbow_flex", motor, KOCH)
        assert entered.read().state[2] == pytest.approx(joint.lower, abs=1e-3)


def test_firmware_that_knows_no_fast_sync_read_is_asked_by_a_plain_one(arm: Emulator) -> None:
    arm.fail(old=[5])
    with drive(arm) as driven:
        driven.run(20)
        assert driven.state is State.RUNNING
        for _ in range(5):
            driven.run(1)
            assert driven.arm.traffic.retries == driven.arm.traffic.missing == 0
    check_bytes(arm, driven.arm)


def test_a_gripper_may_give_what_it_can_give_for_ever(arm: Emulator) -> None:
    """It holds something that does not yield for longer than a servo waits until it calls that overload."""
    with drive(arm) as driven:
        arm.fail(stuck=[6])
        shut = np.array([0, -0.9, 1.2, 0.8, 0, 1.3])
        begun = len(driven.poses)
        driven.until(lambda: len(driven.poses) > begun + 130, lambda now: shut)
        assert driven.state is State.RUNNING and not driven.arm.faults
        assert driven.guard.verdicts["derated"] == 0
        assert driven.arm.telemetry.current[5] == pytest.approx(0.35)
        seen = arm.look()[6]
        assert seen["goal_current"] == 350 and seen["mode"] == x.CURRENT_BASED


def test_an_elbow_gets_lerobots_gains(arm: Emulator) -> None:
    with metal(arm, patience=0.1):
        seen = arm.look()
    assert (seen[3]["p"], seen[3]["i"], seen[3]["d"]) == (1500, 0, 600)
    assert seen[4]["p"] == 400


@pytest.mark.parametrize("change", [{"mode": 3}, {"drive_mode": 1}, {"drive_mode": 8}], ids=str)
def test_a_servo_in_another_mode_is_refused_and_configured_when_asked(
    arm: Emulator, change: dict[str, int]
) -> None:
    ((name, value),) = change.items()
    port = Port(arm.port)
    bus = Bus(port, 0.2, X)
    with bus.configuring([3]):
        bus.write(3, X.table[name], value)
    port.close()
    with pytest.raises(TaktError, match=rf"elbow_flex \(id 3\): {name} {value}, not"), metal(arm):
        raise AssertionError("it was entered")
    with metal(arm, configure=True, patience=0.1):
        assert arm.look()[3][name] == calibration.settings("elbow_flex", motor(arm), KOCH)[X.table[name]]


def motor(arm: Emulator) -> Motor:
    return calibration.read(arm.calibration, KOCH)["elbow_flex"]


def test_an_arm_that_its_watchdogs_stopped_is_left_where_it_stands(arm: Emulator) -> None:
    """Its host hung while something held a joint: what was commanded last is not gone for when it leaves."""
    cal = calibration.read(arm.calibration, KOCH)
    pan = cal["shoulder_pan"].id
    with Arm(arm.port, cal, body=KOCH) as driven:
        guard = Guard(driven.spec)
        arm.fail(stuck=[pan])
        for _ in range(20):
            seen = driven.read()
            target = seen.state.astype(float)
            target[0] += 0.5
            driven.write(guard(target, seen, time.monotonic()))
            time.sleep(0.03)
        until(lambda: dogs(arm) == {X.bitten}, "the watchdogs sleep")
        arm.fail()
        before = {servo: seen["position"] for servo, seen in arm.look().items()}
    time.sleep(0.3)
    after = {servo: seen["position"] for servo, seen in arm.look().items()}
    assert all(abs(after[servo] - before[servo]) <= 8 for servo in before), "0.012 rad"
    assert {seen["torque"] for seen in arm.look().values()} == {1}
