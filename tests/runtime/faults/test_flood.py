"""A flood from the policy's side: the newest wins, and neither the beat nor the memory gives way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime import wire
from tests.runtime.faults import hours, takt
from tests.runtime.faults.body import Body
from tests.runtime.faults.rogue import Answer, altered, good, rogue
from tests.runtime.faults.takt import RATE

GROWTH = 20.0  # MB
TICKS = 60  # that the flood lasts
NOISE = np.random.default_rng(0).bytes(1000)


def many(asked: wire.Infer) -> list[bytes]:
    """Its answer again, one that is false, one of before, and noise: all for one tick's time."""
    return [good(asked), altered(asked), altered(asked, seq=asked.seq - 1), NOISE] * 5


def large(asked: wire.Infer) -> list[bytes]:
    """Chunks larger than any policy's, noise, and more than the protocol allows at all."""
    row = {"dtype": "<f4", "shape": [2 << 20, 6], "data": bytes(24 * (2 << 20))}
    return [altered(asked, actions=row), bytes(40 << 20), bytes(2 * wire.MAX_BYTES)]


@dataclass
class Flooded:
    """What a flood did.

    Attributes:
        sent, asked: frames that were sent, and how many of them were asked for.
        grew: MB that the control process grew by at most.
        loop: the run's result.
    """

    sent: int
    asked: int
    grew: float
    loop: dict[str, Any]


def flooded(body: Body, folder: Path, flood: Answer, pace: float) -> Flooded:
    """A run that is flooded for most of its time."""
    with rogue(address := f"ipc://{folder}/p") as server, takt.run(folder / "out", address, 4.0) as run:
        takt.commanded(body, 30)
        begun, most = run.megabytes(), 0.0
        asked, sent, goals = server.asked, server.sent, len(body.goals())
        server.pace, server.flood = pace, flood
        while len(body.goals()) < goals + TICKS and run.process.poll() is None:
            most = max(most, run.megabytes())
            time.sleep(0.01)  # the flood comes from another thread of this process
        server.flood = None
        asked, sent = server.asked - asked, server.sent - sent
        made = Flooded(sent, asked, most - begun, run.loop())
    takt.check_goals(body)
    assert made.loop["closest"] > 0.5 / RATE
    assert made.grew < GROWTH
    # The loop itself is not kept from its ticks; a machine that is busy may be.
    assert made.loop["skipped"] < made.loop["ticks"] / 4
    return made


def test_ten_times_as_much_as_was_asked_for_changes_nothing(body: Body, tmp_path: Path) -> None:
    made = flooded(body, tmp_path, many, pace=1 / RATE)
    assert made.sent > 10 * made.asked > 0
    assert made.loop["held"] < made.loop["ticks"] / 4
    # The arm's way round is the policy's: the hand of its clock, less what a command takes to arrive.
    told = [e for e in body.log() if e.kind == "goal"][RATE : -RATE // 2]
    assert np.median([hours.off(e.goal, e.time) for e in told]) < hours.DT


def test_as_much_as_can_be_sent_leaves_the_beat_and_the_memory_alone(body: Body, tmp_path: Path) -> None:
    made = flooded(body, tmp_path, many, pace=0.0)
    assert made.sent > 10 * made.asked > 0


def test_frames_of_any_size_leave_the_beat_and_the_memory_alone(body: Body, tmp_path: Path) -> None:
    made = flooded(body, tmp_path, large, pace=1 / RATE)
    assert made.sent > 0
