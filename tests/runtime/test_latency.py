"""How late answers come: what can be written, and the laws of the draws."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import latency
from runtime.clock import SimulatedClock
from runtime.latency import Constant, Draws, Lognormal, Measured, parse
from runtime.planner import InlineLink, Planner
from tests import fakes
from vla.contract import TaktError

LAW = settings(deadline=None, max_examples=60, derandomize=True)
SECONDS = st.floats(0, 5)


def measured(seconds: list[float]) -> Measured:
    return Measured(np.array(seconds), {})


LATENCIES = st.one_of(
    st.builds(Constant, SECONDS),
    st.builds(Lognormal, SECONDS, st.floats(0, 1)),
    st.builds(measured, st.lists(SECONDS, min_size=1, max_size=8)),
)


def drawn(model: latency.Latency, count: int, seed: int = 0, episode: int = 0) -> list[float]:
    draws = Draws(model, seed, episode)
    return [draws() for _ in range(count)]


# -- what is drawn


@LAW
@given(LATENCIES, st.integers(0, 2**62 - 1), st.integers(0, 4))
def test_the_same_seed_draws_the_same_and_a_call_depends_on_no_other(
    model: latency.Latency, seed: int, episode: int
) -> None:
    whole = drawn(model, 6, seed, episode)
    assert whole == drawn(model, 6, seed, episode)
    assert whole[:3] == drawn(model, 3, seed, episode)
    assert min(whole) >= 0


def test_seeds_episodes_and_calls_draw_differently() -> None:
    model = Lognormal(0.08, 0.3)
    rows = [drawn(model, 5, seed, episode) for seed in range(20) for episode in range(3)]
    assert len({value for row in rows for value in row}) == 20 * 3 * 5


@LAW
@given(SECONDS, st.floats(0, 1), st.integers(0, 100))
def test_without_spread_a_distribution_is_constant(seconds: float, spread: float, seed: int) -> None:
    assert drawn(Lognormal(seconds, 0.0), 4, seed) == drawn(Constant(seconds), 4, seed) == [seconds] * 4
    assert drawn(measured([seconds] * 5), 4, seed) == [seconds] * 4
    assert drawn(Lognormal(0.0, spread), 4, seed) == [0.0] * 4


@LAW
@given(LATENCIES, st.floats(1, 4), st.integers(0, 100))
def test_a_larger_latency_draws_no_less(model: Any, factor: float, seed: int) -> None:
    if isinstance(model, Lognormal):
        larger: Any = replace(model, median=model.median * factor)
    else:
        larger = replace(model, seconds=model.seconds * factor)
    pairs = zip(drawn(model, 6, seed), drawn(larger, 6, seed), strict=True)
    assert all(less <= more for less, more in pairs)


def test_draws_have_the_distribution_that_was_asked_for() -> None:
    values = np.array(drawn(Lognormal(0.08, 0.3), 4000))
    assert np.median(values) == pytest.approx(0.08, rel=0.02)
    assert np.std(np.log(values)) == pytest.approx(0.3, rel=0.05)
    known = np.array([0.1, 0.1, 0.4])
    share = np.mean(np.array(drawn(measured(list(known)), 3000)) == 0.4)
    assert share == pytest.approx(1 / 3, abs=0.03)


@LAW
@given(LATENCIES, st.floats(1, 3), st.integers(0, 50))
def test_more_latency_never_makes_an_answer_arrive_earlier(model: Any, factor: float, seed: int) -> None:
    """Through the planner's own link: the first answer of each, to a question of the same tick."""
    if isinstance(model, Lognormal):
        larger: Any = replace(model, median=model.median * factor)
    else:
        larger = replace(model, seconds=model.seconds * factor)
    assert arrival(model, seed) <= arrival(larger, seed)


def arrival(model: latency.Latency, seed: int) -> int:
    """The tick in which the first answer is there; a large number when it never is."""
    clock, spec = SimulatedClock(), fakes.arm_spec(chunk_length=600)
    link = InlineLink(fakes.ScriptedPolicy(spec), Draws(model, seed), clock)
    planner = Planner(spec, link, period=1 / 30, timeout=1e3)
    planner.submit(fakes.observation(spec))
    for tick in range(600):
        clock.sleep_until(tick / 30)
        planner.receive(clock.now())
        if planner.answered:
            return tick
    return 10**6


# -- what can be written


@LAW
@given(st.floats(0, 1e6))
def test_a_duration_reads_back(seconds: float) -> None:
    assert parse(f"{seconds!r}s") == Constant(seconds)
    assert parse(f"{seconds!r}ms").median == pytest.approx(seconds / 1000)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("120ms", Constant(0.12)),
        ("0.12s", Constant(0.12)),
        ("0ms", Constant(0.0)),
        ("1e2ms", Constant(0.1)),
        ("lognormal:80ms,0.3", Lognormal(0.08, 0.3)),
        ("lognormal:0.08s,0", Lognormal(0.08, 0.0)),
    ],
)
def test_latencies(text: str, model: latency.Latency) -> None:
    assert parse(text) == model


BAD = [
    "", "120", "ms", "s", "abc", "-1ms", "nanms", "infs", "12m", "1,5s", "nowhere.json", "lognormal:",
    "lognormal:80ms", "lognormal:80ms,", "lognormal:80ms,-1", "lognormal:80ms,nan", "lognormal:80,0.3",
    "lognormal:80ms,0.3,2", "normal:80ms,0.3",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_latency_is_refused(text: str) -> None:
    with pytest.raises(TaktError, match=r"120ms.*lognormal"):
        parse(text)


# -- profiles


def profile(chunks: int = 5, steps: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    parts = (
        rng.uniform(0.001, 0.1, chunks),
        rng.uniform(0.01, 0.1, chunks),
        rng.uniform(0.001, 0.01, (chunks, steps)),
    )
    return latency.to_json(*parts, {"machine": {"processor": "paper"}, "policy": "nano"})


def test_a_profile_draws_whole_chunks(tmp_path: Path) -> None:
    """A slow prefix stays with its own steps."""
    data = profile()
    path = tmp_path / "board.json"
    path.write_text(json.dumps(data))
    model = parse(str(path))
    samples = data["samples_ms"]
    chunks = {
        round(rest + prefix + sum(step), 6)
        for rest, prefix, step in zip(samples["rest"], samples["prefix"], samples["step"], strict=True)
    }
    assert {round(1e3 * seconds, 6) for seconds in drawn(model, 100)} == chunks
    about = model.to_json()
    assert (about["kind"], about["samples"], about["steps"]) == ("profile", 5, 3)
    assert about["machine"] == {"processor": "paper"}


def test_a_profile_without_steps_is_one_of_a_policy_that_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    path.write_text(json.dumps(latency.to_json(np.full(4, 0.01), np.full(4, 0.05), np.zeros((4, 0)), {})))
    assert drawn(parse(str(path)), 3) == pytest.approx([0.06] * 3)


def broken(change: str) -> Any:
    data = profile()
    samples = data["samples_ms"]
    match change:
        case "format":
            data["format"] = "another 2"
        case "lacks":
            del samples["prefix"]
        case "ragged":
            samples["step"][0] = [1.0]
        case "short":
            samples["prefix"].pop()
        case "empty":
            data["samples_ms"] = {"rest": [], "prefix": [], "step": []}
        case "negative":
            samples["rest"][1] = -1.0
        case "nan":
            samples["step"][1][0] = float("nan")
        case "words":
            samples["prefix"][0] = "fast"
        case "list":
            return [data]
    return data


@pytest.mark.parametrize(
    "change", ["format", "lacks", "ragged", "short", "empty", "negative", "nan", "words", "list"]
)
def test_what_is_no_profile_is_refused_in_one_line(change: str, tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    path.write_text(json.dumps(broken(change)))
    with pytest.raises(TaktError, match=r"board\.json") as caught:
        parse(str(path))
    assert "\n" not in str(caught.value)
