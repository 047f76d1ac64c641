"""Answers that are kept back, and a link that is exchanged while requests are on their way."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.clock import SimulatedClock
from runtime.delay import LONGEST, DelayedLink
from runtime.planner import InlineLink, Planner
from tests import fakes
from vla.contract import TaktError

SPEC = fakes.arm_spec(chunk_length=10, dt=0.1, replan=0.3)


def link_of(clock: SimulatedClock, latency: float = 0.0, value: float = 0.0) -> InlineLink:
    rows = np.full((SPEC.chunk_length, SPEC.actions.size), value)
    return InlineLink(fakes.ScriptedPolicy(SPEC, lambda _: rows), latency, clock)


def test_an_answer_comes_so_much_later_and_the_planner_measures_it() -> None:
    clock = SimulatedClock()
    link = DelayedLink(link_of(clock, 0.05), clock, 0.3)
    planner = Planner(SPEC, link, warm_up=0)
    came = []
    for i in range(60):
        clock.sleep_until(i * 0.01)
        planner.submit(fakes.observation(SPEC, clock.now()))
        before = planner.answered
        planner.target(clock.now())
        if planner.answered > before:
            came.append(clock.now())
    assert came[0] == pytest.approx(0.35, abs=0.011)
    assert link.waited == pytest.approx(0.3, abs=0.011)
    latency = planner.latency(clock.now())
    assert latency is not None and latency >= 0.34


def test_a_change_holds_for_answers_that_wait() -> None:
    clock = SimulatedClock()
    link = DelayedLink(link_of(clock), clock, 0.5)
    link.submit(fakes.observation(SPEC, 0.0))
    assert link.poll() == []
    clock.advance(0.1)
    assert link.poll() == []
    link.delay(0.0)
    assert [chunk.time for chunk in link.poll()] == [0.0]


@pytest.mark.parametrize("seconds", [-0.1, LONGEST + 0.1, float("nan"), float("inf")])
def test_a_delay_that_is_none_is_refused_and_the_old_one_stays(seconds: float) -> None:
    link = DelayedLink(link_of(SimulatedClock()), SimulatedClock(), 0.2)
    with pytest.raises(TaktError, match="from 0 to"):
        link.delay(seconds)
    assert link.seconds == 0.2


def test_another_link_takes_over_at_once_and_nothing_of_the_old_one_is_played() -> None:
    clock = SimulatedClock()
    slow, other = link_of(clock, 0.2, value=1.0), link_of(clock, 0.0, value=2.0)
    link = DelayedLink(slow, clock)
    planner = Planner(SPEC, link)
    assert planner.submit(fakes.observation(SPEC, 0.0))
    clock.advance(0.1)
    link.link = other
    # What was on its way counts as failed, so the planner does not wait for it.
    assert planner.submit(fakes.observation(SPEC, clock.now()))
    assert planner.failed == 1
    row = planner.target(clock.now())
    assert row is not None and (row == 2.0).all()
    clock.advance(0.2)
    assert (planner.target(clock.now()) == 2.0).all()
