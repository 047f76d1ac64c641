"""`takt record` from outside: whatever is done to it, the body is safe and the journal keeps what it saw."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from runtime import journal, journal_reader
from runtime.journal_reader import Recorded
from tests.runtime.faults import takt
from tests.runtime.faults.body import SAFING, Body
from tests.runtime.faults.takt import RATE
from tests.runtime.peers import PATIENCE, until
from tests.runtime.test_run import children

LEAVING = ["enter", "safing", "safe"]


@dataclass
class Run:
    """`takt record OUT --robot body --policy hours`."""

    process: subprocess.Popen[str]
    out: Path

    def recorder(self) -> int:
        """The recorder's process."""
        for pid in children(self.process.pid):
            if b"runtime.record_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise AssertionError("there is no recorder")

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=3 * PATIENCE)
        return self.process.returncode, errors

    def episodes(self) -> list[Recorded]:
        return [journal_reader.read(path) for path in journal_reader.episodes(self.out)]


@contextmanager
def record(out: Path, *more: str, safing: float = 0.0, stdin: int = subprocess.DEVNULL) -> Iterator[Run]:
    command = [sys.executable, "-m", "vla", "record", str(out), "--robot", "body", "--policy", "hours"]
    process = subprocess.Popen(
        [*command, "--task", "put", "--rate", str(RATE), *more],
        env=os.environ | {SAFING: str(safing)},
        stdin=stdin,
        stdout=subprocess.PIPE if stdin == subprocess.DEVNULL else stdin,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Run(process, out)
    finally:
        process.kill()
        process.communicate()


def check_recorded(body: Body, found: Recorded, since: int = 0) -> None:
    """What was recorded is what reached the body, tick by tick; `since` is the first of its goals."""
    goals = np.array(body.goals())[since:]
    np.testing.assert_array_equal(found.command, goals[found.tick])


def test_episodes_are_what_reached_the_body(body: Body, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--episodes", "2", "--seconds", "1.5", "--success", "yes", "--json", str(tmp_path / "json"))
    with record(out, *more) as run:
        status, errors = run.ended()
        assert (status, errors) == (0, "")
    first, second = run.episodes()
    goals = body.goals()
    assert body.notes() == [*LEAVING, *LEAVING]
    assert len(goals) == len(first) + len(second) + first.commit.dropped + second.commit.dropped
    check_recorded(body, first)
    check_recorded(body, second, since=len(goals) - int(second.tick[-1]) - 1)
    for found in (first, second):
        assert found.commit.success and found.commit.ended == "done"
        assert found.meta.instruction == "put" and found.meta.about["policy"] == "hours"
        assert (np.diff(found.time) > 0).all()
        # It ends braking: what is driven, and so used, ends before that.
        assert {"RUNNING"} < set(found.mode) <= {"RUNNING", "HOLD", "PARKING", "OFF"}
    told = json.loads((tmp_path / "json").read_text())["episodes"]
    assert [row["rows"] for row in told] == [len(first), len(second)]


def test_a_recorder_that_is_killed_costs_rows_and_nothing_else(body: Body, tmp_path: Path) -> None:
    with record(tmp_path / "out", "--seconds", "60") as run:
        takt.commanded(body, RATE)
        os.kill(run.recorder(), signal.SIGKILL)
        takt.commanded(body, 2 * RATE)
        run.process.send_signal(signal.SIGINT)
        status, errors = run.ended()
    assert status in (1, 130)
    first, *rest = errors.splitlines()
    assert first == "takt: episode 0 is no longer recorded: the recorder has ended; the robot goes on"
    assert len(rest) == 1 and "left open" in rest[0]
    assert body.notes() == LEAVING
    takt.check_goals(body)
    (found,) = run.episodes()
    assert found.commit.ended == "lost" and len(found) < len(body.goals()) - RATE
    check_recorded(body, found)


def test_a_control_process_that_is_killed_leaves_an_episode_and_an_arm_at_its_last_goal(
    body: Body, tmp_path: Path
) -> None:
    with record(tmp_path / "out", "--seconds", "60") as run:
        takt.commanded(body, 2 * RATE)
        run.process.kill()
        run.process.wait()
        until(lambda: (run.out / "000000" / journal.COMMIT).exists(), "it was not completed")
    assert body.notes() == ["enter"] and body.log()[-1].kind == "goal"
    until(body.settled, "the arm does not come to rest")
    takt.check_goals(body)
    (found,) = run.episodes()
    assert found.commit.ended == "the control process ended"
    assert len(body.goals()) - len(found) <= RATE  # a second at most
    check_recorded(body, found)


def test_ctrl_c_makes_the_body_safe_before_the_episode_is_completed(body: Body, tmp_path: Path) -> None:
    with record(tmp_path / "out", "--episodes", "5", "--seconds", "60", safing=1.0) as run:
        takt.commanded(body, RATE)
        run.process.send_signal(signal.SIGINT)
        until(lambda: "safing" in body.notes(), "it was not left")
        assert not (run.out / "000000" / journal.COMMIT).exists()
        status, errors = run.ended()
    assert (status, errors) == (130, "")
    assert body.notes() == LEAVING
    (found,) = run.episodes()
    assert (found.commit.ended, found.commit.success) == ("interrupted", None)
    check_recorded(body, found)


def test_impatience_loses_nothing(body: Body, tmp_path: Path) -> None:
    with record(tmp_path / "out", "--seconds", "60", safing=0.2) as run:
        takt.commanded(body, RATE)
        for _ in range(4):
            run.process.send_signal(signal.SIGINT)
        _, errors = run.ended()
    assert "Traceback" not in errors
    assert body.notes() == LEAVING
    (found,) = run.episodes()
    check_recorded(body, found)
    assert len(body.goals()) - len(found) <= RATE


def test_in_a_terminal_it_asks_and_enter_ends_an_episode(body: Body, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    said = b""

    def hear(words: str) -> bool:
        nonlocal said
        said += os.read(master, 65536)
        return words.encode() in said

    def answer(words: str, line: str) -> None:
        nonlocal said
        while not hear(words):
            pass
        said = b""
        os.write(master, line.encode() + b"\n")

    try:
        with record(tmp_path / "out", "--episodes", "2", "--seconds", "60", stdin=slave) as run:
            takt.commanded(body, RATE)
            os.write(master, b"\n")
            answer("did it succeed?", "maybe")
            answer("did it succeed?", "n")
            answer("Enter begins it", "")
            takt.commanded(body, RATE)
            os.write(master, b"\n")
            answer("did it succeed?", "yes")
            status, errors = run.ended()
            assert (status, errors) == (0, "")
    finally:
        os.close(master)
        os.close(slave)
    assert [found.commit.success for found in run.episodes()] == [False, True]
    assert [found.commit.ended for found in run.episodes()] == ["done", "done"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--leader", "/dev/ttyACM1"), "--policy BUNDLE or --leader PORT, one of them"),
        (("--seconds", "0"), "--seconds above 0"),
        (("--task", " "), "the task is empty"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    body: Body, tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    with record(tmp_path / "out", *more) as run:
        status, errors = run.ended()
    assert status == 1 and says in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists() and body.log() == []
