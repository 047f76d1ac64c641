"""Ticks to record, told apart by their numbers, and what a journal must hold of them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from runtime import journal, journal_reader
from runtime.journal import Meta
from runtime.journal_reader import Recorded
from runtime.journal_writer import Row
from vla.contract import ActionSpace, CameraSpec, Dimension, Observation, RobotSpec

JOINTS = ("pan", "lift")
SIZE = 32
SPACE = ActionSpace(tuple(Dimension(name, "rad", -3.0, 3.0) for name in JOINTS))
WORDS = "put it away"


def spec(cameras: tuple[str, ...] = ("front",)) -> RobotSpec:
    seen = tuple(CameraSpec(name, SIZE, SIZE) for name in cameras)
    return RobotSpec("two", JOINTS, SPACE, seen, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))


def meta(cameras: tuple[str, ...] = ("front",), rate: float = 30.0, begun: float = 0.0) -> Meta:
    robot = spec(cameras)
    wall = "2026-01-01T00:00:00.000+00:00"
    return Meta(robot.name, robot.state, SPACE, robot.cameras, rate, WORDS, begun, wall, {"policy": "none"})


def state(i: int) -> np.ndarray:
    return np.array([i, -i], np.float32)


def command(i: int) -> np.ndarray:
    return np.array([i / 7.0, 1.0 - i])


def target(i: int) -> np.ndarray | None:
    """None in every fifth tick."""
    return None if i % 5 == 4 else np.array([i / 3.0, i])


def grey(i: int) -> int:
    """How bright a tick's frame is: told apart from its neighbours' whatever a film does to it."""
    return (i * 40) % 240


def frame(i: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), grey(i), np.uint8)


def row(i: int, rate: float = 30.0) -> Row:
    return Row(i, i / rate, i / rate - 0.001, state(i), target(i), command(i), "RUNNING", ("lead",) * (i % 2))


def observation(i: int, cameras: tuple[str, ...] = ("front",)) -> Observation:
    return Observation(time.monotonic(), state(i), {name: frame(i) for name in cameras})


def check(folder: Path, pictures: bool = True) -> Recorded:
    """A complete episode holds what was put, tick by tick, each with the frame that it saw."""
    found = journal_reader.read(folder)
    assert len(found) == found.commit.rows
    for n, i in enumerate(map(int, found.tick)):
        np.testing.assert_array_equal(found.state[n], state(i))
        np.testing.assert_array_equal(found.command[n], command(i))
        wanted = target(i)
        np.testing.assert_array_equal(found.target[n], np.full(2, np.nan) if wanted is None else wanted)
    for camera in found.frame if pictures else ():
        shown = {number: int(pixels.mean()) for number, pixels in found.frames(camera)}
        assert len(shown) == found.commit.frames[camera]
        for n, i in enumerate(map(int, found.tick)):
            assert abs(shown[int(found.frame[camera][n])] - grey(i)) < 12, (n, i)
    return found


def untouched(root: Path) -> dict[str, bytes]:
    """Every byte below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def numbers(root: Path) -> list[str]:
    return [path.name for path in journal.folders(root)]
