"""`takt eval --think --noise`: candidates and disturbed tables, the same when they are played again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vla.__main__ as frontdoor
from runtime.clock import SimulatedClock
from runtime.run import policy_at
from sim.evaluate import SHIPPED
from sim.report import replay
from sim.report.result import Result
from sim.tabletop.suite import SUITE
from vla.contract import TaktError

SEED = 20_000


def played(out: Path, *flags: str) -> dict[str, Any]:
    assert frontdoor.main(["eval", "--seed", str(SEED), "--json", str(out), *flags]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("judge", ["coherence", "critic", "world"])
def test_what_was_thought_over_is_a_function_of_the_seed_and_played_again_by_the_report(
    tmp_path: Path, judge: str
) -> None:
    flags = ("--episodes", "1", "--noise", "1", "--latency", "200ms", "--think", f"3:{judge}")
    data = played(tmp_path / "a.json", *flags)
    assert (data["think"], data["noise"]) == (f"3:{judge}", 1.0) and "judge" in data["latency_ms"]
    result = Result(data)
    again = played(tmp_path / "b.json", *result.options(SEED))
    assert again["episodes"] == data["episodes"]
    (filmed,) = replay.watch(result, str(SHIPPED), [0])
    assert filmed.row == data["episodes"][0]


def test_noise_and_candidates_make_another_episode(tmp_path: Path) -> None:
    plain, noisy, thought = (
        played(tmp_path / f"{i}.json", "--episodes", "1", *flags)["jerk"]
        for i, flags in enumerate(((), ("--noise", "1"), ("--think", "3")))
    )
    assert len({plain, noisy, thought}) == 3


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--think", "many"], "--think is a number of candidates"),
        (["--noise", "-1"], "--noise is from 0 to 10"),
        (["--noise", "nan"], "--noise is from 0 to 10"),
        (["--policy", "expert", "--think", "4"], "--think is for a bundle"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    flags: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frontdoor.main(["eval", "--episodes", "1", *flags]) != 0
    said = capsys.readouterr().err.strip()
    assert line in said and said.count("\n") == 0


def test_a_server_thinks_as_well() -> None:
    """In a process of its own; how long the judge took comes with the chunk."""
    scenario = SUITE.scenario("put the red cube in the blue bowl", 1)
    with SUITE.robot(SimulatedClock()) as robot, policy_at(str(SHIPPED), 1, think="4:critic") as policy:
        scenario.lay(robot)
        chunk = policy.infer(robot.read())
    assert {"prefix", "steps", "judge"} <= set(chunk.stages)


def test_a_server_that_was_asked_for_a_simulator_says_so() -> None:
    with pytest.raises(TaktError, match="only takt eval has"), policy_at(str(SHIPPED), 1, think="4:world"):
        pass
