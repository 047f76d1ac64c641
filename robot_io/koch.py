"""The robot `koch`: a Koch v1.1 follower, whose servos are Dynamixels of the X series."""

from __future__ import annotations

from pathlib import Path

from robot_io import arm
from robot_io.arm import Arm
from robot_io.bodies import KOCH
from robot_io.bus import PATIENCE


def make(
    port: str = "",
    calibration: Path | None = None,
    end: str = "park",
    configure: str = "no",
    cameras: str = "",
    patience: str = str(PATIENCE),
    limits: str = "metal",
) -> Arm:
    """The robot `koch`. Options are words: see docs/robots.md.

    Raises:
        TaktError: one is missing or wrong.
    """
    return arm.made(KOCH, port, calibration, end, configure, cameras, patience, "", limits)
