"""A policy server that dies or hangs under a running arm, and what reaches the arm meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.client import RemotePolicy
from runtime.spawn import spawn, stop
from runtime.states import Flag, State
from tests.runtime.faults import hours
from tests.runtime.faults.body import Body
from tests.runtime.faults.ticks import Drive, asked, check_timed, drive, script


@contextmanager
def restarting() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Servers that were started anew; they are ended with the test."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        yield children
    finally:
        for child in children:
            stop(child)


def start(address: str) -> subprocess.Popen[bytes]:
    """A server that is not waited for."""
    command = [sys.executable, "-m", "vla", "serve", "hours", "--bind", address, "--parent", str(os.getpid())]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_is_killed_costs_the_rest_of_a_chunk_and_a_hold(
    body: Body, tmp_path: Path, seed: int
) -> None:
    """Killed at a random tick, started anew at the same address when the arm holds, and gone on with."""
    address, when = f"ipc://{tmp_path}/p", random.Random(seed).randint(20, 50)
    fell = 0.0
    with (
        spawn("hours", address) as (_, child),
        RemotePolicy(address, robot="body") as policy,
        restarting() as children,
    ):

        def kill(made: Drive) -> bool:
            nonlocal fell
            if len(made.ticks) < when or made.last.target is None:
                return False
            child.kill()
            child.wait()
            fell = made.last.now
            return True

        def renew(made: Drive) -> bool:
            if not made.ended(5, target=False):
                return False
            children.append(start(address))
            return True

        made = drive(body, policy, script(kill, renew, lambda made: made.ended(10, target=True)))
    check_timed(made.ticks)
    after = [t for t in made.ticks if t.now > fell]
    held = next(i for i, t in enumerate(after) if t.target is None)
    back = next(i for i, t in enumerate(after) if i > held and t.target is not None)
    assert all(asked(t) <= fell for t in after[:held])
    assert all(t.state is State.HOLD and t.target is None for t in after[held:back])
    assert not after[held].link_up
    # The new server is a new session: nothing that was asked of the old one is played.
    assert asked(after[back]) > after[held].now
    assert after[back].state is State.RUNNING


def test_a_server_that_is_stopped_is_a_hold_until_it_goes_on(body: Body, tmp_path: Path) -> None:
    """SIGSTOP: the kernel keeps its connections, it says nothing."""
    with spawn("hours") as (address, child), RemotePolicy(address, robot="body") as policy:

        def stop_it(made: Drive) -> bool:
            if not made.ended(20, target=True):
                return False
            child.send_signal(signal.SIGSTOP)
            return True

        def go_on(made: Drive) -> bool:
            if not made.ended(10, target=False):
                return False
            child.send_signal(signal.SIGCONT)
            return True

        try:
            made = drive(body, policy, script(stop_it, go_on, lambda made: made.ended(10, target=True)))
        finally:
            child.send_signal(signal.SIGCONT)
    check_timed(made.ticks)
    assert any(t.state is State.HOLD and Flag.LINK_DOWN in t.flags for t in made.ticks)


def test_a_policy_that_computes_for_ever_is_a_hold_although_the_link_is_up(body: Body) -> None:
    with spawn("hours:12") as (address, child):
        # What says that the link is up is the server's network threads, starved as they are.
        with RemotePolicy(address, robot="body", dead=20.0) as policy:
            played = script(lambda m: m.ended(5, target=True), lambda m: m.ended(30, target=False))
            made = drive(body, policy, played)
            begun = next(t.now for t in reversed(made.ticks) if t.target is not None)
            assert policy.link_up
            assert policy.heard > begun + hours.AGE / 2, "the server was not heard while the arm held"
        child.kill()
    check_timed(made.ticks)
    held = [t for t in made.ticks if t.now > begun]
    assert held[0].state is State.HOLD
    assert all(t.link_up for t in held)
