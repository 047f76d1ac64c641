"""A demo with its page, in processes of its own, and a browser that looks at it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
START = 90.0  # s until the page is there, on a machine that does other things as well
PATIENCE = 60.0  # s for what an arm does


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait for a condition; a test fails with `what` when it does not come."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@dataclass
class Demo:
    """What runs, and what it wrote."""

    process: subprocess.Popen[str]
    log: Path
    out: Path
    url: str = ""

    def commands(self) -> tuple[np.ndarray, np.ndarray]:
        """When commands reached the robot, shape (N,), s, and they themselves, shape (N, 6), rad."""
        rows = [line.split()[1:] for line in self._lines("command")]
        table = np.array(rows, float).reshape(-1, 7)
        return table[:, 0], table[:, 1:]

    def stops(self) -> list[float]:
        """When stops reached the loop, s."""
        return [float(line.split()[1]) for line in self._lines("stop")]

    def _lines(self, kind: str) -> list[str]:
        lines = self.log.read_text().splitlines(keepends=True)
        return [line for line in lines if line.startswith(kind) and line.endswith("\n")]

    def moving(self) -> bool:
        """Whether the last commands differ by what an arm at work makes in a tick."""
        _, commands = self.commands()
        return len(commands) > 3 and bool((np.abs(np.diff(commands[-4:], axis=0)).max(axis=1) > 0.01).all())

    def still(self) -> bool:
        _, commands = self.commands()
        return len(commands) > 10 and bool((commands[-10:] == commands[-1]).all())

    def console(self) -> int:
        """The process that serves the page."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (found,) = [c for c in children if b"runtime.console" in Path(f"/proc/{c}/cmdline").read_bytes()]
        return int(found)


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "tests.sim.console.driver", str(folder / "log")]
    # Real-time where that may be: a loop that cannot keep its beat beside other work rightly holds.
    command += ["--seed", "3", "--bind", "127.0.0.1:0", "--realtime"]
    with open(folder / "out", "w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=out, text=True, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"},
        )  # fmt: skip
    demo = Demo(process, folder / "log", folder / "out")
    try:

        def there() -> bool:
            assert process.poll() is None, demo.out.read_text()
            found = re.search(r"http://\S+", demo.out.read_text())
            demo.url = found[0] if found else ""
            return bool(demo.url)

        until(there, "no page came", START)
        yield demo
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, demo.out.read_text()
    finally:
        process.kill()
        process.wait()
