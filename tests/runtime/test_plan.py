"""The laws of the plan: slower is never better, and what it promises holds on the real planner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import plan as plans
from runtime.budget import STAGES
from runtime.clock import SimulatedClock
from runtime.plan import Profile, ask_after, delay_rows, plan, runs_dry, steps_that_fit
from runtime.planner import InlineLink, Planner
from tests import fakes
from vla.__main__ import main
from vla.contract import ActionChunk, TaktError

seconds = st.floats(0.0, 2.0)
periods = st.floats(0.002, 0.2)


@given(seconds, seconds, seconds, seconds, periods)
def test_a_slower_answer_is_asked_for_no_later(
    replan: float, usable: float, latency: float, more: float, period: float
) -> None:
    at = ask_after(replan, usable, latency, period)
    assert 0.0 <= ask_after(replan, usable, latency + more, period) <= at <= max(replan, 0.0)
    assert at == 0.0 or at + period + latency <= usable + 1e-9


@given(st.floats(0.0, 1.9), st.floats(0.01, 0.5), st.floats(0.0, 1.0))
def test_the_rows_that_run_until_the_answer_are_committed(latency: float, dt: float, part: float) -> None:
    """Rows from the delay on may hold anything: no command before the answer reads them."""
    rows = np.zeros((300, 2))
    rows[delay_rows(latency, dt) :] = np.nan
    before = part * latency
    if latency > 0:
        command = ActionChunk(0.0, dt, rows).at(before, np.array([True, False]))
        assert command is not None
        assert np.isfinite(command).all()


@given(seconds, seconds, st.floats(0.0, 0.2), st.integers(1, 5), st.integers(0, 20))
def test_the_steps_fit_and_one_more_would_not(
    left: float, fixed: float, step: float, least: int, more: int
) -> None:
    most = least + more
    steps = steps_that_fit(left, fixed, step, least, most)
    assert steps == 0 or least <= steps <= most
    if steps:
        assert fixed + steps * step <= left + 1e-6
    if steps < most:
        assert fixed + max(least, steps + 1) * step > left - 1e-6


SPEC = fakes.arm_spec(chunk_length=11, dt=0.1, replan=0.3)
profiles = st.dictionaries(st.sampled_from(STAGES), st.floats(0.0, 800.0).map(lambda ms: {"p99": ms}))


@settings(deadline=None)
@given(profiles, st.sampled_from(STAGES), st.floats(0.0, 500.0), st.integers(1, 300), st.floats(0.01, 1.0))
def test_a_slower_stage_never_helps(
    profile: Profile, stage: str, more: float, rate: int, deadline: float
) -> None:
    if stage in profile:
        slower = {**profile, stage: {"p99": profile[stage]["p99"] + more}}
        a, b = (plan(p, SPEC, rate, deadline, steps=8) for p in (profile, slower))
        assert b.feasible <= a.feasible
        assert b.rate_most <= a.rate_most
        assert b.steps <= a.steps and b.candidates <= a.candidates
        assert b.ask <= a.ask
        assert b.delay_rows >= a.delay_rows


@settings(deadline=None)
@given(profiles, st.integers(1, 300))
def test_the_largest_rate_holds_and_the_next_does_not(profile: Profile, rate: int) -> None:
    most = plan(profile, SPEC, rate).rate_most
    if most:
        assert plan(profile, SPEC, most).feasible
    if most < plans.RATE_MOST:
        assert not plan(profile, SPEC, most + 1).feasible
    assert not (rate > most and plan(profile, SPEC, rate).feasible)


def dry_in_simulation(latency: float, period: float) -> bool:
    """Whether the real planner, asking when the plan says, ever finds no row after the first answer."""
    clock = SimulatedClock()
    usable = (SPEC.chunk_length - 1) * SPEC.dt
    link = InlineLink(fakes.ScriptedPolicy(SPEC), latency, clock)
    planner = Planner(SPEC, link, ask_after(SPEC.replan, usable, latency, period), timeout=1e9)
    rows = []
    for i in range(int(6.0 / period)):
        clock.sleep_until(i * period)
        planner.submit(fakes.observation(SPEC, clock.now()))
        rows.append(planner.target(clock.now()))
    first = next((i for i, row in enumerate(rows) if row is not None), len(rows))
    return any(row is None for row in rows[first:]) or first == len(rows)


@settings(deadline=None)
@given(st.integers(0, 700), st.integers(5, 200))
def test_it_holds_exactly_where_the_planner_never_runs_dry(latency: int, period: int) -> None:
    made = plan({"chunk": {"p99": latency}}, SPEC, 1e3 / period, deadline=10.0)
    assert made.feasible != dry_in_simulation(1e-3 * latency, 1e-3 * period)


def test_without_latency_nothing_runs_dry() -> None:
    assert not runs_dry(0.0, 0.0, 0.1)


def test_what_does_not_hold_says_why() -> None:
    slow = {
        "capture": {"p99": 30.0},
        "lateness": {"p99": 9.0},
        "prefix": {"p99": 400.0},
        "steps": {"p99": 400.0},
    }
    made = plan(slow, SPEC, 30.0, steps=4)
    assert [reason.split()[0:2] for reason in made.reasons] == [
        ["a", "tick"], ["ticks", "wake"], ["no", "denoising"], ["the", "plan"],
    ]  # fmt: skip
    assert made.steps == made.rate_most == 0


def run_json(tmp_path: Path, latencies: object) -> Path:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"robot": "paper", "latency_ms": latencies}))
    return path


def test_the_command_prints_the_plan_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    path = run_json(tmp_path, {"prefix": {"p50": 1.0, "p99": 2.0, "n": 9}, "steps": 2.0, "capture": 4.0})
    assert main(["budget", str(path), "--json", str(out)]) == 0
    assert "30 Hz holds" in capsys.readouterr().out
    data = json.loads(out.read_text())
    assert data["feasible"] and data["steps"] == 4
    assert data["stages"]["capture"]["slack"] == pytest.approx(1 / 30 - 0.004)
    assert main(["budget", str(path), "--rate", "500"]) == 1
    assert "does not hold: a tick computes" in capsys.readouterr().out


@pytest.mark.parametrize("latencies", [{}, {"tick": 1.0, "lateness": 0.1}])
def test_a_run_that_never_had_a_chunk_is_not_said_to_hold(
    tmp_path: Path, latencies: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["budget", str(run_json(tmp_path, latencies))]) == 1
    assert "nothing of a chunk's latency" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("latencies", "says"),
    [
        ([], "has no latencies"),
        ({"prefix": "soon"}, "has no latencies"),
        ({"prefx": 1.0}, "no stage 'prefx'; valid: capture"),
        ({"prefix": {"p50": 1.0}}, "needs a 'p99'"),
        ({"prefix": -1.0}, "needs a 'p99'"),
    ],
)
def test_a_profile_that_is_none_is_refused_in_one_line(tmp_path: Path, latencies: object, says: str) -> None:
    with pytest.raises(TaktError, match=says):
        plans.read(run_json(tmp_path, latencies))
