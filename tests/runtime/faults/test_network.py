"""A network that parts, delays and chokes between a running arm and its policy, and what reaches the arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from runtime.client import RemotePolicy
from runtime.spawn import spawn
from runtime.states import Flag, State
from tests.runtime.faults import hours
from tests.runtime.faults.body import Body
from tests.runtime.faults.proxy import Proxy, proxy
from tests.runtime.faults.ticks import Drive, Tick, asked, check_timed, drive, script
from tests.runtime.peers import free_port


@dataclass
class Net:
    """A policy behind a network that a test may damage."""

    network: Proxy
    policy: RemotePolicy


@contextmanager
def networked(policy: str = "hours", seed: int = 0) -> Iterator[Net]:
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        spawn(policy, address),
        proxy(address, seed) as network,
        RemotePolicy(network.address, robot="body") as client,
    ):
        yield Net(network, client)


def change(when: Callable[[Drive], bool], do: Callable[[], object]) -> Callable[[Drive], bool]:
    """A stage that does something once."""

    def stage(made: Drive) -> bool:
        if not when(made):
            return False
        do()
        return True

    return stage


def acting(count: int) -> Callable[[Drive], bool]:
    return lambda made: made.ended(count, target=True)


def holding(count: int) -> Callable[[Drive], bool]:
    return lambda made: made.ended(count, target=False)


def after(ticks: list[Tick], when: Callable[[Tick], bool]) -> int:
    """The first tick of a kind."""
    return next(i for i, tick in enumerate(ticks) if when(tick))


def test_a_partition_is_noticed_before_the_chunk_ends_and_holds_by_age(body: Body) -> None:
    """Nothing passes and nothing is closed, as when a cable is pulled between two switches."""
    cut = 0.0

    def part() -> None:
        nonlocal cut
        net.network.parted, cut = True, made_now[0]

    made_now = [0.0]

    def steps(made: Drive) -> bool:
        made_now[0] = made.last.now
        return played(made)

    with networked("hours:inf,32") as net:
        heal = lambda: setattr(net.network, "parted", False)  # noqa: E731
        played = script(change(acting(20), part), change(holding(10), heal), acting(10))
        made = drive(body, net.policy, steps)
    check_timed(made.ticks, hours.age_of(32))
    ticks = [t for t in made.ticks if t.now > cut]
    down = after(ticks, lambda t: Flag.LINK_DOWN in t.flags)
    held = after(ticks, lambda t: t.target is None)
    back = held + after(ticks[held:], lambda t: t.target is not None)
    # Link loss stops nothing by itself: what is in age is played on, and then the arm holds.
    assert down < held
    assert all(t.state is State.RUNNING for t in ticks[:held])
    assert all(t.state is State.HOLD for t in ticks[held:back])
    assert asked(ticks[back]) > ticks[held].now
    assert ticks[-1].link_up
