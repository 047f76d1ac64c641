"""An arm is met: who is there, how is it set, where does it stand; then it is switched on, standing still."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robot_io import feetech
from robot_io import registers as r
from robot_io.bus import Bus
from robot_io.calibration import Calibration, Motor, settings
from vla.contract import TaktError

_BLOCK = r.FEEDBACK_AT + r.FEEDBACK_SIZE  # bytes from address 0 to the end of the feedback
_PIECE = 16  # bytes read at once, about as many as in every cycle
_QUICK = 254  # of `ACCELERATION`: the guard limits it, the servo should only follow


@dataclass(frozen=True)
class Found:
    """How an arm was found.

    Attributes:
        steps: servo -> where it stands, as it says it.
        goals: servo -> the goal that it holds; where it stands, when it is off.
        limp: whether every servo was switched off, so that this is a pose in which it stands by itself.
    """

    steps: dict[int, int]
    goals: dict[int, int]
    limp: bool


def names(arm: Calibration) -> dict[int, str]:
    """servo -> joint."""
    return {motor.id: joint for joint, motor in arm.items()}


def check(bus: Bus, arm: Calibration, configure: bool = False) -> Found:
    """Look at every servo before anything is switched on.

    Args:
        configure: write what a servo's EPROM should hold and does not, with the torque off.

    Raises:
        TaktError: one is missing, of another model, at a wrong voltage, has an error, or is set otherwise;
            the line names it.
    """
    tables = _tables(bus, arm)
    for servo, joint in names(arm).items():
        _check_one(f"{joint} (id {servo})", tables[servo])
    wrong = {joint: _differing(joint, arm, tables) for joint in arm}
    if any(wrong.values()):
        if not configure:
            raise TaktError(_told(arm, wrong, tables))
        _write(bus, arm, wrong)
        tables = _tables(bus, arm)
        left = {joint: _differing(joint, arm, tables) for joint in arm}
        if any(left.values()):
            raise TaktError(_told(arm, left, tables))
    steps = {servo: r.pick(r.POSITION, table, 0) for servo, table in tables.items()}
    on = {servo for servo, table in tables.items() if r.pick(r.TORQUE, table, 0) == r.ON}
    goals = {s: r.pick(r.GOAL, tables[s], 0) if s in on else steps[s] for s in tables}
    limp = all(r.pick(r.TORQUE, table, 0) == r.OFF for table in tables.values())
    return Found(steps, goals, limp)


def check_led(bus: Bus, arm: Calibration) -> None:
    """Look at an arm that is only led: its angles have to be right, and nothing else.

    Raises:
        TaktError: one is missing, of another model, at a wrong voltage, has an error, or is calibrated
            otherwise; the line names it.
    """
    tables = _tables(bus, arm)
    for servo, joint in names(arm).items():
        _check_one(f"{joint} (id {servo})", tables[servo])
        has, wanted = r.pick(r.HOMING_OFFSET, tables[servo], 0), arm[joint].homing_offset
        if has != wanted:
            raise TaktError(
                f"{joint} (id {servo}): homing_offset {has}, not {wanted}: is this calibration the leader's? "
                "If so: takt calibrate"
            )


def meet(bus: Bus, arm: Mapping[str, int]) -> dict[str, bytes]:
    """An arm that has no calibration yet: joint -> its registers from address 0, each servo looked at.

    Args:
        arm: joint -> servo.

    Raises:
        TaktError: as `check` does, but for the settings.
    """
    made = {joint: Motor(servo, 0, 0, 0, r.STEPS - 1) for joint, servo in arm.items()}
    tables = _tables(bus, made)
    for joint, servo in arm.items():
        _check_one(f"{joint} (id {servo})", tables[servo])
    return {joint: tables[servo] for joint, servo in arm.items()}


def switch_on(bus: Bus, arm: Calibration, found: Found) -> None:
    """Torque on, each servo's goal where it stands.

    A servo goes for whatever goal it holds when it is switched on. So the goal is written and read back
    first. One that is on already keeps its goal, lest it sink.

    Raises:
        TaktError: a servo does not take it; those before it are on.
    """
    for servo, joint in names(arm).items():
        if bus.value(servo, r.TORQUE) == r.ON:
            continue
        wanted = ((r.ACCELERATION, _QUICK), (r.GOAL_SPEED, 0), (r.GOAL, found.steps[servo]), (r.TORQUE, r.ON))
        for register, value in wanted:
            bus.write(servo, register, value)
            if bus.value(servo, register) != value:
                raise TaktError(f"{joint} (id {servo}) does not take its {register.name}: check its cable")


def _tables(bus: Bus, arm: Calibration) -> dict[int, bytes]:
    """Each servo's registers from address 0 to the end of its feedback."""
    tables = dict.fromkeys(names(arm), b"")
    for start in range(0, _BLOCK, _PIECE):
        found = bus.read(list(tables), start, min(_PIECE, _BLOCK - start))
        missing = [f"{joint} (id {servo})" for servo, joint in names(arm).items() if servo not in found]
        if len(missing) == len(arm):
            raise TaktError(f"no servo answers on {bus.port.path}: has the arm power, and is it this port?")
        if missing:
            raise TaktError(f"no answer from {', '.join(missing)}: check cable and id")
        tables = {servo: table + found[servo].data for servo, table in tables.items()}
    return tables


def _check_one(name: str, table: bytes) -> None:
    model = r.pick(r.MODEL, table, 0)
    if model != r.STS3215:
        raise TaktError(f"{name} is of model {model}, not {r.STS3215} (STS3215)")
    volts, low, high = (reg.si(r.pick(reg, table, 0)) for reg in (r.VOLTAGE, r.MIN_VOLTAGE, r.MAX_VOLTAGE))
    if not low <= volts <= high:
        raise TaktError(f"{name} has {volts:.1f} V, not {low:.1f} to {high:.1f}: check the supply")
    if words := feetech.told(r.pick(r.STATUS, table, 0)):
        raise TaktError(f"{name} reports {words}: switch its power off and on, and let it cool")


def _differing(joint: str, arm: Calibration, tables: Mapping[int, bytes]) -> dict[r.Register, int]:
    table = tables[arm[joint].id]
    wanted = settings(joint, arm[joint])
    return {register: value for register, value in wanted.items() if r.pick(register, table, 0) != value}


def _told(arm: Calibration, wrong: Mapping[str, dict[r.Register, int]], tables: Mapping[int, bytes]) -> str:
    words = []
    for joint, registers in wrong.items():
        servo = arm[joint].id
        for register, value in registers.items():
            has = r.pick(register, tables[servo], 0)
            words.append(f"{joint} (id {servo}): {register.name} {has}, not {value}")
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return (
        f"servos are set otherwise than the calibration says: {'; '.join(words[:3])}{more}; "
        "is it this arm's? If so: support the arm and write the settings with --options configure=yes"
    )


def _write(bus: Bus, arm: Calibration, wrong: Mapping[str, dict[r.Register, int]]) -> None:
    for joint, registers in wrong.items():
        if registers:
            servo = arm[joint].id
            with bus.configuring([servo]):
                for register, value in registers.items():
                    bus.write(servo, register, value)
