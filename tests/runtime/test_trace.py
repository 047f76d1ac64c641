"""A trace is what the Trace Event Format asks for, and reads back as the rows it was made of."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_io.dryrun import DryRun
from runtime import loop, trace
from runtime.budget import NAMES, Budget
from runtime.client import RemotePolicy
from runtime.clock import MonotonicClock, SimulatedClock, Ticker
from runtime.guard import Guard
from runtime.planner import InlineLink, Planner
from runtime.spawn import spawn
from tests import fakes
from vla.contract import ActionChunk, TaktError

NEEDED = {
    "X": {"dur", "args"}, "M": {"args"}, "i": {"s"}, "C": {"args"},
    "b": {"id", "cat"}, "e": {"id", "cat"}, "s": {"id", "cat"}, "t": {"id", "cat"}, "f": {"id", "cat", "bp"},
}  # fmt: skip


def check(events: list[dict[str, Any]]) -> None:
    """The format: keys by phase, names, proper nesting, matching ends, times within the run."""
    threads = defaultdict(list)
    for event in events:
        assert {"name", "ph", "ts", "pid", "tid"} | NEEDED[event["ph"]] <= set(event)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            begin, end = round(event["ts"] * 1e3), round((event["ts"] + event["dur"]) * 1e3)
            threads[event["pid"], event["tid"]].append((begin, end))
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert set(threads) <= named
    for spans in threads.values():
        around: list[int] = []
        for begin, end in sorted(spans, key=lambda s: (s[0], -s[1])):
            while around and around[-1] <= begin:
                around.pop()
            assert not around or end <= around[-1], "two spans of a thread overlap in part"
            around.append(end)
    for first, second in ("be", "sf", "st"):
        ids = [[e["id"] for e in events if e["ph"] == phase] for phase in (first, second)]
        assert sorted(ids[0]) == sorted(ids[1])
        times = {(e["ph"], e["id"]): e["ts"] for e in events if e["ph"] in (first, second)}
        assert all(times[first, i] <= times[second, i] for i in ids[0])
    for event in events:  # an arrow's end binds to the span around it
        if event["ph"] in "stf":
            at = round(event["ts"] * 1e3)
            assert any(b <= at <= e for b, e in threads[event["pid"], event["tid"]])


stages = st.dictionaries(
    st.sampled_from(["queue", "words", "preprocess", "prefix", "steps", "other"]), st.floats(0.0, 0.2)
)
# one tick: seconds of its five stages, the lateness, ticks skipped before it, and the chunk it received, if
# any: how old its observation is, its stages, its steps, when it says that it began
ticks = st.tuples(
    st.lists(st.floats(0.0, 0.02), min_size=5, max_size=5),
    st.floats(0.0, 0.01),
    st.integers(0, 2),
    st.none()
    | st.tuples(st.floats(0.0, 0.5), stages, st.lists(st.floats(0, 0.1)), st.none() | st.floats(-1, 1)),
)


def recorded(history: list[Any], capacity: int = 4096, start: float = 1e5) -> Budget:
    """A budget that lived through `history`."""
    clock = SimulatedClock(start)
    budget = Budget(capacity, clock.now)
    missed = 0
    for seconds, lateness, skipped, answer in history:
        now = clock.now()
        missed += skipped
        budget.begin(lateness, missed)
        for stage, taken in zip(("capture", "send", "receive", "filter", "write"), seconds, strict=True):
            clock.advance(taken)
            budget.mark(stage)
        budget.end()
        if answer is not None:
            age, stages, steps, origin = answer
            origin = None if origin is None else now + origin
            budget.answer(ActionChunk(now - age, 0.1, np.zeros((2, 1)), stages, tuple(steps), origin), now)
        else:
            budget.note("held")
        clock.advance(0.01)
    return budget


@settings(deadline=None)
@given(st.lists(ticks, max_size=12), st.sampled_from([7, 40, 4096]))
def test_whatever_was_recorded_is_a_trace(history: list[Any], capacity: int) -> None:
    check(trace.events(recorded(history, capacity).ring.rows()))


@settings(deadline=None)
@given(st.lists(ticks, min_size=1, max_size=12))
def test_a_trace_reads_back(tmp_path_factory: pytest.TempPathFactory, history: list[Any]) -> None:
    budget = recorded(history)
    path = tmp_path_factory.mktemp("trace") / "run.json"
    trace.write(path, budget, {"policy": "nano", "rate": 30.0})
    read = trace.load(path)
    assert read.about == {"policy": "nano", "rate": 30.0}
    rows = budget.ring.rows()
    for name in NAMES:
        before, after = rows.of(name), read.rows.of(name)
        assert sorted(before.number) == sorted(after.number)
        # Steps that claim more than their `steps` are cut to it.
        if name != "step":
            np.testing.assert_allclose(sorted(after.seconds), sorted(before.seconds), atol=1e-8)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"traceEvents": [{}], "otherData": {}}', '{"traceEvents": 3}']
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(TaktError, match="is no trace of takt"):
        trace.load(path)


def test_simulated_time_gives_a_trace_as_well(tmp_path: Path) -> None:
    spec, clock = fakes.arm_spec(), SimulatedClock()
    robot, budget = DryRun(clock), Budget()
    planner = Planner(spec, InlineLink(fakes.ScriptedPolicy(spec), 0.1, clock))
    guard = Guard(robot.spec)
    with robot:
        loop.run(robot, planner, Ticker(clock, 1 / 30), budget, "put", guard, loop.lasting(clock, 2.0))
    events = trace.events(budget.ring.rows())
    check(events)
    assert sum(e["ph"] == "b" for e in events) == budget.chunks > 3


def test_a_real_run_shows_both_processes_on_one_axis(tmp_path: Path) -> None:
    spec = fakes.arm_spec()
    folder = fakes.write_bundle(tmp_path / "bundle", spec)
    clock, budget = MonotonicClock(), Budget()
    with spawn(folder) as (address, _), RemotePolicy(address) as policy, DryRun(clock) as robot:
        planner, guard = Planner(policy.spec, policy), Guard(robot.spec)
        loop.run(robot, planner, Ticker(clock, 0.01), budget, "put", guard, loop.lasting(clock, 1.5))
    path = tmp_path / "run.json"
    trace.write(path, budget)
    events = json.loads(path.read_text())["traceEvents"]
    check(events)
    last = max(e["ts"] + e["dur"] for e in events if e["name"] == "tick")
    server = [e for e in events if e["ph"] == "X" and e["pid"] == 2]
    assert {"queue", "prefix", "steps"} <= {e["name"] for e in server}
    assert all(e["ts"] + e["dur"] <= last for e in server)
    assert budget.chunks > 3
    assert budget.chunks / 2 < sum(e["ph"] == "f" for e in events) <= budget.chunks
    assert trace.load(path).warm().of("tick").seconds.max() > 0
