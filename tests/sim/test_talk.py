"""Episodes with words: the real policy, the real world, simulated time; the world is the judge."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vla.__main__ as frontdoor
from runtime.latency import parse
from sim import talk
from sim.evaluate import SHIPPED
from sim.play import Options, Worker
from sim.tabletop import expert, goals
from sim.tabletop.goals import Judge
from sim.tabletop.world import World


def test_a_sequel_is_a_function_of_its_seed_and_its_goals_leave_each_other_be() -> None:
    for seed in range(40):
        one, two = goals.draw(seed), goals.draw(seed)
        assert one.text == two.text and one.goals == two.goals
        np.testing.assert_array_equal(one.layout.xy, two.layout.xy)
        things = [goal.thing for goal in one.goals]
        assert 2 <= len(things) == len(set(things)) <= 4
        assert all(goal.verb != "lift" for goal in one.goals[:-1])


@pytest.mark.slow
def test_the_judge_sees_what_the_expert_does_and_nothing_else() -> None:
    world = World()
    try:
        asked = next(s for s in map(goals.draw, range(100)) if [g.verb for g in s.goals] == ["put", "touch"])
        world.reset(asked.layout, asked.goals[0])
        judge = Judge(world, asked.goals)
        assert judge.holding() == [False, False] and world.task == asked.goals[0]
        for i, goal in enumerate(asked.goals):
            world.ask(goal)
            for tick in range(300):
                world.command(expert.act(world))
                world.advance(8)
                judge.look(10.0 * i + tick / 30)
                if judge.reached[i] is not None:
                    break
            assert judge.reached[i] is not None and (i or judge.reached[1] is None)
        assert judge.whole()
    finally:
        world.close()


@pytest.mark.slow
def test_a_plan_and_a_correction_repeat_to_the_bit() -> None:
    worker = Worker(Options("tabletop", str(SHIPPED), "seen", False, parse("50ms"), None, 30.0))
    try:
        assert talk.sequel(worker, 70_003, at_once=False) == talk.sequel(worker, 70_003, at_once=False)
        one, two = (talk.corrected(worker, 70_004) for _ in range(2))
        assert one == two
        assert one["said_at"] is not None and 0.0 <= one["reaction_s"] <= 0.4
    finally:
        worker.close()


@pytest.mark.slow
def test_noise_and_candidates_change_a_sequel() -> None:
    plain = Options("tabletop", str(SHIPPED), "seen", False, parse("50ms"), None, 30.0)
    rows = []
    for options in (plain, replace(plain, noise=1.0), replace(plain, think="4:coherence")):
        worker = Worker(options)
        try:
            rows.append(talk.sequel(worker, 70_003, at_once=False))
        finally:
            worker.close()
    assert rows[0]["sim_seconds"] != rows[1]["sim_seconds"]
    assert rows[0] != rows[2]


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, says in (
        (["--at-once"], "give both"),
        (["--long", "--corrections"], "one of them"),
        (["--long", "--suite", "metaworld"], "for --suite tabletop"),
        (["--long", "--split", "phrasings"], "alone"),
        (["--long", "--episodes", "0"], "1 or more"),
        (["--long", "--think", "4:world"], "a sentence has several"),
        (["--corrections", "--noise", "11"], "--noise is from 0 to 10"),
    ):
        assert frontdoor.main(["eval", *flags]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert says in line


@pytest.mark.slow
def test_the_report_counts_goals_and_the_whole(tmp_path: Path) -> None:
    out = tmp_path / "long.json"
    assert frontdoor.main(["eval", "--long", "--episodes", "1", "--seed", "70005", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["success"]["n"] == 1 and report["goals"]["n"] == len(report["episodes"][0]["goals"])
    assert report["kind"] == "plan" and report["machine"]


@pytest.mark.slow
def test_a_spoken_stop_halts_a_run() -> None:
    """The whole way: a file is heard by its process while another commands a real simulated arm."""
    pytest.importorskip("pocketsphinx")
    root = Path(__file__).parents[2]
    plan = "touch the red ball, then lift the green ball, then put the red cylinder in the red bowl"
    command = [sys.executable, "-m", "vla", "run", plan, "--robot", "tabletop", "--policy", str(SHIPPED)]
    command += ["--options", "seed=5", "--voice", str(root / "tests" / "data" / "stop.wav")]
    done = subprocess.run(
        command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "  stopped; dropped: " in done.stdout
