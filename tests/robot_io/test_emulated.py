"""Emulated servos under a clock of the test's own: motion within limits, protection, power, determinism."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_io import feetech
from robot_io import registers as r
from robot_io.emulated import FASTEST, Servo
from robot_io.emulated_line import Faults, Line
from robot_io.emulated_shaft import STEP
from robot_io.feetech import BROADCAST, Decoder, Error, Instruction, Packet


def servo(at: float = 2048, **settings: int) -> Servo:
    return Servo(1, at, 0.0, {r.TABLE[name]: value for name, value in settings.items()})


def put(each: Servo, register: r.Register, value: int, now: float) -> Packet | None:
    line = bytes((register.address,)) + value.to_bytes(register.size, "little")
    return each.answer(Packet(each.id, Instruction.WRITE, line), now)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4095), st.integers(0, 254), st.integers(0, 4000))
def test_motion_keeps_to_its_speed_and_acceleration_and_arrives(goal: int, quick: int, speed: int) -> None:
    each = servo()
    for register, value in ((r.ACCELERATION, quick), (r.GOAL_SPEED, speed), (r.GOAL, goal), (r.TORQUE, 1)):
        put(each, register, value, 0.0)
    before, now = 0.0, 0.0
    limit = min(speed or FASTEST, FASTEST)
    while now < 1.0:
        now += STEP
        each.advance(now + 1e-9)
        assert abs(each.velocity) <= limit + 1e-6
        if quick and each.velocity:
            assert abs(each.velocity - before) <= quick * 100 * STEP + 1e-6
        before = each.velocity
    if not speed and quick > 200:
        each.advance(2.0)
        assert each.position == pytest.approx(goal, abs=1)


def test_its_own_range_keeps_goals_in() -> None:
    each = servo(min_position=1500, max_position=2500)
    put(each, r.GOAL, 4000, 0.0)
    put(each, r.TORQUE, 1, 0.0)
    each.advance(1.9)
    assert each.position == pytest.approx(2500, abs=1)


def test_the_homing_offset_moves_what_it_says_and_what_it_is_told() -> None:
    each = servo(2000, homing_offset=-50)
    assert each.position == 2050
    put(each, r.GOAL, 2100, 0.0)
    put(each, r.TORQUE, 1, 0.0)
    each.advance(1.0)
    assert each.actual == pytest.approx(2050, abs=1)


def test_torque_at_128_moves_the_middle() -> None:
    each = servo(1000)
    put(each, r.TORQUE, 128, 0.0)
    assert each.position == 2048


def test_a_shaft_that_is_held_overloads_and_switching_anew_clears_it() -> None:
    each = servo()
    put(each, r.GOAL, 3000, 0.0)
    put(each, r.TORQUE, 1, 0.0)
    each.stuck = True
    each.advance(1.9)
    each.say()
    assert each.get(r.LOAD) == 1000 and not each.get(r.STATUS)
    each.advance(2.5)
    each.advance(2.6)
    each.say()
    assert each.get(r.STATUS) == Error.OVERLOAD
    assert each.get(r.LOAD) == 200  # the protective torque
    answer = put(each, r.TORQUE, 0, 2.7)
    assert answer == Packet(1, 0)


def test_heat_and_supply_beyond_the_limits_are_error_bits() -> None:
    each = servo()
    each.heat, each.supply = 71.0, 3.9
    each.say()
    assert each.get(r.STATUS) == Error.OVERHEAT | Error.VOLTAGE
    assert (each.get(r.TEMPERATURE), each.get(r.VOLTAGE)) == (71, 39)


def test_a_power_cut_switches_off_and_forgets_what_was_not_saved() -> None:
    each = servo()
    put(each, r.P, 20, 0.0)  # locked
    put(each, r.LOCK, 0, 0.0)
    put(each, r.I, 3, 0.0)
    put(each, r.TORQUE, 1, 0.0)
    each.power_up(1.0)
    assert (each.get(r.P), each.get(r.I), each.get(r.TORQUE), each.get(r.LOCK)) == (32, 3, 0, 1)


def test_what_is_read_only_stays() -> None:
    each = servo()
    put(each, r.MODEL, 5, 0.0)
    put(each, r.POSITION, 5, 0.0)
    assert each.get(r.MODEL) == r.STS3215
    assert each.position == 2048


def line() -> Line:
    return Line([Servo(i, 2048.0 + i, 0.0, {}) for i in (1, 2, 3)], seed=5)


def sent(out: list[tuple[float, bytes]]) -> list[Packet]:
    return Decoder().feed(b"".join(piece for _, piece in out))


def test_a_broadcast_ping_is_answered_by_all_and_a_broadcast_write_by_none() -> None:
    assert [p.id for p in sent(line().receive(feetech.ping(BROADCAST), 0.0))] == [1, 2, 3]
    assert sent(line().receive(feetech.write(BROADCAST, 40, b"\x01"), 0.0)) == []
    assert sent(line().receive(feetech.sync_write(42, {1: b"\x00\x08"}), 0.0)) == []


def test_a_registered_write_waits_for_the_action() -> None:
    bus = line()
    bus.receive(feetech.reg_write(2, 42, b"\x10\x00"), 0.0)
    assert bus.servos[1].get(r.GOAL) == 2050
    bus.receive(feetech.action(), 0.0)
    assert bus.servos[1].get(r.GOAL) == 16


def test_answers_come_one_after_the_other_at_the_lines_speed() -> None:
    request = feetech.sync_read((3, 1, 2), 56, 15)
    out = line().receive(request, 1.0)
    assert [p.id for p in sent(out)] == [3, 1, 2]
    times = [when - 1.0 for when, _ in out]
    assert times == pytest.approx([(len(request) + 21 * n) * 10e-6 for n in (1, 2, 3)])


@pytest.mark.parametrize("fault", ["drop", "corrupt", "truncate", "noise", "late"])
def test_faults_are_those_of_the_seed(fault: str) -> None:
    def play() -> list[tuple[float, bytes]]:
        bus = line()
        bus.fail(Faults(**{fault: 0.5}))
        return [
            each for i in range(20) for each in bus.receive(feetech.sync_read((1, 2, 3), 56, 2), float(i))
        ]

    assert play() == play()
    whole = [
        each for i in range(20) for each in line().receive(feetech.sync_read((1, 2, 3), 56, 2), float(i))
    ]
    assert play() != whole


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_break_it(noise: bytes) -> None:
    bus = line()
    bus.receive(noise, 0.0)
    framed = feetech.encode(Packet(BROADCAST, noise[0] if noise else 1, noise[1:]))
    bus.receive(framed, 0.1)
    bus.advance(0.2)
