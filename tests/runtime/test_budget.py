"""Percentiles agree with numpy's; warm-up is forgotten."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from runtime.budget import STAGES, Budget, limits, table
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
    assert row["n"] == len(seconds)
    assert row["p95"] == pytest.approx(np.quantile(kept, 0.95))
    assert row["p50"] <= row["p95"] <= row["p99"] <= row["max"] == pytest.approx(kept.max())


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
