"""An arm of metal, or an emulated one, behind the `Robot` seam: servos on a serial line, see `bodies`.

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from robot_io import calibration as files
from robot_io import camera_options, connect, grip
from robot_io.bodies import GRIPPER, SO101, Body
from robot_io.bus import PATIENCE, Bus, Traffic, attempt, seconds_of
from robot_io.calibration import Calibration, Joint
from robot_io.camera import Cameras, Looked
from robot_io.camera_options import Asked
from robot_io.dryrun import CAMERAS, pattern
from robot_io.emulator import Emulator, servos_of
from robot_io.health import Health
from robot_io.packets import Answer
from robot_io.park import park
from robot_io.plants import FRAMES, address
from robot_io.port import Port, PortGone
from robot_io.registers import TORQUE_LIMIT, pick
from robot_io.telemetry import Telemetry
from runtime.safety import shrunk
from runtime.so101 import METAL, Profile
from vla.contract import ActionSpace, CameraSpec, Dimension, Observation, RobotSpec, TaktError

EMULATED = "emulated"  # the port's name for servos that are started with the arm
ENDS = ("park", "hold", "off")
PROFILES = SO101.profiles
UNHURRIED = 0.05  # s of patience, at least, where no beat has to be kept: at the start and at the end


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
        watched: tuple[Asked, ...] = (),
        profile: Profile = METAL,
        body: Body = SO101,
    ) -> None:
        """
        Args:
            port: the serial line, or `EMULATED`.
            end: what it does at the end, one of `ENDS`; "off" lets go of the arm whatever happened.
            configure: write settings that differ, see `connect.check`.
            patience: s, see `Bus`.
            cameras: names and sizes of what it shows: the plant's frames, or test patterns without one.
            plant: what stands behind emulated servos, see `plants`.
            watched: cameras that it has, a process each, see `camera`; instead of `cameras`.
            profile: its limits; emulated servos alone may have others than metal's.
            body: which arm it is.

        Raises:
            TaktError: an unknown end, or a joint whose calibrated range holds none of its nominal one.
        """
        if end not in ENDS:
            raise TaktError(f"no end {end!r}; valid: {', '.join(ENDS)}")
        self._port, self._end, self._configure, self._patience = port, end, configure, patience
        self._calibration, self.body = calibration, body
        self._ids = [motor.id for motor in calibration.values()]
        self._joints = [Joint.of(joint, motor, body) for joint, motor in calibration.items()]
        self._cameras: Cameras | None = None
        self._looked = Looked({camera.name: pattern(camera, i) for i, camera in enumerate(cameras)})
        self._watched = watched
        self._spec = spec(
            dict(zip(calibration, self._joints, strict=True)),
            Cameras(watched).specs if watched else cameras,
            profile,
            body,
        )
        if plant and port != EMULATED:
            raise TaktError("a plant stands behind emulated servos: --port emulated")
        if plant and body is not SO101:
            raise TaktError(f"plants move {SO101.title}, not {body.title}")
        self._plant = plant
        self._open = ExitStack()

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    def fit(self, cameras: tuple[CameraSpec, ...]) -> None:
        """Frames in the sizes that a policy wants, by name; to be called before it is entered."""
        sizes = {camera.name: camera for camera in cameras}
        if self._watched:
            self._spec = replace(
                self._spec, cameras=tuple(sizes.get(own.name, own) for own in self._spec.cameras)
            )

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
                emulator = stack.enter_context(Emulator(plant=self._plant, robot=self.body.name))
                path = emulator.port
                self._looks_at(emulator.folder)
            if self._watched:
                self._cameras = stack.enter_context(Cameras(self._watched, self._spec.cameras))
            port = Port(path)
            stack.callback(port.close)
            self._bus = Bus(port, max(self._patience, UNHURRIED), self.body.family)
            self.found = connect.check(self._bus, self._calibration, self._configure, self.body)
            self._begin()
            try:
                connect.switch_on(self._bus, self._calibration, self.found, self.body)
                self._on = True
                self._bus.patience = self._patience
            except BaseException:
                outcome = self._bus.safe(self._ids, None if self.found.limp else self._goals)
                self._tell(self.found.limp, "it could not be switched on", outcome)
                raise
            self._open = stack.pop_all()
        return self

    def _looks_at(self, folder: Path) -> None:
        """The cameras of the plant in a folder, as if they were cameras."""
        if self._plant and not self._watched:
            feed = address(folder, FRAMES)
            self._watched = tuple(
                Asked(c.name, "feed", feed, (c.width, c.height)) for c in self._spec.cameras
            )

    def _begin(self) -> None:
        now = time.monotonic()
        self._health = Health(connect.names(self._calibration), self.found.rated, self.body.family)
        self._grip = grip.of(self.body, self._calibration[GRIPPER].id, self.found.rated)
        self._gone = ""
        self._on, self._turn = False, 0
        self.traffic = Traffic()
        models = [self.body.model(joint) for joint in self._calibration]
        self.telemetry = Telemetry(self.body.family, models, self._joints, now)
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
        self._asleep = list(self._ids)  # watchdogs until the first goal: an arm may wait long for that
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
        if self._cameras is not None:
            self._looked = self._cameras.look()
        seen, looked = self.telemetry, self._looked
        return Observation(
            float(seen.time.min()),
            seen.position.astype(np.float32),
            dict(looked.frames),
            captured=looked.captured,
            faults=self.faults,
            blind=looked.blind,
            pace=self._health.pace(time.monotonic()),
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
            self._on_the_line(self._send)

    def _send(self) -> None:
        self._bus.sync_write(self.body.family.goal, self._goals)
        if self._grip is not None and (due := self._grip.due()):
            self._bus.sync_write(TORQUE_LIMIT, due)
        if self._asleep:
            self._wake(self._asleep)

    def _wake(self, servos: Sequence[int]) -> None:
        """From now on these servos' watchdogs stop them when nobody speaks."""
        family = self.body.family
        if family.watchdog is not None:
            self._bus.sync_write(family.watchdog, dict.fromkeys(servos, family.bite))
        self._asleep = []

    def _on_the_line(self, what: Callable[[], None]) -> None:
        try:
            what()
        except PortGone as error:
            self._gone = str(error)  # it does not come back by itself: a new run opens the line anew

    def _ask(self) -> None:
        now = time.monotonic()
        answers = self._bus.read(self._ids, *self.body.family.feedback)
        bits = self._errors(answers)
        for i, servo in enumerate(self._ids):
            if (answer := answers.get(servo)) is not None:
                self._health.heard(servo, bits[servo])
                self.telemetry.keep(i, answer.data, bits[servo], now)
                self._health.felt(servo, *self.telemetry.strain(i), now)
                if self._grip is not None and servo == self._grip.servo:
                    self._grip.felt(*self.telemetry.strain(i)[1:], now)
            else:
                self._health.missed(servo, now)
                if self._grip is not None and servo == self._grip.servo:
                    self._grip.missed(now)
        self._turn = (self._turn + 1) % len(self._ids)
        if self._on and self._ids[self._turn] in answers:
            self._audit(self._ids[self._turn])

    def _errors(self, answers: Mapping[int, Answer]) -> dict[int, int]:
        """Error bits of who answered: in the feedback, or asked for where an answer says there are some."""
        family = self.body.family
        start = family.feedback[0]
        if not family.alert:
            return {s: answer.error | pick(family.error, answer.data, start) for s, answer in answers.items()}
        bits = {s: answer.error & family.alert for s, answer in answers.items()}
        if alerted := [servo for servo, up in bits.items() if up]:
            for servo, answer in self._bus.read(alerted, family.error.address, family.error.size).items():
                bits[servo] = family.error.decode(answer.data) or bits[servo]
        return bits

    def _audit(self, servo: int) -> None:
        """Look at one servo more closely: is it on, and what of its watchdog?"""
        family = self.body.family
        start, size = family.audit
        if (answer := self._bus.read([servo], start, size).get(servo)) is None:
            return
        self._health.torque(servo, pick(family.torque, answer.data, start))
        if family.watchdog is not None:
            value = pick(family.watchdog, answer.data, start)
            self._health.watchdog(servo, value)
            if self._told and value == 0:
                self._wake([servo])  # it has missed the packet that was to

    # -- leaving

    def __exit__(self, *exc: object) -> None:
        """Made safe whatever happened; what could not be done is told in a line on stderr."""
        with self._open:
            self._bus.patience = max(self._patience, UNHURRIED)
            attempt(self._look_at_watchdogs)
            attempt(self._bus.rest)  # one that has bitten lets no goal in
            try:
                why = "" if self._end != "park" else self._park(exc[0])
            except BaseException as error:  # nothing comes before the servos
                why = str(error) or type(error).__name__
            off = self._end == "off" or (self._end == "park" and not why)
            left = attempt(self._ease)
            outcome = self._bus.safe(self._ids, None if off else self._holding())
            if left and not off and self._grip is not None:
                outcome[self._grip.servo] = outcome[self._grip.servo] or f"it may press too hard: {left}"
            self._tell(off, why, outcome)

    def _look_at_watchdogs(self) -> str:
        """Which of them have bitten, before they are let rest and do not know it any more."""
        family = self.body.family
        if family.watchdog is not None and not self._gone:
            for servo, answer in self._bus.read(self._ids, *family.audit).items():
                self._health.watchdog(servo, pick(family.watchdog, answer.data, family.audit[0]))
        return ""

    def _ease(self) -> str:
        """From now on nobody looks how long the gripper presses; what went wrong, "" when nothing did."""
        if self._grip is None:
            return ""
        for servo, value in self._grip.rest().items():
            self._bus.write(servo, TORQUE_LIMIT, value)
            if (seen := self._bus.value(servo, TORQUE_LIMIT)) != value:
                return f"{TORQUE_LIMIT.name} is {seen}, not {value}"
        return ""

    def _park(self, failed: object) -> str:
        """Go where it was found; why it could not, "" when it did."""
        if self.found.limp and not self._told:
            return ""  # it stands where it was found
        if failed not in (None, KeyboardInterrupt):
            return "the run failed"
        if any(map(self._health.stopped, self._ids)):
            return "servos had stopped by themselves, as nothing was heard of the host"
        if not self.found.limp:
            return "it was found switched on, and where it would stand by itself is not known"
        found = [j.angle(self.found.steps[s]) for j, s in zip(self._joints, self._ids, strict=True)]
        commanded = [j.angle(self._goals[s]) for j, s in zip(self._joints, self._ids, strict=True)]
        return park(self, np.array(commanded), np.array(found))

    def _holding(self) -> dict[int, int]:
        """The last goals; a servo with an error, or that had stopped, stays where it is, lest it press on."""
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


def spec(
    joints: dict[str, Joint], cameras: tuple[CameraSpec, ...], profile: Profile = METAL, body: Body = SO101
) -> RobotSpec:
    """The arm's description: the profile's limits, each range what is both calibrated and nominal, shortened.

    Raises:
        TaktError: a joint has no such range.
    """
    rows = []
    for name, (lower, upper) in body.joints.items():
        low, high = max(lower, joints[name].lower), min(upper, joints[name].upper)
        if high - low < files.LEAST:
            raise TaktError(f"{name} is calibrated for {low:.2f} to {high:.2f} rad: calibrate it again")
        rows.append(Dimension(name, "rad", low, high))
    return RobotSpec(
        name=body.name,
        state=tuple(body.joints),
        actions=shrunk(ActionSpace(tuple(rows)), profile.margin),
        cameras=cameras,
        max_velocity=profile.velocity,
        max_acceleration=profile.acceleration,
        max_lead=(profile.lead,) * len(rows),
    )


def make(
    port: str = "",
    calibration: Path | None = None,
    end: str = "park",
    configure: str = "no",
    cameras: str = "",
    patience: str = str(PATIENCE),
    plant: str = "",
    limits: str = "metal",
) -> Arm:
    """The robot `so101`. Options are words: see docs/robots.md.

    Raises:
        TaktError: one is missing or wrong.
    """
    return made(SO101, port, calibration, end, configure, cameras, patience, plant, limits)


def made(
    body: Body,
    port: str,
    calibration: Path | None,
    end: str,
    configure: str,
    cameras: str,
    patience: str,
    plant: str,
    limits: str,
) -> Arm:
    """An arm by the words of a user. Raises as `make` does."""
    if not port:
        raise TaktError("which line are the servos on? --port /dev/ttyACM0, or --port emulated")
    if calibration is None and port != EMULATED:
        raise TaktError("an arm of metal needs its calibration: --calibration FILE, as LeRobot writes it")
    seen = cameras or ("pattern" if port == EMULATED or plant else "none")
    if configure not in ("yes", "no"):
        raise TaktError("--options configure=yes or no")
    if limits not in body.profiles or (limits != "metal" and port != EMULATED):
        others = [name for name in body.profiles if name != "metal"]
        more = f", or {', '.join(others)} with --port emulated" if others else f"; {body.title} has no others"
        raise TaktError(f"--options limits=metal{more}")
    watched = () if seen in ("pattern", "none") else camera_options.parse(seen)
    seconds = seconds_of(patience)
    arm = files.read(Path(calibration), body) if calibration is not None else servos_of(body, 0.0)[1]
    if seen == "pattern" and not plant:
        print("takt: there are no cameras: the policy sees a test pattern", file=sys.stderr)
    shown = CAMERAS if seen == "pattern" else ()
    profile = body.profiles[limits]
    return Arm(port, arm, end, configure == "yes", seconds, shown, plant, watched, profile, body)
