"""The laws of the state machine, over every stream of flags and events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.states import MOVES, NONE, RULES, Clears, Event, Flag, State, Status, update

LATCHED = (State.FAULT, State.ESTOP)
# Every change that may be seen between two updates, written down a second time.
LEGAL = {
    State.OFF: {State.CONNECTED, State.FAULT, State.ESTOP},
    State.CONNECTED: {State.ARMED, State.PARKING, State.FAULT, State.ESTOP},
    State.ARMED: {State.RUNNING, State.HOLD, State.PARKING, State.FAULT, State.ESTOP},
    State.RUNNING: {State.ARMED, State.HOLD, State.PARKING, State.FAULT, State.ESTOP},
    State.HOLD: {State.ARMED, State.RUNNING, State.PARKING, State.FAULT, State.ESTOP},
    State.PARKING: {State.OFF, State.FAULT, State.ESTOP},
    State.FAULT: {State.OFF, State.CONNECTED, State.ARMED, State.PARKING, State.ESTOP},
    State.ESTOP: set(),
}

flags = st.frozensets(st.sampled_from(Flag), max_size=2)
quiet = st.frozensets(st.sampled_from([f for f in Flag if RULES[f].clears is Clears.AUTO]), max_size=1)
events = st.one_of(st.none(), st.sampled_from(Event))
steps = st.tuples(st.one_of(quiet, quiet, flags), events)
up = [(NONE, event) for event in (Event.CONNECT, Event.ARM, Event.START)]
streams = st.one_of(st.just([]), st.just(up)).flatmap(
    lambda begin: st.lists(steps, min_size=1, max_size=30).map(lambda rest: begin + rest)
)


def asks(status: Status) -> set[State | None]:
    return {RULES[flag].state for flag in status.flags}


@settings(deadline=None, max_examples=400)
@given(streams)
def test_the_laws(stream: list[tuple[frozenset[Flag], Event | None]]) -> None:
    before = Status()
    for i, (active, event) in enumerate(stream):
        now = float(i)
        after = update(now, before, active, event)
        assert after == update(now, before, active, event)  # pure
        if after.state is not before.state:
            assert after.state in LEGAL[before.state]
            assert after.reasons and after.since == now
        else:
            assert (after.since, after.reasons) == (before.since, before.reasons)
        # The worst wins.
        if State.ESTOP in asks(after):
            assert after.state is State.ESTOP
        elif State.FAULT in asks(after):
            assert after.state is State.FAULT
        elif State.PARKING in asks(after):
            assert after.state in (State.PARKING, State.OFF)
        else:
            assert after.state is (State.HOLD if holds(after) else after.mode)
        # Latched states leave as the table says.
        if before.state is State.ESTOP:
            assert after.state is State.ESTOP
        if before.state is State.FAULT and after.state < State.FAULT:
            assert event is Event.CLEAR and not any(RULES[f].state is State.FAULT for f in active)
            assert after.state is not State.RUNNING
        # HOLD goes on to RUNNING only when nothing holds any more.
        if before.state is State.HOLD and after.state is State.RUNNING:
            assert not any(RULES[flag].state is State.HOLD for flag in active)
        # Never up without the operator; RUNNING only from ARMED by START, or out of HOLD.
        if after.mode > before.mode:
            assert MOVES[before.state, event] is after.mode
        # What lasts is remembered.
        lasting = {f for f in active if RULES[f].clears is not Clears.AUTO}
        assert lasting <= after.latched
        assert {f for f in before.latched if RULES[f].clears is Clears.NEVER} <= after.latched
        if before.over:
            assert after.over and after.state in (State.OFF, State.PARKING, State.FAULT, State.ESTOP)
        before = after


def holds(status: Status) -> bool:
    return status.mode is State.RUNNING and State.HOLD in asks(status)


def running() -> Status:
    status = Status()
    for event in (Event.CONNECT, Event.ARM, Event.START):
        status = update(0.0, status, NONE, event)
    assert status.state is State.RUNNING
    return status


@pytest.mark.parametrize("flag", Flag)
def test_every_flag_does_what_its_rule_says(flag: Flag) -> None:
    rule = RULES[flag]
    status = update(1.0, running(), frozenset({flag}))
    assert status.state is (State.RUNNING if rule.state is None else rule.state)
    after = update(2.0, status, NONE)
    cleared = update(3.0, after, NONE, Event.CLEAR)
    if rule.clears is Clears.AUTO:
        assert after.state is State.RUNNING and not after.flags
    elif rule.clears is Clears.OPERATOR:
        assert after.state is rule.state and cleared.state is State.ARMED
        assert update(4.0, cleared, NONE, Event.START).state is State.RUNNING
    else:
        assert after.over and cleared.state is rule.state


def test_a_flag_that_stays_cannot_be_cleared() -> None:
    fault = frozenset({Flag.ROBOT_FAULT})
    status = update(2.0, update(1.0, running(), fault), fault, Event.CLEAR)
    assert status.state is State.FAULT and status.latched == fault


def test_reasons_are_words() -> None:
    held = update(1.0, running(), frozenset({Flag.NO_ACTION, Flag.CAMERA_STALE, Flag.LINK_DOWN}))
    assert held.reasons == ("camera stale", "no action")
    assert update(2.0, held, NONE).reasons == ("camera stale: over", "no action: over")


def test_a_parked_arm_is_off_and_stays_off() -> None:
    status = update(1.0, running(), frozenset({Flag.INTERRUPTED}))
    status = update(2.0, status, NONE, Event.PARKED)
    assert status.state is State.OFF and status.over
    assert update(3.0, status, NONE, Event.CONNECT).state is State.OFF


def test_nothing_new_costs_nothing() -> None:
    status = running()
    assert update(9.0, status, NONE) is status
