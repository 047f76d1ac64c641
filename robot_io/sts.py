"""Feetech's STS servos as a family."""

from __future__ import annotations

from robot_io import feetech
from robot_io import registers as r
from robot_io.family import Family, Model
from robot_io.feetech import Error

STS = Family(
    name="STS",
    wire=feetech.Wire,
    highest=feetech.HIGHEST_ID,
    table=r.TABLE,
    feedback=(r.FEEDBACK_AT, r.FEEDBACK_SIZE),
    # Whether a servo is on, and what it was told.
    audit=(r.TORQUE.address, 9),
    described=r.FEEDBACK_AT + r.FEEDBACK_SIZE,
    running=frozenset({r.TORQUE, r.ACCELERATION, r.GOAL, r.GOAL_SPEED, r.TORQUE_LIMIT}),
    # As quick as it can be: the guard limits it, the servo should only follow.
    begin={r.ACCELERATION: 254, r.GOAL_SPEED: 0},
    lock=r.LOCK,
    watchdog=None,
    bite=0,
    bitten=0,
    error=r.STATUS,
    alert=0,
    told=feetech.told,
    tired=Error.OVERLOAD | Error.OVERHEAT | Error.OVERCURRENT,
    offset=1,
    turns=False,
    furthest=2047,
    counts=False,
)
STS3215 = Model("STS3215", r.STS3215, r.LOAD, r.CURRENT)
