"""Child processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

from vla.contract import TaktError

_GRACE = 3.0  # s a child has to end by itself


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child and reap it: ask, then kill."""
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(_GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def follow(parent: int) -> None:
    """End with the process `parent`, which started this one, even when that is killed (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        raise TaktError(f"process {parent}, which this one belongs to, has ended")
