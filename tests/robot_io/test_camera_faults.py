"""A camera goes wrong while an arm moves: real processes, and the goals that reached the servos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from robot_io import calibration
from robot_io.arm import Arm
from robot_io.camera_options import parse
from robot_io.emulator import Emulator
from runtime.guard import Guard
from runtime.states import State
from tests.robot_io.driving import IDS, RATE, Drive, check_bytes
from tests.robot_io.feeder import SIZE, Feeder, feeding

pytest.importorskip("simplejpeg")
SPEED = 0.6  # rad/s, the fastest that the arm is asked for
WITHIN = 0.3  # s from the last good frame until motion has ended


def sway(now: float) -> np.ndarray:
    """A target `now` s after the beginning, shape (6,), rad; never at rest in all joints."""
    return SPEED / 2.0 * np.sin(2.0 * now + np.array([0, 1, 3, 2, 3, 0.5])) + np.array(
        [0, -1, 1, 0.6, 0, 0.5]
    )


@contextmanager
def seeing(emulator: Emulator, folder: Path) -> Iterator[tuple[Drive, Feeder]]:
    """An arm with a camera, entered and running."""
    with feeding(folder) as feeder:
        watched = parse(f"front:pipe:{feeder.fifo},size={SIZE[0]}x{SIZE[1]}")
        arm = Arm(emulator.port, calibration.read(emulator.calibration), patience=0.05, watched=watched)
        with arm:
            feeder.begun()
            driven = Drive(arm, Guard(arm.spec))
            driven.until(lambda: driven.state is State.RUNNING, sway)
            driven.run(60, sway)
            yield driven, feeder


def stands(emulator: Emulator, arm: Arm, after: float) -> float:
    """When a goal other than the last one was sent last, s; that there was motion after `after`."""
    told = [w for w in check_bytes(emulator, arm) if w.name == "goal" and not w.alone]
    rows = {servo: [(w.time, w.value) for w in told if w.servo == servo] for servo in IDS}
    changed = [
        max(t for (t, v), (_, b) in zip(row[1:], row, strict=False) if v != b) for row in rows.values()
    ]
    assert max(changed) > after - 0.1, "it did not move"
    return max(changed)


@pytest.mark.parametrize("word", ["same", "dark", "damaged"])
def test_a_camera_that_goes_wrong_ends_motion_and_the_arm_goes_on_with_it(
    arm: Emulator, tmp_path: Path, word: str
) -> None:
    with seeing(arm, tmp_path) as (driven, feeder):
        begun = feeder.say(word)
        ticks = len(driven.poses)
        driven.until(lambda: driven.state is State.HOLD and driven.guard.still, sway)
        assert "camera stale; front: " in driven.told
        driven.run(25, sway)
        assert driven.state is State.HOLD, "it moved again, blind"
        times = np.array([time for time, _ in driven.poses[ticks:]])
        ended = stands(arm, driven.arm, begun)
        # What the machine itself took from a beat is no share of the promise.
        stalled = float(np.maximum(np.diff(times) - 1.5 / RATE, 0.0).sum())
        assert ended - begun <= WITHIN + stalled
        feeder.say("moving")
        driven.until(lambda: driven.state is State.RUNNING, sway)
        driven.run(10, sway)
        assert driven.state is State.RUNNING
    check_bytes(arm, driven.arm)


def test_a_source_that_is_killed_holds_the_arm_and_another_lets_it_go_on(
    arm: Emulator, tmp_path: Path
) -> None:
    with seeing(arm, tmp_path) as (driven, feeder):
        feeder.kill()
        driven.until(lambda: driven.state is State.HOLD and driven.guard.still, sway)
        assert "front: " in driven.told
        feeder.start()
        driven.until(lambda: driven.state is State.RUNNING, sway)
    check_bytes(arm, driven.arm)


def test_a_camera_process_that_is_killed_holds_the_arm_and_is_started_again(
    arm: Emulator, tmp_path: Path
) -> None:
    watched = parse("front:pattern,wrist:pattern")
    with Arm(arm.port, calibration.read(arm.calibration), patience=0.05, watched=watched) as robot:
        driven = Drive(robot, Guard(robot.spec))
        driven.until(lambda: driven.state is State.RUNNING, sway)
        assert robot._cameras is not None
        robot._cameras.cameras[1].process.kill()
        driven.until(lambda: driven.state is State.HOLD, sway)
        assert driven.told == "camera stale; wrist: its process was ended by SIGKILL"
        driven.until(lambda: driven.state is State.RUNNING, sway)
    check_bytes(arm, robot)
