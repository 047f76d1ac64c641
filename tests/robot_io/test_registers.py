"""Registers: every value that one can hold goes to bytes and back, and units are SI."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_io import registers, xseries
from robot_io.family import Family
from robot_io.registers import FEEDBACK, FEEDBACK_AT, FEEDBACK_SIZE, Register, pick
from robot_io.sts import STS
from robot_io.xseries import X

TABLES = {f"{family.name}: {name}": each for family in (STS, X) for name, each in family.table.items()}


def highest(register: Register) -> int:
    """The greatest value; the least is its opposite, or one less where it is two's complement."""
    limit = (1 << (8 * register.size if register.sign is None else register.sign)) - 1
    return limit if register.highest is None else min(limit, register.highest)


@given(st.sampled_from(sorted(TABLES)), st.data())
def test_values_go_to_bytes_and_back(name: str, data: st.DataObject) -> None:
    register = TABLES[name]
    top = highest(register)
    value = data.draw(st.integers(0 if register.sign is None else -top, top))
    line = register.encode(value)
    assert len(line) == register.size
    assert register.decode(line) == value
    assert register.raw(register.si(value)) == value


@pytest.mark.parametrize("name", sorted(TABLES))
def test_what_a_register_cannot_hold_is_refused(name: str) -> None:
    register = TABLES[name]
    with pytest.raises(ValueError, match=register.name):
        register.encode(highest(register) + 1)
    with pytest.raises(ValueError, match=register.name):
        register.encode(-1 if register.sign is None else -highest(register) - 2)


def test_the_value_that_moves_the_middle_is_refused() -> None:
    with pytest.raises(ValueError, match="torque takes at most 2"):
        registers.TORQUE.encode(128)


@pytest.mark.parametrize("family", [STS, X], ids=lambda family: family.name)
def test_registers_do_not_overlap(family: Family) -> None:
    taken = [a for r in family.table.values() for a in range(r.address, r.address + r.size)]
    assert len(taken) == len(set(taken))


def test_units() -> None:
    assert registers.POSITION.si(4096) == pytest.approx(2 * math.pi)
    assert registers.POSITION.decode(b"\x05\x80") == -5
    assert registers.LOAD.si(registers.LOAD.decode(b"\xf4\x05")) == pytest.approx(-0.5)
    assert registers.VOLTAGE.si(121) == pytest.approx(12.1)
    assert registers.CURRENT.si(100) == pytest.approx(0.65)
    assert registers.HOMING_OFFSET.encode(-1) == b"\x01\x08"


def test_one_block_holds_all_feedback() -> None:
    block = bytes(range(FEEDBACK_AT, FEEDBACK_AT + FEEDBACK_SIZE))
    for register in FEEDBACK:
        assert register.address in range(FEEDBACK_AT, FEEDBACK_AT + len(block) - register.size + 1)
        assert pick(register, block, FEEDBACK_AT) == register.decode(
            bytes((register.address, register.address + 1))
        )


def test_units_of_the_x_series() -> None:
    assert xseries.POSITION.decode(b"\xff\xff\xff\xff") == -1
    assert xseries.VELOCITY.si(1) == pytest.approx(0.229 * 2 * math.pi / 60)
    assert X.watchdog is not None and X.watchdog.si(X.bite) == pytest.approx(0.5)
    assert xseries.XL430_W250.load.si(-1000) == pytest.approx(-1.0)
    current = xseries.XL330_M288.current
    assert current is not None and current.si(1470) == pytest.approx(1.47)
    assert xseries.XL330_M288.load.si(1470) == pytest.approx(1.0)


@pytest.mark.parametrize("family", [STS, X], ids=lambda family: family.name)
def test_what_a_cycle_reads_holds_what_it_is_read_for(family: Family) -> None:
    start, size = family.feedback
    for register in (family.position, family.velocity, family.voltage, family.temperature):
        assert start <= register.address and register.address + register.size <= start + size
    start, size = family.audit
    for register in filter(None, (family.torque, family.watchdog)):
        assert start <= register.address and register.address + register.size <= start + size
    assert not any(register.eprom for register in family.running)
