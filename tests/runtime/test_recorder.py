"""The recorder beside a loop: it never keeps it waiting, and says in a line what keeps it from recording."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime import journal, journal_reader
from runtime.recorder import QUEUE, RISK, Recorder
from tests.runtime import recording
from tests.runtime.peers import PATIENCE, until
from vla.contract import TaktError

RATE = 50.0
ROOT = Path(__file__).parents[2]


class Said(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


def run(recorder: Recorder, first: int, count: int) -> list[int]:
    """So many ticks at the beat; which of them were handed over."""
    taken = []
    for i in range(first, first + count):
        if recorder.put(
            time.monotonic(), recording.observation(i), recording.target(i), recording.command(i), "RUNNING"
        ):
            taken.append(i)
        time.sleep(1 / RATE)
    return taken


def test_an_episode_and_a_second_one(tmp_path: Path) -> None:
    said = Said()
    with Recorder(tmp_path / "new" / "folder", RATE, said) as recorder:
        for number in range(2):
            assert recorder.begin(recording.spec(), recording.WORDS, {"policy": "p"}) == number
            taken = run(recorder, 0, 20)
            assert recorder.recording
            until(lambda: recorder.durable > 0, "nothing was synced")
            commit = recorder.end("done", success=bool(number))
            assert recorder.at_risk == 0.0 and not recorder.recording
            found = recording.check(tmp_path / "new" / "folder" / f"{number:06d}")
            assert found.tick.tolist() == taken and found.commit == commit
            assert (commit.success, commit.dropped) == (bool(number), 20 - len(taken))
            assert found.meta.instruction == recording.WORDS and found.meta.about == {"policy": "p"}
            # Its clock is the rows'.
            assert 0.0 <= found.time[0] - found.meta.monotonic < PATIENCE
    assert said == []


def test_filter_verdicts_are_those_of_their_tick(tmp_path: Path) -> None:
    counts = [{}, {"lead": 1}, {"lead": 1}, {"lead": 2, "velocity": 4}]
    with Recorder(tmp_path, RATE) as recorder:
        recorder.begin(recording.spec(()), recording.WORDS)
        for i, verdicts in enumerate(counts):
            seen = recording.observation(i, ())
            assert recorder.put(
                time.monotonic(), seen, recording.target(i), recording.command(i), "HOLD", verdicts
            )
        recorder.end("done")
    found = recording.check(tmp_path / "000000")
    assert found.verdicts == [[], ["lead"], [], ["lead", "velocity"]]
    assert found.mode == ["HOLD"] * 4


def test_a_recorder_that_hangs_costs_ticks_and_no_time(tmp_path: Path) -> None:
    said = Said()
    with Recorder(tmp_path, RATE, said) as recorder:
        recorder.begin(recording.spec(), recording.WORDS)
        taken = run(recorder, 0, 10)
        os.kill(recorder.pid, signal.SIGSTOP)
        longest, big = 0.0, 0
        for i in range(10, 400):
            begun = time.thread_time()
            big += recorder.put(
                time.monotonic(), recording.observation(i), recording.target(i), recording.command(i)
            )
            longest = max(longest, time.thread_time() - begun)
        # It neither waits (this thread's own time is all that it takes) nor keeps what it cannot hand over.
        assert longest < 0.05
        assert big <= 250  # two queues, and what the kernel's own buffers hold of messages this small
        os.kill(recorder.pid, signal.SIGCONT)
        until(lambda: recorder.at_risk == 0.0, "it did not go on")
        taken = run(recorder, 400, 10)
        commit = recorder.end("done")
        assert said == [] and len(taken) > 5
    found = recording.check(tmp_path / "000000")
    assert commit.dropped == 400 + 10 - len(found) > 300
    assert found.tick[-1] == taken[-1]


def test_no_more_than_a_second_is_ever_at_risk(tmp_path: Path) -> None:
    with Recorder(tmp_path, RATE) as recorder:
        recorder.begin(recording.spec(()), recording.WORDS)
        os.kill(recorder.pid, signal.SIGSTOP)
        first = time.monotonic()
        last = first
        while time.monotonic() - first < 1.5:
            now = time.monotonic()
            if recorder.put(now, recording.observation(0, ()), None, recording.command(0)):
                last = now
            time.sleep(0.2)  # so slow that its queue would take them all
        assert last - first <= RISK and recorder.dropped >= 1
        os.kill(recorder.pid, signal.SIGCONT)


def test_a_recorder_that_is_killed_is_told_once_and_the_next_episode_has_another(tmp_path: Path) -> None:
    said = Said()
    with Recorder(tmp_path, RATE, said) as recorder:
        recorder.begin(recording.spec(), recording.WORDS)
        run(recorder, 0, 40)
        until(lambda: recorder.durable >= 20, "nothing was synced")
        durable = recorder.durable
        os.kill(recorder.pid, signal.SIGKILL)
        until(
            lambda: recorder.put(0.0, recording.observation(0), None, recording.command(0)) is False, "lives"
        )
        assert run(recorder, 41, 5) == []
        assert said == ["takt: episode 0 is no longer recorded: the recorder has ended; the robot goes on"]
        with pytest.raises(TaktError, match="left open"):
            recorder.end("done", success=True)
        assert recorder.begin(recording.spec(), recording.WORDS) == 1
        assert recorder.recovered["000000"].rows >= durable
        taken = run(recorder, 0, 5)
        assert recorder.end("done").rows == len(taken)
    assert [len(recording.check(path)) for path in journal_reader.episodes(tmp_path)][1] == len(taken)


OWNER = """
import sys, time
from pathlib import Path
from runtime.recorder import Recorder
from tests.runtime import recording
with Recorder(Path(sys.argv[1]), 50.0) as recorder:
    recorder.begin(recording.spec(), recording.WORDS)
    for i in range(10**6):
        recorder.put(time.monotonic(), recording.observation(i), recording.target(i), recording.command(i))
        print(i, recorder.dropped, flush=True)
        time.sleep(0.02)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_its_owner_is_killed_the_episode_is_completed(tmp_path: Path, number: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert owner.stdout is not None
    said = [owner.stdout.readline() for _ in range(30)]
    owner.send_signal(number)
    owner.wait()
    said += owner.stdout.readlines()
    owner.stdout.close()
    folder = tmp_path / "000000"
    until(lambda: (folder / journal.COMMIT).exists(), "it was not completed")
    found = recording.check(folder)
    assert found.commit.ended == "the control process ended" and not found.commit.recovered
    ticks, dropped = len(said), int(said[-1].split()[1])
    # What was still on its way is lost with the one who sent it, and no more.
    assert ticks - dropped - 2 * QUEUE * RATE - 8 <= len(found) <= ticks - dropped + 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip(f"this user may not mount a small disk: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def noise(i: int) -> np.ndarray:
    """A frame that no film makes small."""
    return np.random.default_rng(i).integers(0, 255, (recording.SIZE, recording.SIZE, 3), np.uint8)


def test_a_full_disk_is_told_in_a_line_and_what_was_written_stays(small: Path) -> None:
    said = Said()
    with Recorder(small / "out", RATE, said) as recorder:
        recorder.begin(recording.spec(()), recording.WORDS)
        first = run(recorder, 0, 30)
        recorder.end("done", success=True)
        recorder.begin(recording.spec(()), recording.WORDS)
        second = run(recorder, 0, 30)
        until(lambda: recorder.at_risk == 0.0, "it was not synced")
        # Somebody else takes what is left.
        with open(small / "other", "wb", buffering=0) as other, contextlib.suppress(OSError):
            while True:
                other.write(b"x" * 4096)
        more = iter(range(30, 10**6))
        until(lambda: recorder.problem or run(recorder, next(more), 1) is None, "the disk is not full")
        assert run(recorder, next(more), 5) == []
        assert said == ["takt: episode 1 is no longer recorded: the disk is full; the robot goes on"]
        commit = recorder.end("done", success=True)
        assert commit.ended == "the disk is full" and commit.success and commit.dropped >= 5
        with pytest.raises(TaktError, match="the disk is full"):
            recorder.begin(recording.spec(()), recording.WORDS)
    assert recording.check(small / "out" / "000000").tick.tolist() == first
    found = recording.check(small / "out" / "000001")
    assert found.tick.tolist()[: len(second)] == second and found.commit == commit
    assert recording.numbers(small / "out") == ["000000", "000001"]


def test_a_disk_that_a_film_fills_keeps_every_row_that_has_its_frame(small: Path) -> None:
    said = Said()
    with Recorder(small / "out", RATE, said) as recorder:
        recorder.begin(recording.spec(), recording.WORDS)

        def go_on() -> bool:
            i = recorder.dropped + len(handed)
            seen = recording.observation(i)
            seen = seen.__class__(seen.time, seen.state, {"front": noise(i)})
            if recorder.put(seen.time, seen, recording.target(i), recording.command(i)):
                handed.append(i)
            time.sleep(0.002)
            return bool(recorder.problem)

        handed: list[int] = []
        with open(small / "other", "wb") as other:
            other.write(b"x" * (2 << 20))
        until(go_on, "the disk is not full")
        commit = recorder.end("done")
    assert commit.ended == "the disk is full" and commit.rows > 50
    found = recording.check(small / "out" / "000000", pictures=False)
    assert found.tick.tolist() == handed[: len(found)]
    shown = {n: pixels for n, pixels in found.frames("front")}
    for n, i in list(enumerate(found.tick))[:: max(1, len(found) // 10)]:
        difference = shown[int(found.frame["front"][n])].astype(int) - noise(int(i))
        assert np.abs(difference).mean() < 60  # colour is halved; another tick's noise is 85 away
    assert len(said) == 1


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TaktError, match="Not a directory"), Recorder(tmp_path / "file" / "out", RATE):
        pass
