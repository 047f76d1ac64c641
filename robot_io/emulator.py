"""Servos on a pseudo-terminal, in a process of their own: a driver cannot tell them from a serial adapter.

    python -m robot_io.emulator FOLDER [--robot so101|koch] [--seed N]     an arm that LeRobot has set up

    FOLDER/port                the line: give it to a driver in place of /dev/ttyACM0
    FOLDER/calibration.json    the arm's, as LeRobot writes it
    FOLDER/log                 every byte that arrived: seconds, bytes in hexadecimal
    FOLDER/control             a socket: one JSON object a line, answered by one

`Emulator` starts such a process and talks to it:

    {"faults": {...}}                  from now on these faults, see `emulated_line.Faults`
    {"cut": 3, "seconds": 0.5}         servo 3 loses its power for half a second
    {"hand": {"3": 2100}}              somebody moves servo 3's shaft there, in steps of `actual`; one whose
                                       torque is on resists
    {"unplug": true}                   the line goes, as when the adapter is pulled out
    {"renew": true}                    other servos, as at the beginning, and an empty log
    {"look": true}                     nothing happens; every answer tells what each servo does
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robot_io import calibration, dynamixel, feetech, registers
from robot_io.bodies import BODIES, SO101, Body
from robot_io.emulated import Servo
from robot_io.emulated_line import Faults, Line
from robot_io.emulated_x import XServo
from robot_io.sts import STS
from runtime.child import follow, stop
from vla.contract import TaktError

WAIT = 30.0  # s until it is there, or answers
_IDLE = 0.005  # s between looks for somebody on the line
REST = SO101.rest


class _Process:
    """The pseudo-terminal, the control socket, and the servos between them; `lead` moves their shafts."""

    def __init__(
        self, folder: Path, make: Callable[[], Line], lead: Callable[[Line, float], None] | None = None
    ) -> None:
        self._make, self.line, self._lead = make, make(), lead
        self._log = open(folder / "log", "w", buffering=1)  # noqa: SIM115 (open as long as the process)
        self._master, slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(slave)
        os.symlink(os.ttyname(slave), folder / "port")
        # Not kept open: the last owner's lock ends with it, even when it was killed.
        os.close(slave)
        os.set_blocking(self._master, False)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(folder / "control"))
        self._listener.listen()
        self._peers: dict[socket.socket, bytes] = {}
        self._leaving: list[tuple[float, bytes]] = []

    def run(self) -> None:
        """Until the line is unplugged."""
        taken = False
        while self._master >= 0:
            now = time.monotonic()
            self._leave(now)
            if self._lead is not None:
                self._lead(self.line, now)
            rest = max(0.0, self._leaving[0][0] - now) if self._leaving else _IDLE
            inputs: list[Any] = [self._listener, *self._peers]
            ready, _, _ = select.select([self._master, *inputs] if taken else inputs, [], [], rest)
            if self._master in ready or not taken:
                taken = self._arrive()
            for each in ready:
                if each is self._listener:
                    self._peers[each.accept()[0]] = b""
                elif each in self._peers:
                    self._hear(each)

    def _arrive(self) -> bool:
        """Take what has come; False while nobody has the line open."""
        try:
            piece = os.read(self._master, 4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        now = time.monotonic()
        print(f"{now:.6f} {piece.hex()}", file=self._log)
        self._leaving = sorted(self._leaving + self.line.receive(piece, now), key=lambda each: each[0])
        return True

    def _leave(self, now: float) -> None:
        while self._leaving and self._leaving[0][0] <= now:
            with contextlib.suppress(OSError):  # nobody is there, or nobody reads
                os.write(self._master, self._leaving[0][1])
            del self._leaving[0]

    def _hear(self, peer: socket.socket) -> None:
        piece = b""
        with contextlib.suppress(ConnectionError):
            piece = peer.recv(65536)
        if not piece:
            del self._peers[peer]
            peer.close()
            return
        *lines, self._peers[peer] = (self._peers[peer] + piece).split(b"\n")
        for line in lines:
            with contextlib.suppress(ConnectionError):
                peer.sendall(json.dumps(self._obey(json.loads(line))).encode() + b"\n")

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        now = time.monotonic()
        self.line.advance(now)
        if order.get("renew"):
            self.line, self._leaving = self._make(), []
            self._log.truncate(0)
            self._log.seek(0)
        if "faults" in order:
            given = order["faults"]
            for name in ("errors", "heat", "supply"):  # JSON's keys are words
                given[name] = {int(servo): value for servo, value in given.get(name, {}).items()}
            self.line.fail(Faults(**given))
        if "cut" in order:
            self.line.cut_power(order["cut"], now, order.get("seconds", 0.0))
        for servo, steps in order.get("hand", {}).items():
            self.line.hand(int(servo), float(steps), now)
        if order.get("unplug"):
            os.close(self._master)
            self._master = -1
        servos = {s.id: {"actual": s.actual, "load": s.load} | _told(s) for s in self.line.servos}
        return {"time": now, "servos": servos}


def _told(servo: Servo | XServo) -> dict[str, int]:
    return {name: servo.get(register) for name, register in servo.table.items()}


def servos_of(body: Body, now: float) -> tuple[list[Servo] | list[XServo], calibration.Calibration]:
    """The servos of an arm as LeRobot leaves them, and its calibration."""
    arm = {}
    for joint, servo in body.ids.items():
        lower, upper = body.joints[joint]
        half = math.ceil((upper - lower) / 2 / registers.RAD)
        ends = (0, registers.STEPS - 1) if joint in body.endless else (2048 - half, 2048 + half)
        turned = int(joint in body.turned)  # one that counts downwards has its middle a turn higher
        arm[joint] = calibration.Motor(servo, turned, 20 * servo - 70 + turned * registers.STEPS, *ends)
    made: list[Any] = []
    for pose, (joint, motor) in zip(body.rest, arm.items(), strict=True):
        settings = calibration.settings(joint, motor, body)
        said = calibration.Joint.of(joint, motor, body).steps(pose)
        at = said + body.family.offset * motor.homing_offset
        at = -at if joint in body.turned else at
        if body.family is STS:
            made.append(Servo(motor.id, at, now, settings))
        else:
            made.append(XServo(motor.id, at, now, settings, body.model(joint)))
    return made, arm


def so101_servos(now: float) -> tuple[list[Servo], calibration.Calibration]:
    """The six servos of an SO-101 as LeRobot leaves them, and its calibration."""
    servos, arm = servos_of(SO101, now)
    return [servo for servo in servos if isinstance(servo, Servo)], arm


class Emulator:
    """An emulated arm in a process of its own, for as long as `with` lasts.

    Attributes:
        body: which arm it is.
        port: the line's path.
        calibration: its calibration file.
        unplugged: whether it was told to go; its process then ends.
    """

    def __init__(
        self, folder: Path | None = None, seed: int = 0, plant: str = "", robot: str = SO101.name
    ) -> None:
        """
        Args:
            folder: empty, and its path short, as those of sockets are; a temporary one by default.
            plant: what moves the shafts and shows frames, see `plants`; by default they move by themselves.
            robot: whose servos, see `bodies`.
        """
        self._plant, self.body = plant, BODIES[robot]
        self._kept = None if folder else tempfile.TemporaryDirectory(prefix="takt-bus-")
        self.folder = folder or Path(self._kept.name if self._kept else "")
        self.port, self.calibration = str(self.folder / "port"), self.folder / "calibration.json"
        self._seed = seed
        self.unplugged = False

    def __enter__(self) -> Emulator:
        command = [sys.executable, "-m", "robot_io.emulator", str(self.folder), "--seed", str(self._seed)]
        command += ["--robot", self.body.name, *(["--plant", self._plant] if self._plant else [])]
        self.folder.mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C reaches who drives the arm alone, who then makes it safe. What it says
        # is kept: why it did not start belongs into the one line that says so.
        with open(self.folder / "said", "wb") as said:
            self._child = subprocess.Popen(
                [*command, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL, stderr=said, start_new_session=True,
            )  # fmt: skip
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(WAIT)
        end = time.monotonic() + WAIT
        while True:
            try:
                self._socket.connect(str(self.folder / "control"))
                return self
            except OSError:
                if self._child.poll() is not None or time.monotonic() > end:
                    why = self._said()[-1:]
                    self._stop()
                    raise TaktError(": ".join(["the emulated servos did not start", *why])) from None
                time.sleep(0.01)

    def __exit__(self, *exc: object) -> None:
        for line in self._said():
            print(f"takt: {line}", file=sys.stderr)
        self._stop()

    def _said(self) -> list[str]:
        """What the process said of itself, by line."""
        text = (self.folder / "said").read_text(errors="replace")
        return [line.removeprefix("takt: ") for line in text.splitlines() if line.strip()]

    def _stop(self) -> None:
        self._socket.close()
        stop(self._child)
        if self._kept is not None:
            self._kept.cleanup()

    def order(self, **order: Any) -> dict[str, Any]:
        """One order, see the top of this file; what the servos do then."""
        self.unplugged |= bool(order.get("unplug"))
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            piece = self._socket.recv(65536)
            if not piece:
                raise TaktError("the emulated servos have ended")
            line += piece
        return json.loads(line)

    def fail(self, **faults: Any) -> None:
        """From now on these faults and no others."""
        self.order(faults=faults)

    def hand(self, steps: Mapping[int, float]) -> None:
        """Move shafts as a person does: servo -> where to, in steps of `actual`."""
        self.order(hand={str(servo): float(at) for servo, at in steps.items()})

    def look(self) -> Mapping[int, Mapping[str, float]]:
        """What each servo does: its registers by name, `actual` and `load`."""
        return {int(servo): told for servo, told in self.order(look=True)["servos"].items()}

    def heard(self) -> list[tuple[float, Any]]:
        """Every instruction that arrived, a packet of its codec, with its time, s."""
        decoder: Any = (feetech if self.body.family is STS else dynamixel).Decoder()
        found = []
        for line in (self.folder / "log").read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                when, piece = line.split(" ")
                found += [(float(when), packet) for packet in decoder.feed(bytes.fromhex(piece))]
        return found


def main() -> int:
    """Be the emulator; a mistake is one line."""
    try:
        return _serve(_arguments())
    except (TaktError, OSError) as error:
        print(f"takt: {error}", file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m robot_io.emulator", description="An emulated arm.")
    parser.add_argument("folder", type=Path, help="where its port, control socket and log are made")
    parser.add_argument("--seed", type=int, default=0, help="of the faults' dice")
    parser.add_argument("--robot", choices=sorted(BODIES), default=SO101.name, help="whose servos")
    parser.add_argument("--plant", default="", help="what moves the shafts: a name of takt.plants")
    parser.add_argument("--parent", type=int, help="end with this process")
    return parser.parse_args()


def _serve(args: argparse.Namespace) -> int:
    if args.parent is not None:
        follow(args.parent)
    args.folder.mkdir(parents=True, exist_ok=True)
    for left in ("port", "control", "plant", "frames", "world"):
        (args.folder / left).unlink(missing_ok=True)
    body = BODIES[args.robot]
    arm = servos_of(body, 0.0)[1]
    calibration.write(args.folder / "calibration.json", arm)
    lead = None
    if args.plant:
        from robot_io.plants import Lead  # what it needs costs a start without a plant a tenth of a second

        lead = Lead(args.plant, args.folder, arm)
    process = _Process(args.folder, lambda: Line(servos_of(body, time.monotonic())[0], args.seed), lead)
    if args.parent is None:
        print(
            f"servos {min(body.ids.values())}-{max(body.ids.values())} at {args.folder / 'port'}", flush=True
        )
    with contextlib.suppress(KeyboardInterrupt):
        process.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
