"""`takt calibrate`: where an arm's joints have their middle and their ends, asked of who moves it by hand.

    torque off          the arm is held: it gives in
    middle pose         what each servo says there becomes 2047: its homing offset
    whole ranges        every joint is moved from stop to stop, while the ends are noted
    written             offsets and ranges into the servos, then LeRobot's file

A joint without stops, such as the wrist's roll, gets a whole turn, as LeRobot gives it. Until the end an
interruption puts back what the servos held before.
"""

from __future__ import annotations

import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from robot_io import calibration as files
from robot_io import connect
from robot_io import registers as r
from robot_io.bodies import BODIES, SO101, Body
from robot_io.bus import Bus
from robot_io.calibration import LEAST, Calibration, Motor
from robot_io.port import Port
from runtime.clock import MonotonicClock, Ticker
from vla.contract import TaktError

MIDDLE = (r.STEPS - 1) // 2  # what a servo says in its middle pose, as LeRobot counts it
UNHURRIED = 0.05  # s of patience
RATE = 50.0  # looks a second
TURN = r.STEPS // 2  # steps between two looks that nobody moves: the count has gone past its end


@dataclass
class Command:
    """Calibrate a servo arm: middle pose, then the ranges by hand."""

    port: str
    """The line of its servos: /dev/ttyACM0."""
    out: Path
    """Where to write the calibration, in LeRobot's form."""
    robot: str = SO101.name
    """Which arm it is: so101, koch or koch_leader."""
    overwrite: bool = False
    """Replace a file that is there."""
    json: Path | None = None
    """Where to write the result as well."""

    def run(self) -> int:
        if self.out.exists() and not self.overwrite:
            raise TaktError(f"{self.out} is there already; choose another name, or --overwrite")
        if (body := BODIES.get(self.robot)) is None:
            raise TaktError(f"no servo arm {self.robot!r}; valid: {', '.join(BODIES)}")
        if not sys.stdin.isatty():
            raise TaktError("this asks questions: run it in a terminal")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
        port = Port(self.port)
        try:
            found = calibrate(Bus(port, UNHURRIED, body.family), self.out, body)
        finally:
            port.close()
        for joint, motor in found.items():
            turn = (motor.range_max - motor.range_min) * r.RAD
            print(f"{joint:14} {motor.range_min:4} .. {motor.range_max:4}, {turn:.2f} rad")
        print(f"{self.out}: written, and the servos hold the same; torque off")
        if self.json is not None:
            files.write(self.json, found)
        return 0


def calibrate(bus: Bus, out: Path, body: Body = SO101) -> Calibration:
    """Lead whoever is at the terminal through it; the arm's calibration, which is in the servos and at `out`.

    Raises:
        TaktError: a servo is missing or does not take what is written, or an answer did not come.
    """
    before = connect.meet(bus, body)
    wait("Hold the arm: its servos are switched off now, and it gives in. Enter when you hold it: ")
    names = {servo: joint for joint, servo in body.ids.items()}
    for servo, words in bus.safe(names).items():
        if words:
            raise TaktError(f"{names[servo]} (id {servo}) is not switched off: {words}")
    with restored(bus, before, body):
        found = _measured(bus, body)
        for joint, motor in found.items():
            _set(bus, motor.id, joint, files.settings(joint, motor, body))
        # The file last: where there is one, the servos hold what it says.
        files.write(out, found)
    return found


def _measured(bus: Bus, body: Body) -> Calibration:
    family = body.family
    offset, least, most = family.placed
    turned = {joint: int(joint in body.turned) for joint in body.joints}
    for joint, servo in body.ids.items():
        mode = {family.mode: body.kept(joint)[family.mode]}
        way = {family.table["drive_mode"]: turned[joint]} if family.turns else {}
        _set(bus, servo, joint, {offset: 0, least: 0, most: r.STEPS - 1} | mode | way)
    wait("Bring every joint to the middle of its range, the gripper half open. Enter when it is there: ")
    middle = look(bus, body)
    for joint, at in middle.items():
        if not -r.STEPS * turned[joint] <= at < r.STEPS:
            raise TaktError(f"{joint} counts another turn: switch its power off and on there; calibrate anew")
    limit = family.furthest
    offsets = {joint: max(-limit, min(limit, family.offset * (at - MIDDLE))) for joint, at in middle.items()}
    for joint, value in offsets.items():
        _set(bus, body.ids[joint], joint, {offset: value})
    ranges = Ranges(body)
    question = f"Move every joint but {' and '.join(_endless(body))} from stop to stop. Enter when all were: "
    while True:
        wait(question, lambda: ranges.see(look(bus, body)))
        short = ranges.short()
        if ranges.passed:
            raise TaktError(
                f"{ranges.passed} went past the end of its count: it was not in its middle; calibrate anew"
            )
        if not short:
            break
        question = f"{', '.join(short)}: moved by less than {LEAST} rad. Move it, then Enter: "
    whole = dict.fromkeys(body.endless, (0, r.STEPS - 1))
    ends = {joint: whole.get(joint, (ranges.least[joint], ranges.most[joint])) for joint in body.ids}
    return {
        joint: Motor(servo, turned[joint], offsets[joint], *ends[joint]) for joint, servo in body.ids.items()
    }


def _endless(body: Body) -> list[str]:
    return [joint for joint in body.joints if joint in body.endless]


@dataclass
class Ranges:
    """The ends that joints were seen at.

    Attributes:
        body: whose.
        least, most: joint -> steps.
        passed: a joint that was seen to leap from one end of its count to the other, "" for none.
    """

    body: Body = SO101
    least: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    passed: str = ""
    _last: dict[str, int] = field(default_factory=dict)

    def see(self, steps: Mapping[str, int]) -> None:
        """Where all joints are now, in steps."""
        for joint, at in steps.items():
            leapt = abs(at - self._last.get(joint, at)) > TURN
            outside = not 0 <= at < r.STEPS
            if joint not in self.body.endless and (leapt or outside):
                self.passed = self.passed or joint
            self._last[joint] = at
            self.least[joint] = min(at, self.least.get(joint, at))
            self.most[joint] = max(at, self.most.get(joint, at))

    def short(self) -> list[str]:
        """Joints that were moved too little to be calibrated."""
        return [
            joint
            for joint in self.body.joints
            if joint not in self.body.endless
            and (joint not in self.least or (self.most[joint] - self.least[joint]) * r.RAD < LEAST)
        ]


def look(bus: Bus, body: Body) -> dict[str, int]:
    """Where each joint is, in steps.

    Raises:
        TaktError: a servo is silent.
    """
    position = body.family.position
    answers = bus.read(list(body.ids.values()), position.address, position.size)
    missing = [f"{joint} (id {servo})" for joint, servo in body.ids.items() if servo not in answers]
    if missing:
        raise TaktError(f"no answer from {', '.join(missing)}: check cable and power")
    return {joint: position.decode(answers[servo].data) for joint, servo in body.ids.items()}


@contextmanager
def restored(bus: Bus, before: Mapping[str, bytes], body: Body) -> Iterator[None]:
    """Put back where the joints had their middle and ends, if what is inside does not come to its end."""
    family = body.family
    changed = [*family.placed, *((family.mode, family.table["drive_mode"]) if family.turns else ())]
    try:
        yield
    except BaseException:
        for joint, table in before.items():
            held = {register: r.pick(register, table, 0) for register in changed}
            try:
                _set(bus, body.ids[joint], joint, held)
            except TaktError as error:  # the others are still to be put back
                print(f"takt: {joint} does not hold what it held before: {error}", file=sys.stderr)
        raise


def _set(bus: Bus, servo: int, joint: str, values: Mapping[r.Register, int]) -> None:
    """Write settings and read them back."""
    with bus.configuring([servo]):
        for register, value in values.items():
            bus.write(servo, register, value)
            seen = bus.value(servo, register)
            if seen != value:
                raise TaktError(
                    f"{joint} (id {servo}) does not take its {register.name}: {seen}, not {value}"
                )


def wait(question: str, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Ask, and do something again and again until Enter.

    Raises:
        TaktError: the terminal has gone.
    """
    print(question, end="", flush=True)
    for _ in Ticker(MonotonicClock(), 1.0 / RATE):
        meanwhile()
        if select.select([sys.stdin], [], [], 0.0)[0]:
            if not sys.stdin.readline():
                raise TaktError("nobody answers: run it in a terminal")
            return
