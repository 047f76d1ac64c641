"""Whatever is done to the process that commands the arm: what reached the arm last leaves it safe."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.spawn import spawn
from tests.runtime.faults import takt
from tests.runtime.faults.body import SAFING, SPEC, Body
from tests.runtime.faults.takt import RATE
from tests.runtime.faults.ticks import LIMITS
from tests.runtime.peers import free_port, until
from tests.runtime.test_run import children
from tests.runtime.test_server import gone

LEAVING = ["enter", "safing", "safe"]


def interrupt(run: takt.Run) -> None:
    if run.process.poll() is None:
        run.process.send_signal(signal.SIGINT)


def check_left(body: Body, run: takt.Run, policy: int) -> None:
    """It ended as one that was interrupted, silently; the arm was made safe and stands; no child is left."""
    status, errors = run.ended()
    # A press after the last line, when there is nothing left to do, ends Python by the signal itself.
    assert status in (130, -signal.SIGINT), errors
    assert "Traceback" not in errors
    assert body.notes() in (LEAVING, [])
    until(lambda: not body.log() or body.settled(), "the arm does not come to rest")
    assert gone(policy)
    if body.notes():
        assert body.log()[-1].kind == "safe"
        takt.check_goals(body)


def child(run: takt.Run) -> int:
    """The policy's process, once it has been started."""
    until(lambda: children(run.process.pid), "no policy server was started")
    return children(run.process.pid)[0]


@pytest.mark.parametrize("seed", range(4))
def test_ctrl_c_twice_at_any_moment_leaves_the_arm_safe(body: Body, tmp_path: Path, seed: int) -> None:
    """From the policy's start on; the second press comes while it brakes, leaves or reports."""
    chance = random.Random(seed)
    with takt.run(tmp_path / "out", "hours", **{SAFING: "0.1"}) as run:
        policy = child(run)
        time.sleep(chance.uniform(0.0, 3.0))
        for _ in range(2):
            interrupt(run)
            time.sleep(chance.uniform(0.0, 0.3))
        check_left(body, run, policy)


def test_ctrl_c_while_it_brakes_still_makes_the_arm_safe(body: Body, tmp_path: Path) -> None:
    with takt.run(tmp_path / "out", "hours") as run:
        policy = child(run)
        takt.commanded(body, RATE)
        interrupt(run)
        interrupt(run)
        check_left(body, run, policy)
    assert body.notes() == LEAVING


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_while_the_arm_is_made_safe_does_not_keep_it_from_that(
    body: Body, tmp_path: Path, presses: int
) -> None:
    """An arm that parks takes its time to leave; impatience must not leave it half-way."""
    with takt.run(tmp_path / "out", "hours", **{SAFING: "0.5"}) as run:
        policy = child(run)
        takt.commanded(body, RATE)
        interrupt(run)
        until(lambda: "safing" in body.notes(), "it was not left")
        for _ in range(presses):
            interrupt(run)
            time.sleep(0.02)
        check_left(body, run, policy)
    assert body.notes() == LEAVING


def test_the_arm_is_made_safe_before_the_run_is_reported(body: Body, tmp_path: Path) -> None:
    with takt.run(tmp_path / "out", "hours", **{SAFING: "2"}) as run:
        takt.commanded(body, RATE)
        interrupt(run)
        until(lambda: "safing" in body.notes(), "it was not left")
        assert not run.out.exists()
        run.ended()
    assert body.notes() == LEAVING
    assert run.out.exists()


@pytest.mark.parametrize("seed", range(2))
def test_a_control_process_that_is_killed_leaves_the_arm_at_its_last_goal(
    body: Body, tmp_path: Path, seed: int
) -> None:
    """No process tells the servos to stop: what they were told last is near enough to be no danger."""
    with takt.run(tmp_path / "out", "hours") as run:
        policy = child(run)
        takt.commanded(body, random.Random(seed).randint(20, 60))
        run.process.kill()
        run.process.wait()
        assert gone(policy)
    last = body.log()[-1]
    assert last.kind == "goal"
    step = LIMITS.velocity / RATE
    assert (np.abs(last.goal - last.joints) <= LIMITS.lead + step).all()
    until(body.settled, "the arm does not come to rest")
    np.testing.assert_array_equal(body.log()[-1].goal, last.goal)
    takt.check_goals(body)


def test_a_process_that_was_stopped_goes_on_without_a_burst(body: Body, tmp_path: Path) -> None:
    with spawn("hours") as (address, _), takt.run(tmp_path / "out", address, seconds=4.0) as run:
        takt.commanded(body, RATE)
        run.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # how long it is stopped for, and no more than that
        run.process.send_signal(signal.SIGCONT)
        loop = run.loop()
    check_beat(body, loop, missed=RATE // 2 - 2)
    changes = [(before, after, reasons) for _, before, after, reasons in loop["states"]]
    held = next(i for i, (_, after, why) in enumerate(changes) if after == "HOLD" and "overruns" in why)
    assert changes[held + 1][:2] == ("HOLD", "RUNNING")
    assert changes[held + 1][2] == ["overruns: over"]


def test_hogs_on_every_core_cost_ticks_and_never_bunch_them(body: Body, tmp_path: Path) -> None:
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        with spawn("hours") as (address, _), takt.run(tmp_path / "out", address, seconds=3.0) as run:
            loop = run.loop()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    check_beat(body, loop, missed=0)


def check_beat(body: Body, loop: dict, missed: int) -> None:
    """One command a tick, no two ticks closer than half a period, and what was missed is not made up for."""
    assert len(body.goals()) == loop["ticks"]
    assert loop["closest"] > 0.5 / RATE
    assert loop["skipped"] >= missed
    told = [e.time for e in body.log() if e.kind == "goal"]
    assert loop["ticks"] <= (told[-1] - told[0]) * RATE + 2
    takt.check_goals(body)


def test_a_second_commander_is_refused_and_the_first_goes_on(body: Body, tmp_path: Path) -> None:
    """Two control processes, one policy server, one robot's name."""
    address = f"tcp://127.0.0.1:{free_port()}"
    with spawn("hours", address), takt.run(tmp_path / "first", address, seconds=60.0) as first:
        takt.commanded(body, RATE)
        notes = body.notes()
        with takt.run(tmp_path / "second", address) as second:
            status, errors = second.ended()
        assert status == 1
        assert len(errors.strip().splitlines()) == 1
        assert f"another client commands {SPEC.name!r}" in errors
        # The second never came as far as the arm.
        assert body.notes() == notes == ["enter"]
        takt.commanded(body, RATE)
        interrupt(first)
        first.ended()
    takt.check_goals(body)
