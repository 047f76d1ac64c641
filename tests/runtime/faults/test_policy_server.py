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

from runtime.child import stop
from runtime.client import RemotePolicy
from runtime.spawn import spawn
from runtime.states import Flag, State
from tests.runtime.faults import hours
from tests.runtime.faults.body import Body
from tests.runtime.faults.ticks import (
    Drive,
    acting,
    asked,
    check_timed,
    drive,
    first,
    holding,
    runs,
    script,
    then,
)


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


@pytest.mark.parametrize("seed", range(2))
def test_a_server_that_is_killed_costs_the_rest_of_a_chunk_and_a_hold(
    body: Body, tmp_path: Path, seed: int
) -> None:
    """Killed at a random tick, started anew at the same address when the arm holds, and gone on with."""
    address, when = f"ipc://{tmp_path}/p", random.Random(seed).randint(20, 50)
    with (
        spawn("hours", address) as (_, child),
        RemotePolicy(address, robot="body") as policy,
        restarting() as children,
    ):

        def underway(made: Drive) -> bool:
            return len(made.ticks) >= when and made.last.target is not None

        def kill() -> None:
            child.kill()
            child.wait()

        def renew() -> None:
            children.append(start(address))

        made = drive(body, policy, script(then(underway, kill), then(holding(5), renew), acting(10)))
    check_timed(made.ticks)
    killed = made.passed[0]
    after = [t for t in made.ticks if t.now > killed]
    held = first(after, lambda t: t.target is None)
    back = held + first(after[held:], lambda t: t.target is not None)
    assert all(asked(t) <= killed + hours.NEAR for t in after[:held])
    assert all(t.state is State.HOLD for t in after[held:back])
    assert not after[held].link_up
    # The new server is a new session: nothing that was asked of the old one is played.
    assert asked(after[back]) > after[held].now
    assert runs(after[back])


def test_a_server_that_is_stopped_is_a_hold_until_it_goes_on(body: Body) -> None:
    """SIGSTOP: the kernel keeps its connections, it says nothing."""
    with spawn("hours") as (address, child), RemotePolicy(address, robot="body") as policy:

        def halt() -> None:
            child.send_signal(signal.SIGSTOP)

        def go_on() -> None:
            child.send_signal(signal.SIGCONT)

        def noticed(made: Drive) -> bool:
            return made.ended(10, target=False) and not made.last.link_up

        try:
            made = drive(body, policy, script(then(acting(20), halt), then(noticed, go_on), acting(10)))
        finally:
            go_on()
    check_timed(made.ticks)
    assert any(t.state is State.HOLD and Flag.LINK_DOWN in t.flags for t in made.ticks)
    assert made.ticks[-1].link_up


def test_a_policy_that_computes_for_ever_is_a_hold_although_the_link_is_up(body: Body) -> None:
    """Its network threads, starved as they are, go on to say that the server is there."""
    with spawn("hours:16,12") as (address, child):
        with RemotePolicy(address, robot="body", dead=20.0) as policy:
            made = drive(body, policy, script(acting(5), holding(30)))
            begun = next(t.now for t in reversed(made.ticks) if t.target is not None)
            assert policy.link_up
            assert policy.heard > begun + hours.age() / 2, "the server was not heard while the arm held"
        child.kill()
    check_timed(made.ticks)
    held = [t for t in made.ticks if t.now > begun]
    assert held[0].state is State.HOLD
    assert all(t.link_up for t in held)
