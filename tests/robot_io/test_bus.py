"""The bus against emulated servos on a pseudo-terminal: what comes back, what goes out, what is refused."""

from __future__ import annotations

import os
import random
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_io import feetech
from robot_io import registers as r
from robot_io.bus import Bus
from robot_io.emulator import Emulator
from robot_io.family import Family
from robot_io.feetech import Packet
from robot_io.packets import Answer, Answers, Echo
from robot_io.port import Port, PortGone
from robot_io.sts import STS
from robot_io.xseries import X
from tests.robot_io.driving import writes
from vla.contract import TaktError

IDS = tuple(range(1, 7))


@pytest.fixture(params=["so101", "koch"])
def robot(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def feedback(bus: Bus) -> dict[int, Answer]:
    return bus.read(IDS, *bus.family.feedback)


def told(bus: Bus, answer: Answer) -> dict[str, int]:
    """What is in a servo's feedback, by register."""
    start, size = bus.family.feedback
    inside = [each for each in bus.family.table.values() if start <= each.address < start + size]
    return {each.name: r.pick(each, answer.data, start) for each in inside}


def test_all_feedback_of_all_servos_in_one_request(bus: Bus, arm: Emulator) -> None:
    answers = feedback(bus)
    seen = arm.look()
    assert list(answers) == list(IDS)
    for servo, answer in answers.items():
        assert answer.error == 0
        said = told(bus, answer)
        assert {"position", "velocity", "voltage", "temperature"} < set(said)
        assert said == {name: seen[servo][name] for name in said}
    traffic = bus.take()
    assert (traffic.requests, traffic.retries, traffic.missing, traffic.noise) == (1, 0, 0, 0)
    assert (traffic.sent, traffic.received) == {"STS": (14, 6 * 21), "X series": (20, 158)}[bus.family.name]
    assert bus.take().requests == 0 and bus.total.requests == 1


def test_a_goal_moves_a_servo_that_is_switched_on(bus: Bus, arm: Emulator) -> None:
    before = arm.look()
    goals = {servo: int(before[servo]["position"]) + 50 for servo in IDS}
    bus.sync_write(bus.family.goal, goals)
    time.sleep(0.1)
    assert [arm.look()[s]["position"] for s in IDS] == [before[s]["position"] for s in IDS]
    bus.broadcast(bus.family.torque, r.ON)
    end = time.monotonic() + 10
    while any(abs(arm.look()[s]["position"] - goals[s]) > 1 for s in IDS):
        assert time.monotonic() < end, arm.look()


@pytest.mark.parametrize(
    ("family", "register"),
    [(family, each) for family in (STS, X) for each in family.table.values() if each.eprom],
    ids=lambda x: x.name,
)
def test_eprom_is_not_written_while_running(family: Family, register: r.Register) -> None:
    class NoPort:
        def send(self, line: bytes, deadline: float) -> None:
            raise AssertionError("it reached the line")

    bus = Bus(NoPort(), family=family)  # type: ignore[arg-type]
    with pytest.raises(TaktError, match=register.name):
        bus.write(1, register, 0)
    if family.lock is not None:
        with pytest.raises(TaktError, match="lock"):
            bus.broadcast(family.lock, 0)
    with pytest.raises(ValueError, match="torque"):
        bus.broadcast(family.torque, 128)


def test_settings_are_written_with_the_torque_off_and_survive_a_power_cut(bus: Bus, arm: Emulator) -> None:
    torque, setting = bus.family.torque, bus.family.table["max_temperature"]
    bus.write(3, torque, r.ON)
    with pytest.raises(TaktError, match="servo 3 is not switched off"), bus.configuring([3]):
        raise AssertionError("it was let in")
    bus.write(3, torque, r.OFF)
    with bus.configuring([3]):
        bus.write(3, setting, 60)
    assert arm.look()[3].get("lock", 1) == 1
    arm.order(cut=3)
    assert bus.value(3, setting) == 60
    with pytest.raises(TaktError, match="register 'max_temperature'"):
        bus.write(3, setting, 61)


def test_error_bits_are_kept(bus: Bus, arm: Emulator) -> None:
    arm.fail(errors={2: 0x20})
    said = bus.family.alert or 0x20  # an X series servo says that there is something, register 70 what
    assert {s: answer.error for s, answer in feedback(bus).items()} == {s: said * (s == 2) for s in IDS}
    assert bus.value(2, bus.family.error) == 0x20


def test_a_dead_servo_costs_the_others_nothing(arm: Emulator) -> None:
    arm.fail(dead=[4])
    port = Port(arm.port)
    try:
        bus = Bus(port, 0.1, arm.body.family)
        begun = time.monotonic()
        assert sorted(feedback(bus)) == [1, 2, 3, 5, 6]
        assert time.monotonic() - begun >= 0.2  # asked twice, as long as patience lasts
        traffic = bus.take()
        if bus.family.alert == 0:
            assert (traffic.retries, traffic.missing) == (1, 2)
        else:  # a fast sync read fails as a whole, a sync read from the dead one on, and those behind it come
            assert (traffic.retries, traffic.missing) == (1, 6 + 3)
        for _ in range(2):
            assert sorted(feedback(bus)) == [1, 2, 3, 5, 6]
        bus.take()
        for _ in range(8):
            assert sorted(feedback(bus)) == [1, 2, 3, 5, 6]
        assert bus.take().missing <= (16 if bus.family.alert == 0 else 2), "it is asked now and then"
        arm.fail()
        for _ in range(4):
            found = feedback(bus)
        assert sorted(found) == [1, 2, 3, 4, 5, 6], "and comes back when it does"
    finally:
        port.close()


@pytest.mark.parametrize("fault", ["drop", "corrupt", "truncate", "noise"])
def test_a_bad_line_never_gives_a_wrong_number(bus: Bus, arm: Emulator, fault: str) -> None:
    """What is accepted is what a servo said; the vendor's own code takes zeros for a servo that is silent."""
    bus.patience = 0.03
    true = {servo: seen["position"] for servo, seen in arm.look().items()}
    arm.fail(**{fault: 0.3})
    counted = 0
    for _ in range(12):
        for servo, answer in feedback(bus).items():
            said = told(bus, answer)
            assert (said["position"], said["temperature"]) == (true[servo], 25)
            counted += 1
    assert counted > 36
    traffic = bus.take()
    assert traffic.noise if fault == "noise" else traffic.retries


def test_late_answers_are_never_taken_for_another_register(bus: Bus, arm: Emulator) -> None:
    """With the vendor's code one answer that is 80 ms late makes a position a temperature."""
    bus.patience = 0.03
    true = {servo: seen["position"] for servo, seen in arm.look().items()}
    arm.fail(late=0.4, delay=0.045)
    heats, places = 0, 0
    for i in range(24):
        servo = IDS[i % 6]
        heat, place = bus.value(servo, bus.family.temperature), bus.value(servo, bus.family.position)
        assert heat in (None, 25) and place in (None, true[servo])
        heats, places = heats + (heat is not None), places + (place is not None)
    assert heats and places


def test_what_an_adapter_echoes_is_no_answer(bus: Bus, arm: Emulator) -> None:
    arm.fail(echo=True)
    assert sorted(feedback(bus)) == list(IDS)
    answer = bus.write(1, bus.family.torque, r.ON)
    assert answer is not None and (answer.id, answer.error) == (1, 0)
    assert bus.value(1, bus.family.torque) == r.ON
    traffic = bus.take()
    assert traffic.echoed == {"STS": 14 + 8 + 9, "X series": 20 + 13 + 15}[bus.family.name]
    assert traffic.noise == 0 and traffic.retries == 0


@pytest.mark.parametrize("goals", [None, {servo: 2000 + servo for servo in IDS}], ids=["off", "hold"])
def test_safing_visits_every_servo_whatever_the_others_do(
    bus: Bus, arm: Emulator, goals: dict[int, int] | None
) -> None:
    """One in overload, one dead, one that hears and does not answer."""
    family = bus.family
    bus.broadcast(family.torque, r.ON)
    bus.patience = 0.1
    arm.fail(errors={2: 0x20}, dead=[4], mute=[5])
    begun = time.monotonic()
    outcome = bus.safe(IDS, goals)
    assert time.monotonic() - begun < len(IDS) * 5 * bus.patience + 2.0
    assert {servo: bool(words) for servo, words in outcome.items()} == {s: s in (4, 5) for s in IDS}
    register, wanted = (family.torque, dict.fromkeys(IDS, 0)) if goals is None else (family.goal, goals)
    seen = arm.look()
    assert all(seen[s][register.name] == wanted[s] for s in IDS if s != 4)
    heard = [w for w in writes(arm.heard())[1:] if w.name != "watchdog"]
    first = [w for w in heard if not w.alone]
    assert heard[: len(first)] == first  # to all before each by itself
    assert {w.servo for w in first} == ({0xFE} if goals is None else set(IDS))
    assert {w.servo for w in heard if w.alone} == set(IDS)
    assert {w.name for w in heard} == {register.name}


def test_safing_does_not_raise_when_the_line_is_gone(bus: Bus, arm: Emulator) -> None:
    arm.order(unplug=True)
    told = bus.safe(IDS)
    assert sorted(told) == list(IDS) and all("gone" in words for words in told.values())
    with pytest.raises(PortGone):
        feedback(bus)


def test_a_line_has_one_owner(bus: Bus, arm: Emulator) -> None:
    with pytest.raises(TaktError, match="in use by another program"):
        Port(arm.port)
    bus.port.close()
    Port(arm.port).close()


@pytest.mark.parametrize(
    ("path", "says"), [("/dev/nothing-here", "is the adapter plugged in"), ("/dev/null", "not a serial line")]
)
def test_ports_that_cannot_be_used_are_one_line(path: str, says: str) -> None:
    with pytest.raises(TaktError, match=says):
        Port(path)


def test_a_file_is_no_port(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("")
    with pytest.raises(TaktError, match="not a serial line"):
        Port(str(tmp_path / "port"))


@pytest.fixture
def pair() -> Iterator[tuple[int, Port]]:
    master, slave = os.openpty()
    port = Port(os.ttyname(slave))
    os.close(slave)
    yield master, port
    port.close()
    os.close(master)


def test_what_came_before_a_request_is_no_answer_to_it(pair: tuple[int, Port]) -> None:
    """A full, valid, stale answer lies there already."""
    master, port = pair
    os.write(master, feetech.encode(Packet(1, 0, b"\xd1\x07")))
    bus = Bus(port, 0.05)
    assert bus.read([1], 56, 2) == {}


def test_bytes_of_every_value_pass_unchanged(pair: tuple[int, Port]) -> None:
    master, port = pair
    line = bytes(range(256)) * 4
    os.set_blocking(master, True)
    got = bytearray()

    def drain() -> None:
        while len(got) < len(line):
            got.extend(os.read(master, 4096))

    reader = threading.Thread(target=drain)
    reader.start()
    port.send(line, time.monotonic() + 5)
    reader.join(10)
    assert bytes(got) == line
    os.write(master, line)
    back = bytearray()
    while len(back) < len(line) and (piece := port.receive(time.monotonic() + 5)):
        back += piece
    assert bytes(back) == line


@given(st.lists(st.integers(1, 7), max_size=14))
def test_answers_are_those_of_one_round_in_turn(order: list[int]) -> None:
    """Whatever comes in which order: nobody counts twice, and nobody counts who came before his turn."""
    answers = Answers(IDS)
    for i, servo in enumerate(order):
        if answers.complete:
            break
        answers.take(Packet(servo, 0, bytes((i,))))
    places = [answers.found[servo].data[0] for servo in IDS if servo in answers.found]
    assert places == sorted(places)
    assert all(order[: len(order)].count(s) >= 1 for s in answers.found)


def test_an_old_answer_of_the_last_servo_does_not_end_a_round() -> None:
    answers = Answers(IDS)
    for servo in (6, 1, 2, 3, 4, 5):
        answers.take(Packet(servo, 0, b"old" if servo == 6 else b"new"))
    assert not answers.complete
    answers.take(Packet(6, 0, b"new"))
    assert answers.complete and answers.found[6].data == b"new"


@given(st.binary(min_size=8, max_size=8), st.randoms(use_true_random=False))
def test_an_echo_is_stripped_however_it_is_cut(answer: bytes, chance: random.Random) -> None:
    line = feetech.sync_read(IDS, 56, 15)
    whole = line + b"\xff\xff\x01" + answer
    cut = chance.randrange(len(whole))
    echo = Echo(line)
    assert echo.strip(whole[:cut]) + echo.strip(whole[cut:]) == whole[len(line) :]
    plain = Echo(line)
    assert plain.strip(whole[len(line) :][:2]) + plain.strip(whole[len(line) :][2:]) == whole[len(line) :]


@pytest.mark.parametrize(
    "error", [OSError(71, "Protocol error"), termios.error(25, "no ioctl"), KeyError("x")]
)
def test_making_safe_visits_every_servo_whatever_is_raised(
    bus: Bus, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def broken(*_: object) -> int:
        tried.append(1)
        raise error

    monkeypatch.setattr("robot_io.port.os.write", broken)
    outcome = bus.safe(IDS)
    assert list(outcome) == list(IDS) and all(outcome.values())
    assert len(tried) == 1 + len(IDS) + (bus.family.watchdog is not None)
    if not isinstance(error, KeyError):
        assert "fails" in outcome[1]
