"""Emulated X series servos under a clock of the test's own: what they refuse, watchdog, shutdown."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robot_io import dynamixel, registers
from robot_io import xseries as x
from robot_io.dynamixel import ALERT, BROADCAST, Decoder, Instruction, Packet
from robot_io.emulated_line import Faults, Line
from robot_io.emulated_shaft import STEP
from robot_io.emulated_x import FIRMWARE, PATIENT, XServo
from robot_io.family import Model

RANGE, LENGTH, LIMIT, ACCESS = 4, 5, 6, 7


def servo(at: float = 2048, model: Model = x.XL330_M288, **settings: int) -> XServo:
    held = {x.TABLE[name]: value for name, value in settings.items()}
    return XServo(1, at, 0.0, {x.RETURN_DELAY: 0, x.MODE: x.EXTENDED} | held, model)


def put(each: XServo, register: registers.Register, value: int, now: float = 0.0) -> int:
    """Write one value; the error byte."""
    data = register.address.to_bytes(2, "little") + register.encode(value)
    answer = each.answer(Packet(each.id, Instruction.WRITE, data), now)
    assert answer is not None and answer.data == b""
    return answer.error


def on(each: XServo, now: float = 0.0) -> None:
    assert put(each, x.TORQUE, 1, now) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4095), st.integers(0, 400), st.integers(0, 300), st.sampled_from([3, 4, 5]))
def test_motion_keeps_to_its_profile_and_arrives(goal: int, quick: int, speed: int, mode: int) -> None:
    each = servo(mode=mode)
    on(each)
    put(each, x.PROFILE_ACCELERATION, quick)
    put(each, x.PROFILE_VELOCITY, speed)
    assert put(each, x.GOAL, goal) == 0
    before, now = 0.0, 0.0
    fastest = x.PROFILE_VELOCITY.si(speed) / registers.RAD if speed else each.fastest
    change = x.PROFILE_ACCELERATION.si(quick) / registers.RAD * STEP
    while now < 1.0:
        now += STEP
        each.advance(now + 1e-9)
        assert abs(each.velocity) <= min(fastest, each.fastest) + 1e-6
        if quick and each.velocity:
            assert abs(each.velocity - before) <= change + 1e-6
        before = each.velocity
    if not speed and not quick:
        each.advance(2.0)
        assert each.position == pytest.approx(goal, abs=1)


def test_what_it_says_is_its_place_plus_the_homing_offset_turned_round_by_the_drive_mode() -> None:
    each = servo(2000, homing_offset=-50)
    assert each.position == 1950
    on(each)
    put(each, x.GOAL, 2100)
    each.advance(1.0)
    assert each.actual == pytest.approx(2150, abs=1)
    turned = servo(2000, homing_offset=-50, drive_mode=1)
    assert turned.position == -2050
    on(turned)
    put(turned, x.GOAL, -2000)
    turned.advance(1.0)
    assert turned.actual == pytest.approx(1950, abs=1)


def test_turns_are_counted_from_where_its_power_came_on() -> None:
    each = servo(3000, homing_offset=100)
    each.actual = 5000
    assert each.position == 5100
    each.power_up(1.0)
    assert each.position == 5000 - 4096 + 100
    on(each, 1.0)
    put(each, x.GOAL, 900, 1.0)
    each.advance(2.0)
    assert each.actual == pytest.approx(4096 + 800, abs=1)


@pytest.mark.parametrize(
    ("mode", "goal", "error"),
    [(3, 1000, LIMIT), (3, 3001, LIMIT), (3, 3000, 0), (4, 6000, 0), (4, -6000, 0), (5, 6000, 0)],
)
def test_goals_beyond_its_limits_are_refused_in_position_mode_alone(mode: int, goal: int, error: int) -> None:
    each = servo(mode=mode, min_position=1500, max_position=3000)
    assert put(each, x.GOAL, goal) == error
    assert (each.get(x.GOAL) == goal) == (error == 0)


def test_goals_beyond_256_turns_are_out_of_range() -> None:
    data = x.GOAL.address.to_bytes(2, "little") + (x.TURNS + 1).to_bytes(4, "little", signed=True)
    answer = servo().answer(Packet(1, Instruction.WRITE, data), 0.0)
    assert answer is not None and answer.error == RANGE


@pytest.mark.parametrize(
    ("register", "value"), [(x.HOMING_OFFSET, 5), (x.MODE, 3), (x.RETURN_DELAY, 3), (x.MAX_POSITION, 3)]
)
def test_eeprom_is_closed_while_the_torque_is_on(register: registers.Register, value: int) -> None:
    each = servo()
    on(each)
    before = each.get(register)
    assert put(each, register, value) == ACCESS and each.get(register) == before
    put(each, x.TORQUE, 0)
    assert put(each, register, value) == 0
    each.power_up(1.0)
    assert each.get(register) == value


def test_what_is_read_only_stays_and_half_a_register_is_too_short() -> None:
    each = servo()
    for register in (x.MODEL, x.FIRMWARE, x.HARDWARE_ERROR, x.POSITION, x.TEMPERATURE):
        assert put(each, register, 1) == ACCESS
    answer = each.answer(Packet(1, Instruction.WRITE, b"\x74\x00\x01\x02"), 0.0)
    assert answer is not None and answer.error == LENGTH
    answer = each.answer(Packet(1, Instruction.READ, b"\xf0\x00\x40\x00"), 0.0)
    assert answer is not None and answer.error == ACCESS


@pytest.mark.parametrize(("level", "answers"), [(0, "ping"), (1, "ping read"), (2, "ping read write")])
def test_it_answers_as_its_status_level_says(level: int, answers: str) -> None:
    each = servo()
    put(each, x.STATUS_LEVEL, level)
    asked = {
        "ping": Packet(1, Instruction.PING),
        "read": Packet(1, Instruction.READ, b"\x84\x00\x04\x00"),
        "write": Packet(1, Instruction.WRITE, b"\x41\x00\x01"),
    }
    assert " ".join(n for n, packet in asked.items() if each.answer(packet, 0.0) is not None) == answers


def test_its_watchdog_stops_it_and_lets_no_goal_in_until_it_rests() -> None:
    each = servo()
    on(each)
    put(each, x.GOAL, 30_000)
    assert put(each, x.WATCHDOG, 5) == 0  # 100 ms
    for tenth in range(1, 10):
        each.hear(0.09 * tenth)
        assert not each.bitten and each.velocity > 0
    each.advance(1.5)
    assert each.bitten and each.get(x.WATCHDOG) == -1
    stopped = each.actual
    # It went on for 100 ms after the last word, and not a step more.
    assert stopped == pytest.approx(2048 + each.fastest * 0.91, rel=0.1)
    each.advance(3.0)
    assert each.actual == stopped and each.get(x.TORQUE) == 1
    assert put(each, x.GOAL, 100, 3.0) == RANGE
    assert put(each, x.WATCHDOG, 0, 3.0) == 0
    assert put(each, x.GOAL, round(stopped), 3.0) == 0
    each.advance(4.0)
    assert each.actual == pytest.approx(stopped, abs=1)


def test_a_watchdog_watches_only_while_the_torque_is_on() -> None:
    each = servo()
    put(each, x.WATCHDOG, 1)
    each.advance(5.0)
    assert not each.bitten


def test_overload_shuts_it_down_until_it_is_started_anew() -> None:
    each = servo()
    on(each)
    put(each, x.GOAL, 3000)
    each.stuck = True
    each.advance(PATIENT - 0.1)
    assert each.get(x.TORQUE) == 1
    each.advance(PATIENT + 0.1)
    each.say()
    assert (each.get(x.TORQUE), each.get(x.HARDWARE_ERROR)) == (0, 0x20)
    assert put(each, x.TORQUE, 1, PATIENT + 0.2) == ALERT | 1
    assert each.get(x.TORQUE) == 0
    each.answer(Packet(1, Instruction.REBOOT), 3.0)
    assert put(each, x.TORQUE, 1, 3.1) == 0


def test_a_gripper_gives_what_its_goal_current_says() -> None:
    each = servo(mode=x.CURRENT_BASED)
    on(each)
    assert put(each, x.GOAL_CURRENT, 1751) == LIMIT
    put(each, x.GOAL_CURRENT, 350)
    put(each, x.GOAL, 3000)
    each.stuck = True
    each.advance(1.9)
    each.advance(3.8)
    each.say()
    assert each.get(x.EFFORT) == 350 and each.get(x.HARDWARE_ERROR) == 0


@pytest.mark.parametrize(("model", "bit"), [(x.XL430_W250, False), (x.XL330_M288, True)])
def test_a_wrong_supply_switches_off_those_whose_shutdown_says_so(model: Model, bit: bool) -> None:
    each = servo(model=model)
    on(each)
    each.supply = 3.0
    each.say()
    assert each.get(x.HARDWARE_ERROR) == 0x01 and (each.get(x.TORQUE) == 0) == bit


def test_a_change_of_mode_sets_gains_and_current_anew() -> None:
    each = servo()
    put(each, x.P, 1500)
    put(each, x.GOAL_CURRENT, 100)
    put(each, x.MODE, x.CURRENT_BASED)
    assert (each.get(x.P), each.get(x.GOAL_CURRENT)) == (400, 1750)


def line() -> Line:
    held = {x.RETURN_DELAY: 10, x.MODE: x.EXTENDED}
    return Line([XServo(i, 2048.0 + i, 0.0, held, x.XL330_M288) for i in (1, 2, 3)], seed=5)


def sent(out: list[tuple[float, bytes]]) -> list[Packet]:
    return Decoder().feed(b"".join(piece for _, piece in out))


def test_a_broadcast_ping_is_answered_by_all_and_a_broadcast_write_by_none() -> None:
    answers = sent(line().receive(dynamixel.ping(BROADCAST), 0.0))
    assert [(p.id, p.data) for p in answers] == [(i, b"\xb0\x04" + bytes((FIRMWARE,))) for i in (1, 2, 3)]
    assert sent(line().receive(dynamixel.write(BROADCAST, 64, b"\x01"), 0.0)) == []
    assert sent(line().receive(dynamixel.sync_write(116, {1: bytes(4)}), 0.0)) == []


def test_a_registered_write_waits_for_the_action_and_an_action_without_one_is_an_error() -> None:
    bus = line()
    goal = dynamixel.encode(Packet(2, Instruction.REG_WRITE, b"\x74\x00\x10\x00\x00\x00"))
    bus.receive(goal, 0.0)
    assert bus.servos[1].get(x.GOAL) == 2050
    assert sent(bus.receive(dynamixel.encode(Packet(2, Instruction.ACTION)), 0.0))[0].error == 0
    assert bus.servos[1].get(x.GOAL) == 16
    assert sent(bus.receive(dynamixel.encode(Packet(2, Instruction.ACTION)), 0.0))[0].error == 2
    assert sent(bus.receive(dynamixel.encode(Packet(2, 0x77)), 0.0))[0].error == 2


def test_answers_come_at_the_lines_speed_each_after_its_return_delay() -> None:
    request = dynamixel.sync_read((3, 1, 2), 132, 4)
    out = line().receive(request, 1.0)
    assert [p.id for p in sent(out)] == [3, 1, 2]
    apart = [(len(request) + 15 * n) * 10e-6 + n * 20e-6 for n in (1, 2, 3)]
    assert [when - 1.0 for when, _ in out] == pytest.approx(apart)


def test_a_fast_sync_read_is_one_packet_up_to_the_servo_that_is_dead() -> None:
    request = dynamixel.fast_sync_read((3, 1, 2), 132, 4)
    (together,) = sent(line().receive(request, 0.0))
    said = dynamixel.shares(together, 4)
    assert said is not None and [p.id for p in said] == [3, 1, 2]
    assert [int.from_bytes(p.data, "little") for p in said] == [2051, 2049, 2050]
    bus = line()
    bus.fail(Faults(dead=[1]))
    out = bus.receive(request, 0.0)
    assert len(out) == 1 and sent(out) == []


def test_every_word_on_the_line_keeps_every_watchdog_quiet() -> None:
    bus = line()
    for each in (x.TORQUE.address, x.WATCHDOG.address):
        bus.receive(dynamixel.write(BROADCAST, each, b"\x01" if each == 64 else b"\x05"), 0.0)
    for tick in range(1, 20):
        bus.receive(dynamixel.ping(1), 0.09 * tick)
    bus.advance(1.75)
    assert not any(each.bitten for each in bus.servos)
    bus.advance(2.0)
    assert all(each.bitten for each in bus.servos)


@pytest.mark.parametrize("fault", ["drop", "corrupt", "truncate", "noise", "late"])
def test_faults_are_those_of_the_seed(fault: str) -> None:
    def play(**faults: float) -> list[tuple[float, bytes]]:
        bus = line()
        bus.fail(Faults(**faults))  # type: ignore[arg-type]
        request = dynamixel.fast_sync_read((1, 2, 3), 132, 4)
        return [each for i in range(20) for each in bus.receive(request, float(i))]

    assert play(**{fault: 0.5}) == play(**{fault: 0.5})
    assert play(**{fault: 0.5}) != play()


@settings(deadline=None)
@example(b"\0\0\0\x80\0\0", Instruction.FAST_SYNC_READ, 1)
@given(st.binary(max_size=60), st.integers(0, 255), st.sampled_from([1, BROADCAST]))
def test_no_bytes_break_it(noise: bytes, code: int, servo: int) -> None:
    bus = line()
    bus.receive(noise, 0.0)
    if code != Instruction.STATUS:
        bus.receive(dynamixel.encode(Packet(servo, code, noise)), 0.1)
    bus.advance(0.2)
