"""Registers: every value that one can hold goes to bytes and back, and units are SI."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_io import registers
from robot_io.registers import FEEDBACK, FEEDBACK_AT, FEEDBACK_SIZE, TABLE, Register, pick


def highest(register: Register) -> int:
    limit = (1 << (8 * register.size if register.sign is None else register.sign)) - 1
    return limit if register.highest is None else min(limit, register.highest)


@given(st.sampled_from(sorted(TABLE)), st.data())
def test_values_go_to_bytes_and_back(name: str, data: st.DataObject) -> None:
    register = TABLE[name]
    top = highest(register)
    value = data.draw(st.integers(0 if register.sign is None else -top, top))
    line = register.encode(value)
    assert len(line) == register.size
    assert register.decode(line) == value
    assert register.raw(register.si(value)) == value


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_a_register_cannot_hold_is_refused(name: str) -> None:
    register = TABLE[name]
    with pytest.raises(ValueError, match=name):
        register.encode(highest(register) + 1)
    with pytest.raises(ValueError, match=name):
        register.encode(-1 if register.sign is None else -highest(register) - 1)


def test_the_value_that_moves_the_middle_is_refused() -> None:
    with pytest.raises(ValueError, match="torque takes at most 2"):
        registers.TORQUE.encode(128)


def test_registers_do_not_overlap() -> None:
    taken = [a for r in TABLE.values() for a in range(r.address, r.address + r.size)]
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
