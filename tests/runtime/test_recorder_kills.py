"""The recorder is killed at random moments: what had reached the disk is there, and that is nearly all."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import journal
from runtime.journal import Commit
from runtime.recorder import Recorder
from tests.runtime import recording

RATE = 30.0
AT_ONCE = 5  # recorders that run beside each other


@dataclass
class Victim:
    """A recorder, when it is to die, and what it had then.

    Attributes:
        handed: when each tick was handed over that was not dropped, s; by its number.
        ended: what `end` returned, where it was called before.
    """

    root: Path
    recorder: Recorder
    when: float
    ends: bool
    handed: dict[int, float]
    durable: int = 0
    ended: Commit | None = None
    alive: bool = True

    def tick(self, i: int, now: float) -> None:
        if not self.alive:
            return
        if now >= self.when:
            if self.ends:
                self.ended = self.recorder.end("done", success=True)
            self.durable = self.recorder.durable
            os.kill(self.recorder.pid, signal.SIGKILL)
            self.alive = False
            return
        if self.recorder.put(now, recording.observation(i), recording.target(i), recording.command(i)):
            self.handed[i] = now


def kills(folder: Path, count: int, seed: int) -> dict[str, float]:
    """Kill so many recorders, check what each left, and tell what that was."""
    chance = random.Random(seed)
    lost: list[float] = []
    rows = dropped = 0
    for start in range(0, count, AT_ONCE):
        victims = []
        for i in range(min(AT_ONCE, count - start)):
            root = folder / str(start + i)
            recorder = Recorder(root, RATE, say=lambda line: None)
            recorder.__enter__()
            recorder.begin(recording.spec(), recording.WORDS)
            when = time.monotonic() + chance.uniform(0.0, 1.6)
            victims.append(Victim(root, recorder, when, chance.random() < 0.2, {}))
        i = 0
        while any(v.alive for v in victims):
            now = time.monotonic()
            for victim in victims:
                victim.tick(i, now)
            i += 1
            time.sleep(max(0.0, 1 / RATE - (time.monotonic() - now)))
        for victim in victims:
            victim.recorder.__exit__()
            lost.append(_check(victim))
            rows += len(victim.handed)
            dropped += victim.recorder.dropped
    return {"kills": len(lost), "rows": rows, "dropped": dropped, "lost_most_s": max(lost)}


def _check(victim: Victim) -> float:
    """The laws that hold for one; how many seconds of what was handed over are lost."""
    commits = journal.recover(victim.root)
    before = recording.untouched(victim.root)
    assert journal.recover(victim.root) == {} and recording.untouched(victim.root) == before
    assert recording.numbers(victim.root) == ["000000"]
    found = recording.check(victim.root / "000000")
    # Ticks in their order, none that was never handed over, none missing before the last.
    handed = list(victim.handed)
    assert found.tick.tolist() == handed[: len(found)]
    if victim.ended is not None:
        assert commits == {} and found.commit == victim.ended and len(found) == len(handed)
        return 0.0
    assert found.commit.recovered and found.commit.ended == "lost"
    assert len(found) >= victim.durable
    gone = handed[len(found) :]
    span = victim.handed[gone[-1]] - victim.handed[gone[0]] if gone else 0.0
    assert span <= 1.0
    return span


@pytest.mark.slow
def test_fifty_kills_lose_nothing_that_was_ended_and_a_second_of_what_was_not(tmp_path: Path) -> None:
    counts = kills(tmp_path, 50, seed=0)
    assert counts["kills"] == 50 and counts["rows"] > 300


@pytest.mark.full
def test_a_thousand_kills(tmp_path: Path) -> None:
    counts = kills(tmp_path, 1000, seed=1)
    print(counts)
    assert counts["kills"] == 1000
