"""An arm that a person leads: one without torque, whose joints are another robot's targets.

    with Leader(port, calibration) as leader:
        time, joints = leader.joints()      one request, one look at what has come

Its torque is switched off, so it has to be held, or to lie where it stands by itself. Nothing is written
into its EPROM.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from robot_io import calibration as files
from robot_io import connect
from robot_io.bodies import KOCH_LEADER, SO101, Body
from robot_io.bus import PATIENCE, Bus, seconds_of
from robot_io.calibration import Calibration, Joint
from robot_io.port import Port, PortGone
from vla.contract import TaktError

UNHURRIED = 0.05  # s of patience where no beat has to be kept


class Leader:
    """One arm. Not shared between threads."""

    def __init__(
        self, port: str, calibration: Calibration, patience: float = PATIENCE, body: Body = SO101
    ) -> None:
        self._port, self._calibration, self._patience, self._body = port, calibration, patience, body
        self._joints = [(motor.id, Joint.of(joint, motor, body)) for joint, motor in calibration.items()]

    def __enter__(self) -> Leader:
        """
        Raises:
            TaktError: a servo is missing, has a fault, is set otherwise than its calibration says, or cannot
                be switched off.
        """
        port = Port(self._port)
        try:
            self._bus = Bus(port, UNHURRIED, self._body.family)
            connect.check_led(self._bus, self._calibration, self._body)
            outcome = self._bus.safe([servo for servo, _ in self._joints])
            names = connect.names(self._calibration)
            for servo, words in outcome.items():
                if words:
                    raise TaktError(f"the leader's {names[servo]} (id {servo}) is not switched off: {words}")
            self._bus.patience = self._patience
            self._gone = ""
            self._times = np.full(len(self._joints), -np.inf)
            self._angles = np.full(len(self._joints), np.nan)
            self.joints()
        except BaseException:
            port.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._bus.port.close()

    def joints(self) -> tuple[float, np.ndarray]:
        """When the joint that was silent longest was read, s, monotonic, and all joints, shape (6,), rad."""
        self._bus.take()
        now = time.monotonic()
        ids, position = [servo for servo, _ in self._joints], self._body.family.position
        answers = {}
        if not self._gone:
            try:
                answers = self._bus.read(ids, position.address, position.size)
            except PortGone as error:
                # The robot holds, as its targets are old; then the run ends.
                self._gone = str(error)
                print(f"takt: the leader: {error}", file=sys.stderr, flush=True)
        for i, (servo, joint) in enumerate(self._joints):
            if servo in answers:
                self._times[i] = now
                self._angles[i] = joint.angle(position.decode(answers[servo].data))
        return float(self._times.min()), self._angles.copy()


def make(port: str, calibration: Path | None = None, patience: str = str(PATIENCE)) -> Leader:
    """The leader `so101` (entry points `takt.leaders`). Options are words, as those of the robot `so101`.

    Raises:
        TaktError: what is missing.
    """
    return made(SO101, port, calibration, patience)


def koch(port: str, calibration: Path | None = None, patience: str = str(PATIENCE)) -> Leader:
    """The leader `koch`, a Koch's. Options and errors as those of `make`."""
    return made(KOCH_LEADER, port, calibration, patience)


def made(body: Body, port: str, calibration: Path | None, patience: str) -> Leader:
    """A leader by the words of a user. Raises as `make` does."""
    if calibration is None:
        raise TaktError("the leader needs its calibration: --leader-calibration FILE (takt calibrate)")
    if port == "emulated":
        raise TaktError("nobody leads an emulated arm: name the line of one, --leader /dev/ttyACM1")
    return Leader(port, files.read(Path(calibration), body), seconds_of(patience), body)
