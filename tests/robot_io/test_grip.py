"""A gripper is strong for a moment and gentle for ever: a servo that protects itself never has to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_io import grip
from robot_io import registers as r
from robot_io.bodies import KOCH, SO101
from robot_io.emulator import Emulator
from robot_io.grip import EASES, PRESSES, REPEAT, TRAVELS, Grip
from robot_io.health import NEARLY, STANDS, STRAIN, Rated
from runtime.so101 import METAL, SIMULATION
from tests.robot_io.driving import check_bytes, drive, writes

RATED = Rated(load=0.25, most=0.5)
TICK = 1 / 30
PROTECTS = 2.0  # s of overload until an STS3215 lets go
JAW = 5


def fresh(rated: Rated = RATED) -> Grip:
    """One that holds nothing, as two answers have said."""
    made = Grip(6, rated)
    for _ in range(EASES):
        made.felt(0.0, 0.0, -TICK)
    return made


def given_limit(made: Grip, wanted: float) -> float:
    """The load that a servo has which wants as much."""
    limit = made.lasting if made.pressing else made.most
    return float(np.clip(wanted, -limit, limit))


def test_before_the_arm_slows_down_it_is_gentle() -> None:
    assert PRESSES < STRAIN < TRAVELS < PROTECTS


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-5, 5)), max_size=400), st.floats(0.15, 0.4))
def test_a_servo_never_has_to_protect_itself(wanted: list[tuple[float, float]], overload: float) -> None:
    made = fresh(Rated(load=overload, most=0.5))
    strained = 0.0
    for i, (load, speed) in enumerate(wanted):
        has = given_limit(made, load)
        strained = strained + TICK if abs(has) >= overload else 0.0
        assert strained <= TRAVELS + 2 * TICK
        made.felt(has, speed, i * TICK)


@given(st.floats(0.3, 1.0), st.sampled_from([-1.0, 1.0]), st.integers(1, 200))
def test_what_it_holds_it_holds_gently_until_it_lets_go(load: float, side: float, ticks: int) -> None:
    made, now = fresh(), 0.0
    for _ in range(round(PRESSES / TICK) + 2 + ticks):
        made.felt(given_limit(made, side * load), 0.0, now)
        now += TICK
    assert made.pressing and made.due() == {6: round(1000 * NEARLY * 0.25)}
    for _ in range(EASES):
        assert made.pressing
        made.felt(given_limit(made, -side * load), 0.0, now)
    assert not made.pressing and made.due() == {6: 500}


@pytest.mark.parametrize("speed", [0.0, STANDS + 0.1], ids=["stands", "turns"])
def test_a_stroke_is_let_be_and_a_long_one_is_not(speed: float) -> None:
    made, limit = fresh(), PRESSES if speed == 0.0 else TRAVELS
    times = np.arange(0.0, 2.0, TICK)
    held = []
    for now in times:
        made.felt(given_limit(made, 0.5), speed, float(now))
        held.append(made.pressing)
    assert float(times[held.index(True)]) == pytest.approx(limit, abs=1.1 * TICK)
    assert all(held[held.index(True) :])


def test_what_nobody_answers_is_told_again() -> None:
    made = fresh()
    told = [bool(made.due()) for _ in range(4 * REPEAT)]
    assert told[0] and 4 <= sum(told) <= 5
    assert made.rest() == {6: round(1000 * NEARLY * 0.25)}


def test_only_where_there_is_more_for_a_moment() -> None:
    assert grip.of(KOCH, 6, {6: Rated()}) is None, "its current is limited, not its torque"
    assert grip.of(SO101, 6, {6: Rated(load=0.8, most=0.7)}) is None
    made = grip.of(SO101, 9, {9: RATED})
    assert made is not None and (made.servo, made.most) == (9, 0.5)


def test_what_is_not_known_is_taken_for_pressing() -> None:
    made = Grip(6, RATED)
    assert made.pressing and made.due() == {6: round(1000 * NEARLY * 0.25)}, "it may hold something"
    made = fresh()
    made.felt(0.5, 0.0, 0.0)
    made.missed(PRESSES / 2)
    assert not made.pressing
    made.missed(PRESSES)
    assert made.pressing and made.due() == {6: round(1000 * NEARLY * 0.25)}


def test_on_the_bus_it_is_strong_then_gentle_then_strong_and_gentle_at_the_end(arm: Emulator) -> None:
    away = np.array([0, -1.2, 1.2, 0.8, 0, 1.2])
    shut = np.where(np.arange(6) == JAW, 0.2, away)
    with drive(arm, end="hold") as driven:
        driven.until(lambda: abs(driven.poses[-1][1][JAW] - 1.2) < 0.05, lambda now: away)
        assert arm.look()[6]["torque_limit"] == 500
        arm.fail(stuck=[6])
        driven.until(lambda: arm.look()[6]["torque_limit"] < 500, lambda now: shut)
        driven.run(60, lambda now: shut)
        assert abs(arm.look()[6]["load"]) == round(1000 * NEARLY * 0.25)
        arm.fail(stuck=[])
        open_again = np.where(np.arange(6) == JAW, 1.5, away)
        driven.until(lambda: arm.look()[6]["torque_limit"] == 500, lambda now: open_again)
        assert not driven.arm.faults and driven.guard.verdicts["derated"] == 0
    assert arm.look()[6]["torque_limit"] == round(1000 * NEARLY * 0.25)
    check_bytes(arm, driven.arm)
    told = [w for w in writes(arm.heard()) if w.name == r.TORQUE_LIMIT.name]
    assert {w.servo for w in told} == {6}


@pytest.mark.parametrize(
    ("profile", "part", "keeps_up"),
    [(METAL, 0.5, True), (METAL, 0.225, False), (SIMULATION, 1.0, True), (SIMULATION, 0.225, False)],
)
def test_a_limit_on_torque_is_one_on_speed(profile: object, part: float, keeps_up: bool) -> None:
    """The reason for all of this, by MuJoCo: a jaw that is held to what it may give for ever is late."""
    pytest.importorskip("mujoco")
    from sim.plant import Table

    speed = METAL.velocity[JAW] if profile is METAL else SIMULATION.velocity[JAW]
    lead = METAL.lead if profile is METAL else SIMULATION.lead
    table, now = Table(0.0), 0.0
    pose = table.world.joints().astype(float)
    begin = pose[JAW]
    lag = []
    for _ in range(round(1.0 / speed / TICK)):  # 1 rad
        pose[JAW] += speed * TICK * (-1 if begin > 0.8 else 1)
        table.command(pose.tolist(), [1.0] * JAW + [part])
        now += TICK
        table.advance(now)
        lag.append(abs(float(table.world.joints()[JAW]) - pose[JAW]))
    assert bool(lag[-1] < lead) == keeps_up, lag
