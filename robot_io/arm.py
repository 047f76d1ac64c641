"""An SO-101 of metal, or an emulated one, behind the `Robot` seam: six STS3215 servos on a serial line.

    with Arm(port, calibration) as arm:     met, checked, switched on where it stands
        seen = arm.read()                   one request: all that six servos have to say
        arm.write(goals)                    one packet
                                            parked where it was found, then switched off

What it does at the end depends on how it goes:

    it was found switched off, and nothing is wrong     parks in the pose it was found in, torque off
    a servo has a fault, the loop failed, or it was     holds its pose with the torque on, and says so:
    found switched on                                   an arm that is let go of falls

Nothing here has run on hardware yet.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_io import calibration as files
from robot_io import connect
from robot_io import registers as r
from robot_io.bus import PATIENCE, Bus, Traffic, seconds_of
from robot_io.calibration import Calibration, Joint
from robot_io.dryrun import CAMERAS, pattern
from robot_io.emulator import Emulator, so101_servos
from robot_io.health import Health
from robot_io.park import park
from robot_io.plants import Eyes
from robot_io.port import Port, PortGone
from runtime import so101
from runtime.safety import shrunk
from vla.contract import ActionSpace, CameraSpec, Dimension, Observation, RobotSpec, TaktError

EMULATED = "emulated"  # the port's name for servos that are started with the arm
ENDS = ("park", "hold", "off")
UNHURRIED = 0.05  # s of patience, at least, where no beat has to be kept: at the start and at the end
FIRST = 30.0  # s until a plant shows its first frame
# Addresses 40 to 48: whether a servo is on, and what it was told. One servo a cycle, in turn.
_AUDIT = (r.TORQUE.address, 9)
_SI = ("position", "velocity", "load", "voltage", "temperature", "current")


@dataclass(frozen=True)
class Telemetry:
    """All that the servos said last, by joint. Shape (6,), SI units; `time` is when each was asked, s."""

    time: np.ndarray
    position: np.ndarray
    velocity: np.ndarray
    load: np.ndarray
    voltage: np.ndarray
    temperature: np.ndarray
    current: np.ndarray
    status: np.ndarray


class Arm:
    """One arm. Not shared between threads.

    Attributes:
        telemetry: what the last read brought; of a servo that was silent, what it said before.
        traffic: what the last cycle took on the bus.
        found: how the arm was found.
    """

    def __init__(
        self,
        port: str,
        calibration: Calibration,
        end: str = "park",
        configure: bool = False,
        patience: float = PATIENCE,
        cameras: tuple[CameraSpec, ...] = (),
        plant: str = "",
    ) -> None:
        """
        Args:
            port: the serial line, or `EMULATED`.
            end: what it does at the end, one of `ENDS`; "off" lets go of the arm whatever happened.
            configure: write settings that differ, see `connect.check`.
            patience: s, see `Bus`.
            cameras: names and sizes of what it shows: the plant's frames, or test patterns without one.
            plant: what stands behind emulated servos, see `plants`.

        Raises:
            TaktError: an unknown end, or a joint whose calibrated range holds none of its nominal one.
        """
        if end not in ENDS:
            raise TaktError(f"no end {end!r}; valid: {', '.join(ENDS)}")
        self._port, self._end, self._configure, self._patience = port, end, configure, patience
        self._calibration = calibration
        self._ids = [motor.id for motor in calibration.values()]
        self._joints = [Joint.of(joint, motor) for joint, motor in calibration.items()]
        self._spec = spec(dict(zip(calibration, self._joints, strict=True)), cameras)
        self._frames = {camera.name: pattern(camera, i) for i, camera in enumerate(cameras)}
        if plant and port != EMULATED:
            raise TaktError("a plant stands behind emulated servos: --port emulated")
        self._plant = plant
        self._eyes: Eyes | None = None
        self._open = ExitStack()

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    # -- entering

    def __enter__(self) -> Arm:
        """
        Raises:
            TaktError: what `connect.check` found, or a servo that could not be switched on; the arm is then
                switched off, or, where a servo was found on, holds.
        """
        with ExitStack() as stack:
            path = self._port
            if path == EMULATED:
                emulator = stack.enter_context(Emulator(plant=self._plant))
                path = emulator.port
                if self._plant:
                    self._eyes = Eyes(emulator.folder)
                    stack.callback(self._eyes.close)
                    self._frames = self._eyes.frames(wait=FIRST)
            port = Port(path)
            stack.callback(port.close)
            self._bus = Bus(port, max(self._patience, UNHURRIED))
            self.found = connect.check(self._bus, self._calibration, self._configure)
            self._begin()
            try:
                connect.switch_on(self._bus, self._calibration, self.found)
                self._on = True
                self._bus.patience = self._patience
            except BaseException:
                outcome = self._bus.safe(self._ids, None if self.found.limp else self._goals)
                self._tell(self.found.limp, "it could not be switched on", outcome)
                raise
            self._open = stack.pop_all()
        return self

    def _begin(self) -> None:
        now = time.monotonic()
        count = len(self._ids)
        self._health = Health(connect.names(self._calibration))
        self._gone = ""
        self._on, self._turn = False, 0
        self.traffic = Traffic()
        si = {name: np.full(count, np.nan) for name in _SI}
        self.telemetry = Telemetry(time=np.full(count, now), status=np.zeros(count, int), **si)
        # No goal leaves the range; one who starts outside it comes in, and never goes further out.
        space = self._spec.actions
        ends = [
            sorted((j.steps(low), j.steps(high), self.found.steps[servo]))
            for j, low, high, servo in zip(self._joints, space.lower, space.upper, self._ids, strict=True)
        ]
        self._least, self._most = ([row[i] for row in ends] for i in (0, 2))
        rows = zip(self._ids, self._least, self._most, strict=True)
        self._goals = {servo: max(low, min(high, self.found.goals[servo])) for servo, low, high in rows}
        self._told = False
        while np.isnan(self.telemetry.position).any():
            self.read()
            if faults := self.faults:
                raise TaktError(f"the arm has a fault: {'; '.join(faults)}")

    # -- the cycle

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with it now, each with its servo."""
        return (self._gone,) if self._gone else self._health.faults()

    def read(self) -> Observation:
        """Ask all servos for everything. A silent one keeps its old state; the time is that of the oldest."""
        self.traffic = self._bus.take()
        if not self._gone:
            self._on_the_line(self._ask)
        if self._eyes is not None:
            self._frames = self._eyes.frames()
        seen = self.telemetry
        return Observation(
            float(seen.time.min()), seen.position.astype(np.float32), dict(self._frames), faults=self.faults
        )

    def write(self, command: np.ndarray) -> None:
        """Joint targets, shape (6,), rad; they have passed the guard. Raises ValueError for what has not."""
        goals = np.asarray(command, float)
        if goals.shape != (len(self._ids),) or not np.isfinite(goals).all():
            raise ValueError(f"six finite joint targets, got {command}")
        self._told = True
        for i, (servo, joint) in enumerate(zip(self._ids, self._joints, strict=True)):
            self._goals[servo] = max(self._least[i], min(self._most[i], joint.steps(goals[i])))
        if not self._gone:
            self._on_the_line(lambda: self._bus.sync_write(r.GOAL, self._goals))

    def _on_the_line(self, what: Callable[[], None]) -> None:
        try:
            what()
        except PortGone as error:
            self._gone = str(error)  # it does not come back by itself: a new run opens the line anew

    def _ask(self) -> None:
        now = time.monotonic()
        answers = self._bus.read(self._ids, r.FEEDBACK_AT, r.FEEDBACK_SIZE)
        for i, servo in enumerate(self._ids):
            if (answer := answers.get(servo)) is not None:
                bits = answer.code | r.pick(r.STATUS, answer.data, r.FEEDBACK_AT)
                self._health.heard(servo, bits)
                self._keep(i, answer.data, bits, now)
            else:
                self._health.missed(servo, now)
        self._turn = (self._turn + 1) % len(self._ids)
        servo = self._ids[self._turn]
        if self._on and servo in answers and (audit := self._bus.read([servo], *_AUDIT).get(servo)):
            self._health.torque(servo, r.pick(r.TORQUE, audit.data, _AUDIT[0]))

    def _keep(self, i: int, block: bytes, bits: int, now: float) -> None:
        def si(register: r.Register) -> float:
            return register.si(r.pick(register, block, r.FEEDBACK_AT))

        seen, joint = self.telemetry, self._joints[i]
        seen.time[i], seen.status[i] = now, bits
        seen.position[i] = joint.angle(r.pick(r.POSITION, block, r.FEEDBACK_AT))
        seen.velocity[i] = joint.sign * si(r.VELOCITY)
        seen.load[i] = joint.sign * si(r.LOAD)
        seen.voltage[i], seen.temperature[i], seen.current[i] = map(si, (r.VOLTAGE, r.TEMPERATURE, r.CURRENT))

    # -- leaving

    def __exit__(self, *exc: object) -> None:
        """Made safe whatever happened; what could not be done is told in a line on stderr."""
        with self._open:
            self._bus.patience = max(self._patience, UNHURRIED)
            try:
                why = "" if self._end != "park" else self._park(exc[0])
            except BaseException as error:  # nothing comes before the servos
                why = str(error) or type(error).__name__
            off = self._end == "off" or (self._end == "park" and not why)
            outcome = self._bus.safe(self._ids, None if off else self._holding())
            self._tell(off, why, outcome)

    def _park(self, failed: object) -> str:
        """Go where it was found; why it could not, "" when it did."""
        if self.found.limp and not self._told:
            return ""  # it stands where it was found
        if failed not in (None, KeyboardInterrupt):
            return "the run failed"
        if not self.found.limp:
            return "it was found switched on, and where it would stand by itself is not known"
        found = [j.angle(self.found.steps[s]) for j, s in zip(self._joints, self._ids, strict=True)]
        commanded = [j.angle(self._goals[s]) for j, s in zip(self._joints, self._ids, strict=True)]
        return park(self, np.array(commanded), np.array(found))

    def _holding(self) -> dict[int, int]:
        """The last goals; a servo with an error stops where it is, lest it go on pressing."""
        held = dict(self._goals)
        for i, servo in enumerate(self._ids):
            if self._health.strained(servo) and math.isfinite(self.telemetry.position[i]):
                here = self._joints[i].steps(self.telemetry.position[i])
                held[servo] = max(self._least[i], min(self._most[i], here))
        return held

    def _tell(self, off: bool, why: str, outcome: dict[int, str]) -> None:
        names = connect.names(self._calibration)
        state = "torque off" if off else "torque ON, the arm holds its pose: support it and cut its power"
        parked = "parked, " if off and self._end == "park" and not why else ""
        print(f"takt: {parked}{state}{': ' if why else ''}{why}", file=sys.stderr)
        for servo, words in outcome.items():
            if words:
                print(f"takt: {names[servo]} (id {servo}) not made safe: {words}", file=sys.stderr)


def spec(joints: dict[str, Joint], cameras: tuple[CameraSpec, ...]) -> RobotSpec:
    """The arm's description: metal's limits, each range what is both calibrated and nominal, shortened.

    Raises:
        TaktError: a joint has no such range.
    """
    rows = []
    for name, (lower, upper) in so101.JOINTS.items():
        low, high = max(lower, joints[name].lower), min(upper, joints[name].upper)
        if high - low < files.LEAST:
            raise TaktError(f"{name} is calibrated for {low:.2f} to {high:.2f} rad: calibrate it again")
        rows.append(Dimension(name, "rad", low, high))
    metal = so101.METAL
    return RobotSpec(
        name="so101",
        state=tuple(so101.JOINTS),
        actions=shrunk(ActionSpace(tuple(rows)), metal.margin),
        cameras=cameras,
        max_velocity=metal.velocity,
        max_acceleration=metal.acceleration,
        max_lead=(metal.lead,) * len(rows),
    )


def make(
    port: str = "",
    calibration: Path | None = None,
    end: str = "park",
    configure: str = "no",
    cameras: str = "",
    patience: str = str(PATIENCE),
    plant: str = "",
) -> Arm:
    """The robot `so101`. Options are words: see docs/robots.md.

    Raises:
        TaktError: one is missing or wrong.
    """
    if not port:
        raise TaktError("which line are the servos on? --port /dev/ttyACM0, or --port emulated")
    if calibration is None and port != EMULATED:
        raise TaktError("an arm of metal needs its calibration: --calibration FILE, as LeRobot writes it")
    seen = cameras or ("pattern" if port == EMULATED or plant else "none")
    if seen not in ("pattern", "none") or configure not in ("yes", "no"):
        raise TaktError("--options cameras=pattern or none, configure=yes or no")
    seconds = seconds_of(patience)
    arm = files.read(Path(calibration)) if calibration is not None else so101_servos(0.0)[1]
    if seen == "pattern" and not plant:
        print("takt: there are no cameras: the policy sees a test pattern", file=sys.stderr)
    return Arm(port, arm, end, configure == "yes", seconds, CAMERAS if seen == "pattern" else (), plant)
