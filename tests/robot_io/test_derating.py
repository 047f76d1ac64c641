"""A servo that is hot or strained slows the arm before it is a fault; the goals on the bus tell how much."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from robot_io import registers as r
from robot_io.emulator import Emulator
from robot_io.feetech import Error
from robot_io.health import NEARLY, RELIEF, SLOW, STRAIN, Health, Rated
from runtime import so101
from runtime.safety import SLOWEST, Filter, Limits
from runtime.so101 import METAL
from runtime.states import State
from tests.robot_io.driving import IDS, RATE, Write, check_bytes, drive

NAMES = {1: "one", 2: "two"}


def warmed(heat: float, limit: float = 70.0) -> float:
    made = Health(NAMES, {1: Rated(limit, 0.8), 2: Rated(90.0, 0.8)})
    made.felt(1, heat, 0.0, 0.0, 0.0)
    made.felt(2, 40.0, 0.0, 0.0, 0.0)
    return made.pace(0.0)


def test_the_hottest_servo_slows_the_arm_step_by_step() -> None:
    assert warmed(25.0) == warmed(60.0) == 1.0
    paces = [warmed(heat) for heat in range(60, 75)]
    assert all(a >= b for a, b in itertools.pairwise(paces))
    assert paces[4] == pytest.approx(SLOW + (1 - SLOW) * 0.5)
    assert paces[8:] == [SLOW] * 7
    assert warmed(60.0, limit=60.0) == SLOW, "its own limit counts"


def test_pressing_for_long_slows_the_arm_until_some_time_after() -> None:
    made = Health(NAMES)
    times = np.arange(0.0, STRAIN + 0.1, 0.02)
    paces = []
    for now in times:
        made.felt(1, 25.0, -0.79, 0.0, now)
        paces.append(made.pace(now))
    assert paces[0] == 1.0 and paces[-1] == SLOW
    assert float(times[paces.index(SLOW)]) == pytest.approx(STRAIN, abs=0.021)
    end = float(times[-1])
    made.felt(1, 25.0, 0.1, 0.0, end + 0.02)
    assert made.pace(end + RELIEF / 2) == SLOW and made.pace(end + RELIEF) == 1.0


@pytest.mark.parametrize(
    ("load", "speed"), [(0.79, 1.0), (NEARLY * 0.8, 0.0), (-NEARLY * 0.8, 0.0)], ids=["turns", "just", "so"]
)
def test_work_is_no_strain(load: float, speed: float) -> None:
    made = Health(NAMES)
    for now in np.arange(0.0, 3.0, 0.02):
        made.felt(1, 25.0, load, speed, now)
        assert made.pace(now) == 1.0


def test_the_first_error_bit_slows_and_a_dip_of_the_supply_does_not() -> None:
    made = Health(NAMES)
    made.heard(1, Error.OVERLOAD)
    assert made.pace(0.0) == SLOW and not made.faults()
    made.heard(1, Error.VOLTAGE)
    assert made.pace(0.0) == 1.0


@pytest.mark.parametrize("pace", [1.0, 0.5, 0.0, -1.0, float("nan"), 7.0])
def test_a_slowed_filter_brakes_as_it_may_and_then_keeps_the_pace(pace: float) -> None:
    limits = Limits.of(so101.spec((), profile=METAL))
    made, now, dt = Filter(limits), 0.0, 0.02
    far = limits.upper
    last, speed = made.start(limits.lower, now).position, np.zeros_like(limits.upper)
    for tick in range(30):
        now += dt
        command = made(far, last, now, 1.0 if tick < 12 else pace)
        after = (command - last) / dt
        assert (np.abs(after - speed) <= limits.acceleration * dt + 1e-9).all()
        last, speed = command, after
    part = min(1.0, max(SLOWEST, pace if pace == pace else SLOWEST))
    assert (np.abs(speed) <= part * limits.velocity + 1e-9).all()
    assert (made.verdicts["derated"] > 0) == (part < 1.0)


def fastest(told: list[Write], since: float, until: float) -> float:
    """Of all servos' goals in that time, over a fifth of a second each, rad/s."""
    found = 0.0
    goals = [w for w in told if w.name == "goal" and not w.alone and since <= w.time <= until]
    for servo in IDS:
        times, values = np.array([(w.time, w.value) for w in goals if w.servo == servo]).T
        for i, at in enumerate(times):
            j = int(np.searchsorted(times, at + 0.2))
            if j < len(times):
                found = max(found, abs(values[j] - values[i]) * r.RAD / (times[j] - at))
    return found


def test_a_servo_that_gets_hot_slows_the_arm_then_faults(arm: Emulator) -> None:
    with drive(arm) as driven:
        driven.run(60)
        warm = arm.order(faults={"heat": {6: 66.0}})["time"]
        driven.run(60)
        assert driven.state is State.RUNNING
        assert driven.guard.verdicts["derated"] >= 50
        hot = arm.order(faults={"heat": {6: 75.0}})["time"]
        driven.until(lambda: driven.state is State.FAULT)
        assert "gripper (id 6): overheat" in driven.told
    told = check_bytes(arm, driven.arm)
    share = SLOW + (1 - SLOW) * 2.0 / 8.0
    assert fastest(told, 0.0, warm) > 0.8 * METAL.velocity[0]
    # It brakes at first, and a busy machine bunches what it reads.
    assert fastest(told, warm + 0.4, hot) <= 1.4 * share * METAL.velocity[0]


def test_a_joint_that_is_blocked_slows_the_others_before_it_is_a_fault(arm: Emulator) -> None:
    with drive(arm) as driven:
        driven.run(10)
        arm.fail(stuck=[2])
        blocked = np.full(6, 1.2)

        def others(now: float) -> np.ndarray:
            return np.where(np.arange(6) == 1, blocked, 1.0 * np.sin(3.0 * now))

        driven.until(lambda: driven.guard.verdicts["derated"] > 20, others)
        assert driven.state is State.RUNNING
        driven.until(lambda: driven.state is State.FAULT, others)
        assert "shoulder_lift (id 2): overload" in driven.told
    check_bytes(arm, driven.arm)


def test_a_gripper_may_give_what_it_can_give_for_ever(arm: Emulator) -> None:
    """It holds something that does not yield, and neither its servo nor the arm minds."""
    with drive(arm) as driven:
        arm.fail(stuck=[6])
        shut = np.array([0, -1.2, 1.2, 0.8, 0, 1.0])
        begun = len(driven.poses)
        driven.until(lambda: len(driven.poses) > begun + 170, lambda now: shut)
        assert driven.state is State.RUNNING and not driven.arm.faults
        assert driven.guard.verdicts["derated"] == 0
        seen = arm.look()[6]
        assert seen["torque_limit"] == round(NEARLY * 250)
        assert abs(seen["load"]) == round(NEARLY * 250)
    assert 170 / RATE > 3.0, "longer than a servo waits until it protects itself"
