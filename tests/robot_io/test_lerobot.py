"""LeRobot's robots through the bridge: a plugin of ours in LeRobot's own Python, and what reached it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_io import lerobot
from robot_io.lerobot import LeRobot
from runtime.clock import MonotonicClock, Ticker
from runtime.guard import Guard
from runtime.states import State
from tests.robot_io.bridged import LIMITS, Plugin, install
from tests.robot_io.greedy import Greedy
from tests.runtime.peers import PATIENCE, until
from vla.contract import CameraSpec, TaktError

SLOW = 3 * PATIENCE  # s; LeRobot imports for long where the machine is busy


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    return install(tmp_path, monkeypatch)


@contextmanager
def run(plugin: Plugin) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "vla", "run", "wave", "--robot", "lerobot", "--policy", "greedy"]
    command += ["--seconds", "120", "--json", str(plugin.folder / "out.json"), "--options"]
    command += [f"{name}={value}" for name, value in plugin.options.items()]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def moving(plugin: Plugin, process: subprocess.Popen[str], count: int) -> None:
    end = time.monotonic() + 2 * SLOW
    while len(plugin.log()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no action came"
        time.sleep(0.05)


def check(actions: np.ndarray) -> None:
    """All that was told was within the limits of the file."""
    for i, row in enumerate(LIMITS.values()):
        told = actions[:, 1 + i]
        assert (told >= row["lower"]).all() and (told <= row["upper"]).all()
        if "velocity" in row:
            # The guard steps by at most 0.1 s; a few commands may fall between two that arrived.
            assert np.abs(np.diff(told)).max() <= 0.5 * row["velocity"]
            # The policy wants far more than there is: what it got is what the guard lets through.
            assert np.ptp(told) > 0.3 * (row["upper"] - row["lower"])
    assert actions[:, 3].max() == LIMITS["x.vel"]["upper"]


def test_what_reaches_the_plugin_is_within_limits_and_ctrl_c_leaves_it(plugin: Plugin) -> None:
    with run(plugin) as process:
        moving(plugin, process, 120)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=SLOW)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert errors.endswith("takt: slide: disconnected, its torque as its LeRobot configuration says\n")
    check(plugin.actions())
    assert plugin.told() == ["connect", "disconnect"]
    assert plugin.actions()[-1, 3] == 0.0  # the base stands
    loop = json.loads((plugin.folder / "out.json").read_text())["loop"]
    assert loop["reason"] == "interrupted" and loop["verdicts"]["position"] > 0, output


@pytest.mark.slow
def test_a_killed_process_is_a_fault_in_words(plugin: Plugin) -> None:
    with run(plugin) as process:
        moving(plugin, process, 40)
        os.kill(plugin.pid(), signal.SIGKILL)
        output, errors = process.communicate(timeout=SLOW)
    assert process.returncode == 1 and "Traceback" not in errors
    assert "-> FAULT: robot fault, LeRobot's process died (killed by signal 9)" in output
    assert "slide: not disconnected, its motors may keep what they were last told" in errors


@pytest.mark.slow
def test_where_the_control_process_is_killed_lerobot_disconnects(plugin: Plugin) -> None:
    with run(plugin) as process:
        moving(plugin, process, 40)
        process.kill()
        process.wait()
        until(lambda: plugin.told() == ["connect", "disconnect"], "it stays connected")
    assert plugin.actions()[-1, 3] == 0.0  # the base stands
    until(lambda: not Path(f"/proc/{plugin.pid()}").exists(), "LeRobot's process stays")


@pytest.mark.slow
def test_trouble_and_silence_hold_then_fault(plugin: Plugin) -> None:
    with entered(plugin) as (robot, guard):
        drive(robot, guard, State.RUNNING)
        (plugin.folder / "trouble").touch()
        drive(robot, guard, State.HOLD)
        assert "state stale" in guard.status.reasons
        (plugin.folder / "trouble").unlink()
        drive(robot, guard, State.RUNNING)  # by itself
        os.kill(robot.pid, signal.SIGSTOP)
        drive(robot, guard, State.FAULT)
        assert guard.history[-1][3][-1] == "LeRobot's process has read nothing for 3 s"
        os.kill(robot.pid, signal.SIGCONT)
        wait(robot, lambda: not robot.faults)
        (plugin.folder / "trouble").touch()
        wait(robot, lambda: robot.faults)
        assert robot.faults == ("ConnectionError: no status packet",)
    assert plugin.told() == ["connect", "disconnect"]


@contextmanager
def entered(plugin: Plugin) -> Iterator[tuple[LeRobot, Guard]]:
    robot = lerobot.make(**plugin.options)  # type: ignore[arg-type]
    robot.fit((CameraSpec("top", 24, 32),))
    with robot:
        yield robot, Guard(robot.spec)


def drive(robot: LeRobot, guard: Guard, state: State) -> None:
    """Tick until the guard is in this state; a test fails when that does not come."""
    clock, policy = MonotonicClock(), Greedy()
    begun = clock.now()
    for scheduled, now in Ticker(clock, 0.02):
        seen = robot.read()
        assert clock.now() - now < PATIENCE / 4  # a read does not wait for the robot
        robot.write(guard(policy.infer(seen).actions[0], seen, now, now - scheduled))
        if guard.status.state is state:
            return
        assert now - begun < PATIENCE, f"{guard.status.state.name}: {guard.status.reasons}"


def wait(robot: LeRobot, condition: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        robot.read()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_type_that_lerobot_does_not_know_is_told_the_valid_ones(plugin: Plugin) -> None:
    with pytest.raises(TaktError, match=r"no robot of type 'slid'; valid: .*slide.*so101_follower") as caught:
        lerobot.make(**plugin.options | {"type": "slid"})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "which Python has LeRobot"),
        ({"python": "p"}, "which robot"),
        ({"python": "p", "type": "slide"}, "nothing moves without: --options limits=FILE.json"),
        ({"python": "p", "type": "slide", "limits": "/none"}, "cannot read the limits /none"),
        ({"python": "p", "type": "slide", "limits": "l", "rate": "fast"}, "rate=fast is not 1 to 1000"),
        ({"python": "p", "type": "slide", "limits": "l", "still": "1"}, "still=yes or no"),
        ({"python": "p", "type": "slide", "config": "/none"}, "cannot read the configuration /none"),
    ],
)
def test_what_is_missing_is_told_in_a_line(options: dict[str, str], words: str) -> None:
    with pytest.raises(TaktError, match=words):
        lerobot.make(**options)  # type: ignore[arg-type]


def test_no_such_python(tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text("{}")
    with pytest.raises(TaktError, match="cannot run /no/python: No such file"):
        lerobot.make(python="/no/python", type="slide", limits=str(tmp_path / "limits.json"))
