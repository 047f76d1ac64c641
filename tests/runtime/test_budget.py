"""Percentiles agree with numpy's; warm-up is forgotten."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from runtime.budget import NAMES, STAGES, Budget, Ring, limits, table
from tests.fakes import arm_spec
from vla.contract import ActionChunk

samples = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=60)


@given(samples, st.integers(1, 100))
def test_percentiles_are_those_of_the_newest_samples(seconds: list[float], capacity: int) -> None:
    budget = Budget(capacity)
    for s in seconds:
        budget.record("prefix", s)
    row = budget.to_json()["prefix"]
    kept = 1000.0 * np.array(seconds[-capacity:])
    assert row["n"] == len(kept)
    assert row["p95"] == pytest.approx(np.quantile(kept, 0.95))
    assert row["p50"] <= row["p95"] <= row["p99"] <= row["max"] == pytest.approx(kept.max())


@given(
    st.lists(st.tuples(st.integers(0, len(NAMES) - 1), st.floats(0, 9))),
    st.integers(1, 50),
    st.integers(0, 60),
)
def test_the_ring_gives_back_the_newest_rows_in_order(
    put: list[tuple[int, float]], capacity: int, since: int
) -> None:
    ring = Ring(capacity)
    for i, (name, seconds) in enumerate(put):
        ring.put(name, float(i), seconds, -i)
    rows = ring.rows(since)
    first = max(min(since, len(put)), len(put) - capacity)
    assert list(zip(*(column.tolist() for column in rows), strict=True)) == [
        (name, float(i), seconds, -i) for i, (name, seconds) in list(enumerate(put))[first:]
    ]


def test_marks_sum_to_the_tick() -> None:
    times = iter([0.0, 1.0, 1.5, 3.5, 4.0])
    budget = Budget(stopwatch=lambda: next(times))
    budget.begin(lateness=0.25, skipped=0)
    budget.mark("capture")
    budget.mark("write")
    budget.end()
    rows = budget.to_json()
    assert [rows[s]["max"] for s in ("capture", "write", "tick", "lateness")] == [
        500.0,
        2000.0,
        3000.0,
        250.0,
    ]


def test_a_chunk_lies_on_the_axis_of_the_ticks_with_its_steps_inside() -> None:
    """The observation's clock shows 50 s less than the stopwatch: time is simulated."""
    times = iter([100.0, 103.0, 104.0, 105.0])
    budget = Budget(stopwatch=lambda: next(times))
    stages = {"queue": 0.1, "prefix": 0.2, "unheard_of": 0.3, "steps": 0.5}
    budget.begin(0.0, 0)
    budget.end()
    budget.answer(ActionChunk(51.0, 0.1, np.zeros((2, 1)), stages, (0.2, 0.3), origin=51.5), now=53.0)
    rows = budget.ring.rows()

    def spans(name: str) -> list[tuple[float, float]]:
        return [(round(s, 6), round(d, 6)) for s, d in zip(*rows.of(name)[1:3], strict=True)]

    assert spans("chunk") == [(101.0, 2.0)]
    assert spans("queue") == [(101.5, 0.1)]
    assert spans("prefix") == [(101.6, 0.2)]
    assert spans("steps") == [(102.1, 0.5)]
    assert spans("step") == [(102.1, 0.2), (102.3, 0.3)]
    assert rows.of("warm").start.tolist() == [105.0]


def test_events_are_noted_with_their_number() -> None:
    budget = Budget()
    budget.begin(0.0, skipped=0)
    budget.begin(0.0, skipped=3)
    budget.begin(0.0, skipped=3)
    budget.note("held")
    budget.note("late", 0)
    rows = budget.ring.rows()
    assert rows.of("skipped").number.tolist() == [3]
    assert rows.of("held").number.tolist() == [1]
    assert not len(rows.of("late").start)
    assert "held" not in budget.to_json()


def test_everything_up_to_the_first_chunk_is_warm_up() -> None:
    budget = Budget()
    chunk = ActionChunk(1.0, 0.1, np.zeros((2, 1)), {"prefix": 0.5, "unheard_of": 1.0})
    budget.begin(0.0, skipped=7)
    budget.record("write", 9.0)
    budget.answer(chunk, 3.0)
    assert budget.to_json() == {}
    assert budget.skipped == 0
    budget.begin(0.0, skipped=8)
    budget.answer(chunk, 3.0)
    assert budget.to_json()["chunk"]["max"] == pytest.approx(2000.0)
    assert budget.to_json()["prefix"]["max"] == pytest.approx(500.0)
    assert budget.skipped == 1


def test_the_table_judges_each_stage_by_its_limit() -> None:
    budget = Budget()
    for stage, seconds in (("tick", 0.001), ("chunk", 9.0), ("prefix", 0.1), ("steps", 0.3)):
        budget.record(stage, seconds)
    text = io.StringIO()
    Console(file=text, width=120).print(table(budget, limits(arm_spec(), 0.03, 0.2)))
    verdicts = {line.split()[1]: line for line in text.getvalue().splitlines() if "│" in line}
    assert "ok" in verdicts["tick"]
    assert "over" in verdicts["chunk"]
    assert "ok" in verdicts["prefix"]
    assert "over" in verdicts["steps"]


def test_every_stage_has_a_limit() -> None:
    assert set(limits(arm_spec(), 0.03, 0.2)) == set(STAGES)
