"""An arm is met: who is there, how is it set, where does it stand; then it is switched on, standing still."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robot_io import registers as r
from robot_io.bodies import SO101, Body
from robot_io.bus import Bus
from robot_io.calibration import GRIPPER, Calibration, Motor, settings
from robot_io.health import NEARLY, Rated
from vla.contract import TaktError

_PIECE = 16  # bytes read at once, about as many as in every cycle
_ASTRAY = r.STEPS // 8  # steps beyond its calibrated range that no joint is, unless it counts another turn


@dataclass(frozen=True)
class Found:
    """How an arm was found.

    Attributes:
        steps: servo -> where it stands, as it says it.
        goals: servo -> the goal that it holds; where it stands, when it is off.
        limp: whether every servo was switched off, so that this is a pose in which it stands by itself.
        rated: servo -> what its own settings allow.
    """

    steps: dict[int, int]
    goals: dict[int, int]
    limp: bool
    rated: dict[int, Rated]


def names(arm: Calibration) -> dict[int, str]:
    """servo -> joint."""
    return {motor.id: joint for joint, motor in arm.items()}


def check(bus: Bus, arm: Calibration, configure: bool = False, body: Body = SO101) -> Found:
    """Look at every servo before anything is switched on.

    Args:
        configure: write what a servo's EPROM should hold and does not, with the torque off.

    Raises:
        TaktError: one is missing, of another model, at a wrong voltage, has an error, or is set otherwise;
            the line names it.
    """
    family = body.family
    tables = _tables(bus, arm)
    for servo, joint in names(arm).items():
        _check_one(f"{joint} (id {servo})", tables[servo], body, joint)
    wrong = {joint: _differing(joint, arm, tables, body) for joint in arm}
    if any(wrong.values()):
        if not configure:
            raise TaktError(_told(arm, wrong, tables))
        _write(bus, arm, wrong)
        tables = _tables(bus, arm)
        left = {joint: _differing(joint, arm, tables, body) for joint in arm}
        if any(left.values()):
            raise TaktError(_told(arm, left, tables))
    steps = {servo: r.pick(family.position, table, 0) for servo, table in tables.items()}
    if family.counts:
        _check_turn(arm, steps, body)
    on = {servo for servo, table in tables.items() if r.pick(family.torque, table, 0) == r.ON}
    if family.watchdog is not None:  # one that it stopped stays where it stopped
        on -= {s for s, t in tables.items() if r.pick(family.watchdog, t, 0) == family.bitten}
    goals = {s: r.pick(family.goal, tables[s], 0) if s in on else steps[s] for s in tables}
    limp = all(r.pick(family.torque, table, 0) == r.OFF for table in tables.values())
    rated = {motor.id: _rated(tables[motor.id], body, joint) for joint, motor in arm.items()}
    return Found(steps, goals, limp, rated)


def check_led(bus: Bus, arm: Calibration, body: Body = SO101) -> None:
    """Look at an arm that is only led: its angles have to be right, and nothing else.

    Raises:
        TaktError: one is missing, of another model, at a wrong voltage, has an error, or is calibrated
            otherwise; the line names it.
    """
    tables = _tables(bus, arm)
    for servo, joint in names(arm).items():
        _check_one(f"{joint} (id {servo})", tables[servo], body, joint)
        wanted = {body.family.placed[0]: arm[joint].homing_offset}
        if body.family.turns:
            wanted[body.family.table["drive_mode"]] = arm[joint].drive_mode
        for register, value in wanted.items():
            if (has := r.pick(register, tables[servo], 0)) != value:
                raise TaktError(
                    f"{joint} (id {servo}): {register.name} {has}, not {value}: is this calibration the "
                    "leader's? If so: takt calibrate"
                )
    if body.family.counts:
        _check_turn(arm, {s: r.pick(body.family.position, table, 0) for s, table in tables.items()}, body)


def meet(bus: Bus, body: Body = SO101) -> dict[str, bytes]:
    """An arm that has no calibration yet: joint -> its registers from address 0, each servo looked at.

    Raises:
        TaktError: as `check` does, but for the settings.
    """
    made = {joint: Motor(servo, 0, 0, 0, r.STEPS - 1) for joint, servo in body.ids.items()}
    tables = _tables(bus, made)
    for joint, servo in body.ids.items():
        _check_one(f"{joint} (id {servo})", tables[servo], body, joint)
    return {joint: tables[servo] for joint, servo in body.ids.items()}


def switch_on(bus: Bus, arm: Calibration, found: Found, body: Body = SO101) -> None:
    """Torque on, each servo's goal where it stands.

    A servo goes for whatever goal it holds when it is switched on. So the goal is written and read back
    first. One that is on already keeps its goal, lest it sink; what another program left in its RAM is set
    as for the others, and a watchdog of its that has bitten is let rest.
    A gripper begins with the torque that it may give for ever, a little less than what it calls overload:
    it may have to hold something for as long.

    Raises:
        TaktError: a servo does not take it; those before it are on.
    """
    family = body.family
    for servo, joint in names(arm).items():
        grip = _grip(body, found.rated[servo]) if joint == GRIPPER else {}
        steps = [grip, family.begin, body.gains.get(joint, {})]
        if family.watchdog is not None:  # it is let rest first: one that has bitten lets no current in either
            steps = [*steps[1:], grip]
        wanted = [item for step in steps for item in step.items()]
        on = bus.value(servo, family.torque) == r.ON
        wanted += [(family.goal, found.goals[servo])] if on else [(family.goal, found.steps[servo])]
        wanted += [] if on else [(family.torque, r.ON)]
        if on and family.watchdog is None:
            wanted = list(grip.items())
        for register, value in wanted:
            bus.write(servo, register, value)
            if bus.value(servo, register) != value:
                raise TaktError(f"{joint} (id {servo}) does not take its {register.name}: check its cable")


def _grip(body: Body, rated: Rated) -> Mapping[r.Register, int]:
    """What keeps a gripper from pressing harder than it may for ever."""
    if grip := body.model(GRIPPER).grip:
        return grip
    return {r.TORQUE_LIMIT: r.TORQUE_LIMIT.raw(NEARLY * rated.load)}


def _rated(table: bytes, body: Body, joint: str) -> Rated:
    """What a servo's own settings allow, or where it has none, its model."""
    names = ("max_temperature", "overload", "max_torque")
    heat, load, most = (body.family.table.get(name) for name in names)
    return Rated(
        Rated.heat if heat is None else heat.si(r.pick(heat, table, 0)),
        body.model(joint).overload if load is None else load.si(r.pick(load, table, 0)),
        Rated.most if most is None else most.si(r.pick(most, table, 0)),
    )


def _check_turn(arm: Calibration, steps: Mapping[int, int], body: Body) -> None:
    """A servo that counts turns begins to where its power comes on, and may be a turn off from then on."""
    for joint, motor in arm.items():
        at = steps[motor.id]
        slack = 0 if joint in body.endless else _ASTRAY  # beyond a whole turn lies the next one
        if not motor.range_min - slack <= at <= motor.range_max + slack:
            raise TaktError(
                f"{joint} (id {motor.id}) stands at {at}, calibrated are {motor.range_min} to "
                f"{motor.range_max}: it counts another turn; bring the joint to its middle, and switch its "
                "power off and on"
            )


def _tables(bus: Bus, arm: Calibration) -> dict[int, bytes]:
    """Each servo's registers from address 0 to the end of its feedback."""
    tables, end = dict.fromkeys(names(arm), b""), bus.family.described
    for start in range(0, end, _PIECE):
        found = bus.read(list(tables), start, min(_PIECE, end - start))
        missing = [f"{joint} (id {servo})" for servo, joint in names(arm).items() if servo not in found]
        if len(missing) == len(arm):
            raise TaktError(f"no servo answers on {bus.port.path}: has the arm power, and is it this port?")
        if missing:
            raise TaktError(f"no answer from {', '.join(missing)}: check cable and id")
        tables = {servo: table + found[servo].data for servo, table in tables.items()}
    return tables


def _check_one(name: str, table: bytes, body: Body, joint: str) -> None:
    family, wanted = body.family, body.model(joint)
    model = r.pick(family.model, table, 0)
    if model != wanted.number:
        raise TaktError(f"{name} is of model {model}, not {wanted.number} ({wanted.name})")
    supply = (family.voltage, family.table["min_voltage"], family.table["max_voltage"])
    volts, low, high = (register.si(r.pick(register, table, 0)) for register in supply)
    if not low <= volts <= high:
        raise TaktError(f"{name} has {volts:.1f} V, not {low:.1f} to {high:.1f}: check the supply")
    if words := family.told(r.pick(family.error, table, 0)):
        raise TaktError(f"{name} reports {words}: switch its power off and on, and let it cool")


def _differing(
    joint: str, arm: Calibration, tables: Mapping[int, bytes], body: Body
) -> dict[r.Register, int]:
    table = tables[arm[joint].id]
    wanted = settings(joint, arm[joint], body)
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
