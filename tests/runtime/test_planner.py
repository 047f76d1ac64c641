"""Rows by time, the newest observation wins, nothing late is executed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import SimulatedClock
from runtime.planner import InlineLink, Planner
from tests import fakes
from vla.contract import ActionChunk, Observation, Prefix

SPEC = fakes.arm_spec(chunk_length=10, dt=0.1, replan=0.3)
SIZE = SPEC.actions.size


def own_time(seen: Observation) -> np.ndarray:
    """A chunk whose every row says which time it is for."""
    rows = seen.time + SPEC.dt * np.arange(SPEC.chunk_length)
    return np.repeat(rows[:, None], SIZE, axis=1)


def play(latencies: list[float], ticks: int, period: float = 0.05) -> tuple[Planner, list]:
    """The planner and (now, row or None) for every tick; the latencies come in turn."""
    clock = SimulatedClock()
    draws = iter(latencies * ticks)
    planner = Planner(SPEC, InlineLink(fakes.ScriptedPolicy(SPEC, own_time), lambda: next(draws), clock))
    targets = []
    for i in range(ticks):
        clock.sleep_until(i * period)
        planner.submit(fakes.observation(SPEC, clock.now()))
        targets.append((clock.now(), planner.target(clock.now())))
    return planner, targets


@given(st.lists(st.floats(0.0, 2.5), min_size=1, max_size=5))
def test_a_row_is_always_the_one_for_now(latencies: list[float]) -> None:
    _, targets = play(latencies, 100)
    for now, row in targets:
        assert row is None or np.allclose(row, now)


@given(st.floats(0.0, 0.4))
def test_a_policy_in_time_leaves_no_gap(latency: float) -> None:
    """A chunk lasts 0.9 s: one answer, a tick to ask again, and the next answer have to fit into it."""
    _, targets = play([latency], 100)
    first = next(i for i, (_, row) in enumerate(targets) if row is not None)
    assert all(row is not None for _, row in targets[first:])


@given(st.lists(st.floats(0.0, 2.5), min_size=1, max_size=5))
def test_every_answer_is_used_or_counted_as_late(latencies: list[float]) -> None:
    planner, targets = play(latencies, 100)
    assert planner.answered <= planner.asked
    assert planner.late <= planner.answered
    assert planner.stale == sum(row is None for _, row in targets)


def test_an_answer_after_its_last_row_is_dropped() -> None:
    planner, targets = play([1.0], 60)
    assert planner.late == planner.answered > 0
    assert all(row is None for _, row in targets)


def test_one_request_is_in_flight_and_replan_paces_them() -> None:
    planner, _ = play([0.0], 100)
    assert planner.asked == pytest.approx(100 * 0.05 / SPEC.replan, abs=1)


class Mailbox:
    """A link whose answers are put in by hand."""

    def __init__(self) -> None:
        self.asked: list[Observation] = []
        self.answers: list[ActionChunk] = []
        self.prefixes: list[Prefix | None] = []
        self.deadlines: list[float | None] = []
        self.open = True
        self.lost, self.link_up = 0, True

    def submit(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> bool:
        if self.open:
            self.asked.append(observation)
            self.prefixes.append(prefix)
            self.deadlines.append(deadline)
        return self.open

    def poll(self) -> list[ActionChunk]:
        ready, self.answers = self.answers, []
        return ready


def chunk(time: float, value: float) -> ActionChunk:
    return ActionChunk(time, SPEC.dt, np.full((SPEC.chunk_length, SIZE), value))


@given(st.permutations(list(range(6))))
def test_the_newest_observation_wins_in_any_order(order: list[int]) -> None:
    box = Mailbox()
    planner = Planner(SPEC, box)
    for i in order:
        box.answers.append(chunk(0.01 * i, float(i)))
        planner.target(0.1)
    row = planner.target(0.1)
    assert row is not None
    assert row[0] == 5.0


def test_a_lost_request_is_asked_again_after_a_while() -> None:
    box = Mailbox()
    planner = Planner(SPEC, box, timeout=1.0)
    for i in range(25):
        planner.submit(fakes.observation(SPEC, 0.1 * i))
    assert [round(o.time, 1) for o in box.asked] == [0.0, 1.0, 2.0]


def test_what_could_not_be_sent_is_not_in_flight() -> None:
    box = Mailbox()
    box.open = False
    planner = Planner(SPEC, box)
    assert not planner.submit(fakes.observation(SPEC, 0.0))
    box.open = True
    assert planner.submit(fakes.observation(SPEC, 0.1))
    assert planner.asked == 1


def test_a_chunk_older_than_allowed_is_not_used() -> None:
    box = Mailbox()
    planner = Planner(SPEC, box, max_age=0.4)
    box.answers.append(chunk(0.0, 1.0))
    assert planner.target(0.4) is not None
    assert planner.target(0.5) is None
