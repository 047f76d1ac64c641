"""`takt demo` as it is, except that it writes down what reaches the robot and when a stop reached the loop.

    python -m tests.sim.console.driver LOG ARGUMENTS OF takt demo ...

LOG: lines of "command TIME j1 .. j6" and "stop TIME", s of the monotonic clock, rad.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

import numpy as np

from runtime.clock import Clock
from runtime.live import Live
from sim.robot import TabletopRobot
from sim.tabletop.suite import Tabletop
from sim.tabletop.world import World
from vla.__main__ import main


class Watched(TabletopRobot):
    """The robot, with a log of its commands."""

    log: TextIO

    def write(self, command: np.ndarray) -> None:
        super().write(command)
        print("command", time.monotonic(), *command.tolist(), file=self.log, flush=True)


class WatchedLive(Live):
    log: TextIO

    def stop(self, now: float) -> None:
        print("stop", time.monotonic(), file=self.log, flush=True)
        super().stop(now)


def robot(self: Tabletop, clock: Clock) -> TabletopRobot:
    return Watched(World(), clock)


if __name__ == "__main__":
    import sim.live

    with Path(sys.argv[1]).open("w") as Watched.log:
        WatchedLive.log = Watched.log
        Tabletop.robot = robot  # type: ignore[method-assign]
        sim.live.Live = WatchedLive  # type: ignore[misc]
        sys.exit(main(["demo", *sys.argv[2:]]))
