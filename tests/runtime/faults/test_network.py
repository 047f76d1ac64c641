"""A network that parts, delays and chokes between a running arm and its policy, and what reaches the arm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from runtime.client import RemotePolicy
from runtime.spawn import spawn
from runtime.states import Flag, State
from tests.runtime.faults.body import Body
from tests.runtime.faults.proxy import Proxy, proxy
from tests.runtime.faults.ticks import Drive, acting, asked, check_timed, drive, first, holding, script, then
from tests.runtime.peers import free_port


@contextmanager
def networked(rows: int, seed: int = 0) -> Iterator[tuple[Proxy, RemotePolicy]]:
    """A network that can be damaged, and a policy behind it with chunks of so many rows."""
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        spawn(f"hours:{rows}", address),
        proxy(address, seed) as network,
        RemotePolicy(network.address, robot="body") as policy,
    ):
        yield network, policy


def test_a_partition_is_noticed_before_the_chunk_ends_and_holds_by_age(body: Body) -> None:
    """Nothing passes and nothing is closed, as when a cable is pulled between two switches."""
    with networked(rows=32) as (network, policy):
        stages = (
            then(acting(20), lambda: network.damage(parted=True)),
            then(holding(10), network.heal),
            acting(10),
        )
        made = drive(body, policy, script(*stages))
    check_timed(made.ticks, rows=32)
    ticks = [t for t in made.ticks if t.now > made.passed[0]]
    down = first(ticks, lambda t: Flag.LINK_DOWN in t.flags)
    held = first(ticks, lambda t: t.target is None)
    back = held + first(ticks[held:], lambda t: t.target is not None)
    # Link loss stops nothing by itself: what is in age is played on, and then the arm holds.
    assert down < held
    assert all(t.state is State.RUNNING for t in ticks[:held])
    assert all(t.state is State.HOLD for t in ticks[held:back])
    assert asked(ticks[back]) > ticks[held].now
    assert ticks[-1].link_up


@pytest.mark.parametrize(
    ("rows", "damage"),
    [
        (5, {"delay": 0.12}),  # there and back takes longer than a chunk, and the link is up
        (5, {"delay": 0.1, "jitter": 0.04}),
        (16, {"delay": 0.5}),
        (16, {"rate": 300.0}),
    ],
    ids=str,
)
def test_what_comes_too_late_is_never_played(body: Body, rows: int, damage: dict[str, Any]) -> None:
    with networked(rows) as (network, policy):
        stages = (
            then(acting(10), lambda: network.damage(**damage)),
            then(holding(20), network.heal),
            acting(3),
        )
        made = drive(body, policy, script(*stages))
    check_timed(made.ticks, rows)
    held = [t for t in made.ticks if made.passed[0] < t.now <= made.passed[1]][-20:]
    assert all(t.state is State.HOLD for t in held)
    assert made.result.late + made.result.failed > 0


@pytest.mark.parametrize("seed", range(2))
def test_jitter_costs_rows_and_never_plays_one_out_of_its_time(body: Body, seed: int) -> None:
    def longer(made: Drive) -> bool:
        return len(made.ticks) > 75

    with networked(16, seed) as (network, policy):
        stages = (then(acting(10), lambda: network.damage(delay=0.01, jitter=0.1, rate=20_000.0)), longer)
        made = drive(body, policy, script(*stages))
    check_timed(made.ticks)
    ages = [t.at - asked(t) for t in made.ticks if t.target is not None and t.now > made.passed[0]]
    assert len(ages) > 10
