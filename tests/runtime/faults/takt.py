"""`takt run` and `takt serve` as processes of their own, that command a body of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.safety import LONGEST
from tests.runtime.faults.body import Body
from tests.runtime.faults.ticks import LIMITS
from tests.runtime.peers import PATIENCE, until

RATE = 30


@dataclass
class Run:
    """`takt run put --robot body` and where its result is written."""

    process: subprocess.Popen[str]
    out: Path

    def ended(self) -> tuple[int, str]:
        """Its exit status and what it wrote to stderr, once it has ended."""
        _, errors = self.process.communicate(timeout=3 * PATIENCE)
        return self.process.returncode, errors

    def loop(self) -> dict[str, Any]:
        """The loop's result, after a good end."""
        status, errors = self.ended()
        assert status == 0, errors
        result: dict[str, Any] = json.loads(self.out.read_text())["loop"]
        return result

    def megabytes(self) -> float:
        """What it holds in memory, MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def run(out: Path, policy: str, seconds: float = 60.0, **environment: str) -> Iterator[Run]:
    """In a session of its own, so that no signal but a test's reaches it."""
    command = [sys.executable, "-m", "vla", "run", "put", "--robot", "body", "--policy", policy]
    command += ["--seconds", str(seconds), "--rate", str(RATE), "--json", str(out)]
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Run(process, out)
    finally:
        process.kill()
        process.communicate()


def commanded(body: Body, count: int, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until so many more commands have reached the body."""
    target = len(body.goals()) + count
    until(lambda: len(body.goals()) >= target or not alive(), "no command came")
    assert alive(), "it has ended"


def check_goals(body: Body) -> None:
    """Finite and in range; no step longer than a limit allows; none further ahead of the arm than the lead.

    Velocities and accelerations by the ticks' own times are what `ticks.check_lawful` looks at.
    """
    told = [e for e in body.log() if e.kind == "goal"]
    goals, joints = np.array([e.goal for e in told]), np.array([e.joints for e in told])
    assert np.isfinite(goals).all()
    assert (goals >= LIMITS.lower).all() and (goals <= LIMITS.upper).all()
    step = LIMITS.velocity * LONGEST
    assert (np.abs(np.diff(goals, axis=0)) <= step + 1e-9).all()
    # The arm has moved on since it was read, and a brake may run ahead by what it takes to stand.
    brake = LIMITS.velocity**2 / (2 * LIMITS.acceleration)
    assert (np.abs(goals - joints) <= LIMITS.lead + step + brake).all()
