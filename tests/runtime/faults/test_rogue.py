"""A policy server that is not to be trusted: nothing of a chunk that is wrong anywhere reaches the arm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import wire
from runtime.client import RemotePolicy
from tests.runtime.faults.body import SIZE, Body
from tests.runtime.faults.hours import DT, ROWS
from tests.runtime.faults.rogue import SESSION, altered, good, rogue
from tests.runtime.faults.ticks import acting, check_timed, drive, holding, script, then

Evil = Callable[[wire.Infer], bytes]


def array(
    shape: tuple[int, ...], dtype: str = "<f4", odd: float = 1.2, says: dict[str, Any] | None = None
) -> Evil:
    """A chunk whose actions are of another kind, or hold one odd number."""
    actions = np.full(shape, 1.2, dtype)
    if actions.size:
        actions.flat[-1] = odd
    packed = {"dtype": dtype, "shape": list(shape), "data": actions.tobytes()} | (says or {})
    return lambda asked: altered(asked, actions=packed)


MISSHAPEN: list[Evil] = [
    array((ROWS, SIZE), odd=np.nan),
    array((ROWS, SIZE), odd=np.inf),
    array((ROWS, SIZE), odd=-np.inf),
    array((ROWS, SIZE), "<f8"),
    array((ROWS, SIZE), "<f2"),
    array((ROWS, SIZE), "<i4"),
    array((ROWS, SIZE), "|u1"),
    array((ROWS, SIZE), says={"dtype": "|O"}),
    array((ROWS, SIZE), says={"shape": [SIZE, SIZE]}),
    array((ROWS, SIZE), says={"shape": [-ROWS, -SIZE]}),
    array((ROWS, SIZE), says={"shape": [ROWS, 2**62]}),
    array((ROWS, SIZE - 1)),
    array((ROWS, SIZE + 1)),
    array((ROWS, 1)),
    array((0, SIZE)),
    array((100 * ROWS, SIZE)),
    array((SIZE,)),
    array((1, ROWS, SIZE)),
    lambda asked: altered(asked, actions=[[1.2] * SIZE] * ROWS),
    lambda asked: altered(asked)[:-1],
    lambda asked: altered(asked, surprise=1),
]
STRANGE: list[Evil] = [
    lambda asked: altered(asked, seq=asked.seq - 1),
    lambda asked: altered(asked, seq=asked.seq + 1),
    lambda asked: altered(asked, seq=2**62),
    lambda asked: altered(asked, seq=-1),
    lambda asked: altered(asked, session=SESSION + 1),
    lambda asked: altered(asked, session=0),
]
MISTIMED: list[Evil] = [
    lambda asked: altered(asked, time=asked.observation.time + 5.0),
    lambda asked: altered(asked, time=asked.observation.time + 1e6),
    lambda asked: altered(asked, time=float("nan")),
    lambda asked: altered(asked, time=float("inf")),
    lambda asked: altered(asked, dt=100 * DT),
    lambda asked: altered(asked, dt=0.0),
    lambda asked: altered(asked, dt=-DT),
    lambda asked: altered(asked, dt=float("nan")),
    lambda asked: altered(asked, dt=float("inf")),
]
EVILS: dict[str, list[Evil]] = {
    "misshapen": MISSHAPEN,
    "strange": STRANGE,
    "mistimed": MISTIMED,
    # Were it taken for an answer, answers would be expected to take a minute, and be waited for.
    "old": [lambda asked: altered(asked, time=asked.observation.time - 60.0)],
    # They would be played for as long as they say, whatever became of the server.
    "long": [array((100 * ROWS, SIZE))],
    "slow": [lambda asked: altered(asked, dt=100 * DT)],
    "never asked": [lambda asked: altered(asked, time=asked.observation.time - 0.01)],
}


@pytest.mark.parametrize("evils", EVILS.values(), ids=EVILS)
def test_a_chunk_that_is_wrong_anywhere_is_refused_whole(
    body: Body, tmp_path: Path, evils: list[Evil]
) -> None:
    """Alone it is no action, and the arm holds; before and after a good one it changes nothing."""
    address = f"ipc://{tmp_path}/p"
    given = 0

    def evil(asked: wire.Infer) -> list[bytes]:
        nonlocal given
        given += 1
        return [one(asked) for one in evils]

    def mixed(asked: wire.Infer) -> list[bytes]:
        # Whatever has the right number uses it up: the good one comes first.
        return [good(asked), *evil(asked)]

    with rogue(address) as server, RemotePolicy(address, robot="body") as policy:
        stages = (
            then(acting(10), lambda: setattr(server, "answer", evil)),
            then(holding(10), lambda: setattr(server, "answer", mixed)),
            acting(20),
        )
        made = drive(body, policy, script(*stages))
    check_timed(made.ticks)
    assert policy.refused + made.result.refused > len(evils)
    assert given > 1
