"""A planner behind HTTP: a real server process; what it says is checked, and nobody waits for it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime.advisor import Advisor
from runtime.instruct import Words
from runtime.skills import Reading
from sim.tabletop.skills import SKILLS
from vla.contract import Observation, TaktError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.runtime.planner_server"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.wait()


def answered(advisor: Advisor, text: str) -> Reading:
    assert advisor.ask(text) and not advisor.ask("another")
    end = time.monotonic() + 30.0
    while time.monotonic() < end:
        if (answer := advisor.poll()) is not None:
            assert answer[0] == text
            return answer[1]
        time.sleep(0.01)
    raise AssertionError("no answer")


def test_steps_come_back_as_the_skills_read_them(address: str) -> None:
    reading = answered(Advisor(address, SKILLS), "tidy up")
    assert [wish.text for wish in reading.wishes] == [
        "put the red cube in the blue bowl",
        "lift the white ball",
    ]
    assert reading.guessed and all(wish.probes for wish in reading.wishes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fly to the moon", "this arm stands on a table"),
        ("juggle", "a step that is not known: 'juggle three balls'"),
        ("lie", "not the answer that was asked for"),
        ("babble", "JSONDecodeError"),
        ("break", "status 500"),
        ("another model", "status 404"),
    ],
)
def test_what_is_of_no_use_does_nothing_and_says_why(address: str, text: str, says: str) -> None:
    model = "no such" if text == "another model" else ""
    reading = answered(Advisor(address, SKILLS, model), text)
    assert reading.wishes == () and says in reading.problem


def test_a_planner_that_takes_too_long_or_is_not_there_is_given_up(address: str) -> None:
    slow = Advisor(address, SKILLS, timeout=0.3)
    assert "timed out" in answered(slow, "think long").problem and slow.failed == 1
    assert "refused" in answered(Advisor("http://127.0.0.1:9/v1", SKILLS), "tidy up").problem


@pytest.mark.parametrize("address", ["https://a/v1", "127.0.0.1:80", "http://", "http://a:x/v1"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(TaktError, match="--planner is an address"):
        Advisor(address, SKILLS)


def test_words_are_heard_while_it_thinks_and_its_late_plan_is_not_carried_out(address: str) -> None:
    words = Words(SKILLS, advisor=Advisor(address, SKILLS))
    seen = Observation(0.0, np.zeros(6, np.float32))
    begun = time.monotonic()
    assert "let me think" in words.hear("think long", 0.0)
    assert words.ask(seen, 0.0, None) is None and not words.over
    assert "lift the red cube" in words.hear("lift the red cube", 0.0)
    assert time.monotonic() - begun < 2.0
    time.sleep(3.5)
    words.ask(seen, 1.0, None)
    assert [step.text for step in words.plan] == ["lift the red cube"]


def test_what_the_grammar_does_not_know_becomes_a_plan(address: str) -> None:
    words = Words(SKILLS, advisor=Advisor(address, SKILLS))
    words.hear("tidy up", 0.0)
    end = time.monotonic() + 30.0
    while words.thinking and time.monotonic() < end:
        words.ask(Observation(0.0, np.zeros(6, np.float32)), 0.0, None)
        time.sleep(0.01)
    assert [step.text for step in words.plan] == ["put the red cube in the blue bowl", "lift the white ball"]
