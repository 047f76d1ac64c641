"""What the arm may do now: states, the flags that lead to them, and what ends each. Pure functions of time.

    OFF --connect--> CONNECTED --arm--> ARMED --start--> RUNNING     the mode: how far it was led up
                                                  |  ^
                                             flag |  | every flag gone (AUTO)
                                                  v  |
                        PARKING <-- flag --      HOLD
                           |                                         FAULT   latched, an operator clears it
                           +--parked--> OFF                          ESTOP   latched, only a restart ends it

A state is the worst that a flag asks for, or else the mode. Flags that do not clear by themselves are
remembered. The model is PX4's commander: `update` is a pure function, and the table `RULES` is the policy.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class State(enum.IntEnum):
    """The worst is the greatest."""

    OFF = 0
    CONNECTED = 1
    ARMED = 2
    RUNNING = 3
    HOLD = 4
    PARKING = 5
    FAULT = 6
    ESTOP = 7


class Clears(enum.Enum):
    """What ends a flag's effect: its cause is gone; an operator says so as well; nothing does."""

    AUTO = "auto"
    OPERATOR = "operator"
    NEVER = "never"


class Flag(enum.Enum):
    """Something that was noticed; the value is for people."""

    NO_ACTION = "no action"
    WAITING = "told to wait"
    CAMERA_STALE = "camera stale"
    STATE_STALE = "state stale"
    OVERRUNS = "overruns"
    LINK_DOWN = "link down"
    POLICY_AWAY = "policy away"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    ROBOT_FAULT = "robot fault"
    STATE_INVALID = "state not finite"
    EMERGENCY = "emergency stop"


class Event(enum.Enum):
    """What the operator does, and that the arm has come to rest."""

    CONNECT = "connect"
    ARM = "arm"
    START = "start"
    STOP = "stop"
    CLEAR = "clear"
    PARKED = "parked"


@dataclass(frozen=True)
class Rule:
    """Where a flag leads (None: it is reported and nothing else) and how that ends."""

    state: State | None
    clears: Clears


RULES: dict[Flag, Rule] = {
    Flag.NO_ACTION: Rule(State.HOLD, Clears.AUTO),
    # An arm that waits for words is not one whose policy stays away: it may wait for as long as it is told.
    Flag.WAITING: Rule(State.HOLD, Clears.AUTO),
    Flag.CAMERA_STALE: Rule(State.HOLD, Clears.AUTO),
    Flag.STATE_STALE: Rule(State.HOLD, Clears.AUTO),
    Flag.OVERRUNS: Rule(State.HOLD, Clears.AUTO),
    # Actions that are still in age are played on; when they run out, NO_ACTION holds.
    Flag.LINK_DOWN: Rule(None, Clears.AUTO),
    # A run that was given up stays given up, or an arm left alone would wake when the network does.
    Flag.POLICY_AWAY: Rule(State.PARKING, Clears.NEVER),
    Flag.INTERRUPTED: Rule(State.PARKING, Clears.NEVER),
    Flag.FINISHED: Rule(State.PARKING, Clears.NEVER),
    Flag.ROBOT_FAULT: Rule(State.FAULT, Clears.OPERATOR),
    # A driver whose read failed hands out the old state with its old time; one that hands out NaN is
    # broken or not calibrated, and its next number deserves no trust either.
    Flag.STATE_INVALID: Rule(State.FAULT, Clears.OPERATOR),
    Flag.EMERGENCY: Rule(State.ESTOP, Clears.NEVER),
}

# (state, event) -> mode. What is not here does not happen. CLEAR is not: it drops flags, see `update`.
MOVES: dict[tuple[State, Event], State] = {
    (State.OFF, Event.CONNECT): State.CONNECTED,
    (State.CONNECTED, Event.ARM): State.ARMED,
    (State.ARMED, Event.START): State.RUNNING,
    (State.RUNNING, Event.STOP): State.ARMED,
    (State.HOLD, Event.STOP): State.ARMED,
    (State.PARKING, Event.PARKED): State.OFF,
}

NONE: frozenset[Flag] = frozenset()
_LASTING = frozenset(flag for flag, rule in RULES.items() if rule.clears is not Clears.AUTO)


@dataclass(frozen=True)
class Status:
    """Where the arm stands.

    Attributes:
        state: what it may do now.
        mode: how far it was led up, OFF to RUNNING; what is left when no flag asks for worse.
        active: the flags of the last update.
        latched: the flags that are remembered.
        since: when the state began, s.
        reasons: what led to it.
    """

    state: State = State.OFF
    mode: State = State.OFF
    active: frozenset[Flag] = NONE
    latched: frozenset[Flag] = NONE
    since: float = 0.0
    reasons: tuple[str, ...] = ()

    @property
    def flags(self) -> frozenset[Flag]:
        """Active and remembered."""
        return self.active | self.latched

    @property
    def over(self) -> bool:
        """Whether the run cannot go on, whatever an operator does."""
        return any(RULES[flag].clears is Clears.NEVER for flag in self.latched)


def update(time: float, status: Status, flags: frozenset[Flag], event: Event | None = None) -> Status:
    """The status at `time`: the same object when nothing changed.

    Args:
        time: s; it only dates the change.
        flags: what is noticed now.
        event: one that has no place in the status' state is ignored.
    """
    if flags == status.active and event is None:
        return status
    latched = status.latched | (flags & _LASTING)
    if event is Event.CLEAR:
        latched = frozenset(f for f in latched if f in flags or RULES[f].clears is not Clears.OPERATOR)
    mode = _mode(status, event, latched)
    acted = mode is not status.mode or (event is Event.CLEAR and status.state is State.FAULT)
    state = worst(mode, flags | latched)
    if state is State.FAULT:
        mode = min(mode, State.ARMED)  # once it is cleared, the operator starts it anew
    if state is status.state:
        return Status(state, mode, flags, latched, status.since, status.reasons)
    reasons = _reasons(status, state, flags | latched, event if acted else None)
    return Status(state, mode, flags, latched, time, reasons)


def worst(mode: State, flags: Iterable[Flag]) -> State:
    """The state that a mode and flags amount to."""
    asked = max((s for s in (RULES[flag].state for flag in flags) if s is not None), default=mode)
    if asked >= State.FAULT or (asked is State.PARKING and mode is not State.OFF):
        return asked
    return State.HOLD if asked is State.HOLD and mode is State.RUNNING else mode


def _mode(status: Status, event: Event | None, latched: frozenset[Flag]) -> State:
    if event is None or (status.state is State.OFF and any(RULES[f].clears is Clears.NEVER for f in latched)):
        return status.mode  # a run that is over is not led up again
    return MOVES.get((status.state, event), status.mode)


def _reasons(before: Status, state: State, flags: frozenset[Flag], event: Event | None) -> tuple[str, ...]:
    """The flags that ask for the state; else the event that led to it; else what held it and is gone."""
    asking = [flag.value for flag in flags if RULES[flag].state is state]
    if asking:
        return tuple(sorted(asking))
    if event is not None:
        return (event.value,)
    gone = [flag.value for flag in before.flags - flags if RULES[flag].state is before.state]
    return tuple(sorted(f"{name}: over" for name in gone))
