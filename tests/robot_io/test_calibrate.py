"""`takt calibrate` in a terminal, with hands on the emulated arm; an arm is met with what it writes."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from robot_io import calibration
from robot_io import registers as r
from robot_io.arm import Arm
from robot_io.bodies import SO101
from robot_io.calibrate import MIDDLE, Ranges
from robot_io.emulator import Emulator
from runtime.so101 import JOINTS
from tests.runtime.peers import PATIENCE

ROOT = Path(__file__).parents[2]
ARM = SO101.ids  # a Koch's are the same
# Where each shaft stands in the arm's middle pose, and how far it goes to both sides, steps of a turn.
SHAFTS = {servo: 1500 + 180 * servo for servo in ARM.values()}
REACH = {servo: 900 + 20 * servo for servo in ARM.values()}
PLACED = ("homing_offset", "min_position", "max_position")


@pytest.fixture(params=["so101", "koch_leader"])  # a Koch is calibrated as its leader is, no joint turned
def robot(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Terminal:
    """A terminal with the command in it."""

    def __init__(self, *args: str) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "vla", "calibrate", *args]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
            # As below a shell's `&`: what asks questions in a terminal is to hear Ctrl-C all the same.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )  # fmt: skip
        os.close(slave)
        self.said = ""

    def hear(self, words: str) -> None:
        """Until it has said something; a test fails when it ends before."""
        while words not in self.said:
            try:
                self.said += self._read().decode()
            except OSError:  # it has ended
                assert words in self.said, self.said
        self.said = self.said.partition(words)[2]

    def _read(self) -> bytes:
        assert select.select([self._master], [], [], PATIENCE)[0], f"nothing comes after: {self.said}"
        return os.read(self._master, 65536)

    def enter(self) -> None:
        os.write(self._master, b"\n")

    def status(self) -> int:
        try:
            while piece := self._read():
                self.said += piece.decode()
        except OSError:
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def asked(arm: Emulator, out: Path, *more: str) -> Iterator[Terminal]:
    terminal = Terminal("--port", arm.port, "--robot", arm.body.name, "--out", str(out), *more)
    try:
        yield terminal
    finally:
        terminal.close()


def placed(arm: Emulator) -> dict[int, tuple[float, ...]]:
    """Offset and ends, as the servos hold them."""
    return {servo: tuple(seen[name] for name in PLACED) for servo, seen in arm.look().items()}


def middle(arm: Emulator, terminal: Terminal) -> None:
    """Up to the middle pose."""
    terminal.hear("Enter when you hold it")
    terminal.enter()
    terminal.hear("Enter when it is there")
    assert {seen["torque"] for seen in arm.look().values()} == {r.OFF}
    arm.hand(SHAFTS)
    terminal.enter()
    terminal.hear("Enter when all were")


def sweep(arm: Emulator, servos: list[int]) -> None:
    """Move some from stop to stop, slowly enough to be seen at each."""
    for part in (-0.5, -1.0, 0.0, 0.5, 1.0, 0.2):
        arm.hand({servo: SHAFTS[servo] + part * REACH[servo] for servo in servos})
        time.sleep(0.3)  # as long as a hand takes


def test_an_arm_is_calibrated_by_hand(arm: Emulator, tmp_path: Path) -> None:
    out = tmp_path / "arms" / "mine.json"
    with asked(arm, out) as terminal:
        middle(arm, terminal)
        sweep(arm, [1, 2, 3, 5])
        terminal.enter()
        # Two joints were left out: it says which, and goes on.
        terminal.hear("wrist_flex, gripper: moved by less than")
        assert not out.exists()
        sweep(arm, [4, 6])
        terminal.enter()
        assert terminal.status() == 0, terminal.said
    found = calibration.read(out, arm.body)
    assert list(found) == list(JOINTS)
    for joint, motor in found.items():
        turned = int(joint in arm.body.turned)
        assert (motor.id, motor.drive_mode) == (ARM[joint], turned)
        shaft = -SHAFTS[motor.id] if turned else SHAFTS[motor.id]
        assert motor.homing_offset == arm.body.family.offset * (shaft - MIDDLE)
        ends = (
            (0, 4095) if joint in arm.body.endless else (MIDDLE - REACH[motor.id], MIDDLE + REACH[motor.id])
        )
        assert (motor.range_min, motor.range_max) == ends
    assert placed(arm) == {m.id: (m.homing_offset, m.range_min, m.range_max) for m in found.values()}
    # Nothing is left to be configured: the arm is met with it as it is, also after a power cut.
    for servo in SHAFTS:
        arm.order(cut=servo)
    with Arm(arm.port, found, patience=0.25, body=arm.body) as met:
        assert met.found.limp
        assert met.read().state[0] == pytest.approx(0.2 * REACH[1] * r.RAD, abs=2 * r.RAD)


def test_ctrl_c_puts_back_what_the_servos_held(arm: Emulator, tmp_path: Path) -> None:
    before, out = placed(arm), tmp_path / "mine.json"
    with asked(arm, out) as terminal:
        middle(arm, terminal)
        assert placed(arm) != before
        terminal.process.send_signal(2)
        assert terminal.status() == 130
        assert "Traceback" not in terminal.said
    assert placed(arm) == before and not out.exists()


@pytest.mark.parametrize("robot", ["so101"])
def test_a_file_that_is_there_and_a_place_without_a_terminal_are_one_line(
    arm: Emulator, tmp_path: Path
) -> None:
    out = tmp_path / "mine.json"
    out.write_text("{}")
    with asked(arm, out) as terminal:
        assert terminal.status() == 1
        assert terminal.said.splitlines() == [
            f"takt: {out} is there already; choose another name, or --overwrite"
        ]
    command = [
        sys.executable,
        "-m",
        "vla",
        "calibrate",
        "--port",
        arm.port,
        "--out",
        str(tmp_path / "new.json"),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "run it in a terminal" in done.stderr
    assert arm.heard() == []


def test_a_joint_that_passes_the_end_of_its_count_is_noticed() -> None:
    ranges = Ranges()
    ranges.see(dict.fromkeys(ARM, 2000))
    assert ranges.short() == [joint for joint in ARM if joint != "wrist_roll"]
    ranges.see(dict.fromkeys(ARM, 3900))
    assert not ranges.short() and not ranges.passed
    ranges.see(dict.fromkeys(ARM, 3900) | {"wrist_roll": 100})
    assert not ranges.passed
    ranges.see(dict.fromkeys(ARM, 3900) | {"elbow_flex": 100})
    assert ranges.passed == "elbow_flex"
    outside = Ranges()
    outside.see(dict.fromkeys(ARM, 2000) | {"gripper": -3})
    assert outside.passed == "gripper"
