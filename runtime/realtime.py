"""`--realtime`: what the control process asks of Linux so that its beat stands beside other work.

Nothing here is needed and nothing is refused: what the system does not grant is told, with what to do.
Ask when the policy server and the connection to it exist. They keep the scheduling they were started with,
and that is meant: the server computes for milliseconds and must not stand in the loop's way, and ZeroMQ's
I/O thread does what peers make it do, so a flood of messages must not get a real-time priority. The loop
never waits for either; what they lose beside other work is a later chunk, which the plan allows for.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

PRIORITY = 40  # below 50, where a kernel with threaded interrupts runs its drivers
_LIMITS = "/etc/security/limits.conf"
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30
_CAP_IPC_LOCK = 14


class Right(NamedTuple):
    """What was asked for, whether it was granted, and how, or why not and what to do."""

    name: str
    granted: bool
    detail: str


@contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collection: a full one takes longer than a tick."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def real_time(core: int | None = None, priority: int = PRIORITY) -> Iterator[list[Right]]:
    """This thread as far ahead of everything else as the system allows; all of it undone at the end.

    Args:
        core: the one to run on; the last that this process may use by default.

    Yields:
        what was asked for.
    """
    with ExitStack() as undo:
        rights = [*_system(undo, core, priority)] if sys.platform == "linux" else []
        undo.enter_context(without_collections())
        rights.append(Right("collections", True, "no garbage collection"))
        yield rights


def line(rights: Sequence[Right]) -> str:
    """What was granted and what was not, in one line."""
    granted = ", ".join(right.detail for right in rights if right.granted)
    refused = "; ".join(f"no {right.name}: {right.detail}" for right in rights if not right.granted)
    return f"real-time: {granted}" + (f"; {refused}" if refused else "")


def probe() -> None:
    """Ask, print the rights as JSON, give them back: `takt doctor` runs this in a child."""
    with real_time() as rights:
        print(json.dumps(rights))


def _system(undo: ExitStack, core: int | None, priority: int) -> Iterator[Right]:
    # Before the priority: with one the kernel keeps the slack at 0 and takes no other.
    yield _attempt("timer slack", lambda: _slack(undo), lambda: "sleeps end 0.05 ms late")
    fifo = _attempt("SCHED_FIFO", lambda: _fifo(undo, priority), _advise_fifo)
    yield fifo
    yield _attempt("mlockall", lambda: _lock(undo), lambda: f"set 'memlock unlimited' in {_LIMITS}")
    # Pinned without a priority, the loop would wait behind whatever else that core runs.
    if fifo.granted:
        yield _pinned(undo, core)
    else:
        yield Right("core", False, "pinned only together with SCHED_FIFO")


def _attempt(name: str, ask: Callable[[], str], advice: Callable[[], str]) -> Right:
    try:
        return Right(name, True, ask())
    except OSError as error:
        return Right(name, False, f"{error.strerror}; {advice()}")


def _fifo(undo: ExitStack, priority: int) -> str:
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    # Children and threads that start from here on begin as ordinary ones.
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    undo.callback(_reschedule, *before)
    return f"SCHED_FIFO priority {priority}"


def _reschedule(policy: int, parameters: os.sched_param) -> None:
    try:
        os.sched_setscheduler(0, policy, parameters)
    except PermissionError:
        # Without CAP_SYS_NICE the kernel takes the flag from nobody who has it: sched_setscheduler(2).
        os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, parameters)


def _advise_fifo() -> str:
    import resource  # Unix only

    highest, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    return f"RLIMIT_RTPRIO is {highest}; set 'rtprio 80' for your user in {_LIMITS}"


def _lock(undo: ExitStack) -> str:
    import resource  # Unix only

    # Locked up to a limit, memory that is asked for later would fail: all or nothing.
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and not _may_lock():
        raise OSError(1, f"RLIMIT_MEMLOCK is {limit // 1024} kB")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    undo.callback(libc.munlockall)
    return "memory locked"


def _may_lock() -> bool:
    """Whether this process has CAP_IPC_LOCK."""
    with open("/proc/self/status") as status:
        effective = next(row.split()[1] for row in status if row.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)


def _pinned(undo: ExitStack, core: int | None) -> Right:
    allowed = os.sched_getaffinity(0)
    if core is not None and core not in allowed:
        valid = ", ".join(map(str, sorted(allowed)))
        return Right("core", False, f"core {core} is not among {valid}; choose one with --core")
    if len(allowed) == 1:
        return Right("core", False, "there is only one, and others need it as well")
    chosen = max(allowed) if core is None else core
    os.sched_setaffinity(0, {chosen})
    undo.callback(os.sched_setaffinity, 0, allowed)
    return Right("core", True, f"core {chosen}")


def _slack(undo: ExitStack) -> str:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    if before < 0 or prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    undo.callback(prctl, _PR_SET_TIMERSLACK, before, 0, 0, 0)
    return "timer slack 1 ns"
