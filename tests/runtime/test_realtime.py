"""Real-time rights: asked for, told, and given back; a child never inherits them."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime import realtime
from runtime.realtime import Right, line, real_time

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these rights")


def state() -> tuple[object, ...]:
    """What the rights change, as the system tells it."""
    locked = next(r for r in Path("/proc/self/status").read_text().splitlines() if r.startswith("VmLck"))
    slack = ctypes.CDLL(None).prctl(realtime._PR_GET_TIMERSLACK, 0, 0, 0, 0)
    scheduling = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    return scheduling, os.sched_getaffinity(0), locked, slack, gc.isenabled(), gc.get_freeze_count()


@linux
def test_what_was_granted_holds_and_everything_is_undone() -> None:
    before = state()
    with real_time() as rights:
        granted = {right.name for right in rights if right.granted}
        scheduling, cores, locked, slack, collects, _ = state()
        if "SCHED_FIFO" in granted:
            assert scheduling == (os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, realtime.PRIORITY)
        if "core" in granted:
            assert cores == {max(before[1])}  # type: ignore[call-overload]
        if "mlockall" in granted:
            assert locked.split()[1] != "0"  # type: ignore[attr-defined]
        if "timer slack" in granted:
            assert slack in (0, 1)  # 0 with a priority
        assert not collects
    assert state() == before


@linux
def test_an_error_inside_undoes_everything_too() -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), real_time():
        raise ZeroDivisionError
    assert state() == before


@linux
def test_children_and_threads_begin_as_ordinary_ones() -> None:
    seen = []
    with real_time():
        thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
        code = "import os; print(os.sched_getscheduler(0))"
        seen.append(int(subprocess.run([sys.executable, "-c", code], capture_output=True).stdout))
    assert seen == [os.SCHED_OTHER, os.SCHED_OTHER]


@linux
def test_a_core_that_is_not_there_is_told_and_nothing_fails() -> None:
    with real_time(core=10**6) as rights:
        (core,) = [right for right in rights if right.name == "core"]
    assert not core.granted
    assert "--core" in core.detail or "SCHED_FIFO" in core.detail


UNPRIVILEGED = """
import os, resource  # before the user changes, who may not read where Python lies
from runtime.realtime import line, real_time
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
with real_time() as rights:
    print(line(rights))
"""


@linux
def test_without_rights_the_line_says_what_to_do() -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))

    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, preexec_fn=limit
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "no SCHED_FIFO" in done.stdout and "rtprio 80" in done.stdout
    assert "no mlockall" in done.stdout and "memlock unlimited" in done.stdout
    assert "timer slack 1 ns" in done.stdout


GIVING_BACK = """
import os
from runtime.realtime import real_time
with real_time() as rights:
    granted = any(right.name == "SCHED_FIFO" and right.granted for right in rights)
    if granted and os.getuid() == 0:  # from here on as one who has the priority by a limit alone
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
"""


@linux
def test_who_may_not_take_the_flag_back_still_gives_the_priority_back() -> None:
    done = subprocess.run([sys.executable, "-c", GIVING_BACK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == os.SCHED_OTHER


def test_the_line_names_everything() -> None:
    rights = [Right("a", True, "a is so"), Right("b", False, "it is not; do that")]
    assert line(rights) == "real-time: a is so; no b: it is not; do that"
