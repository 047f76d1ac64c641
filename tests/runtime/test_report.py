"""The picture is drawn from whatever a run left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from runtime import report, trace
from runtime.budget import Budget
from runtime.clock import SimulatedClock
from vla.__main__ import main
from vla.contract import ActionChunk, TaktError


def lived(ticks: int) -> Budget:
    """A budget of some ticks, a chunk in every fifth of them."""
    clock = SimulatedClock(100.0)
    budget = Budget(stopwatch=clock.now)
    for i in range(ticks):
        now = clock.now()
        budget.begin(1e-5 * i, skipped=i // 20)
        for stage in ("capture", "send", "receive", "filter", "write"):
            clock.advance(0.001)
            budget.mark(stage)
        budget.end()
        budget.note("held", i < 3)
        if i % 5 == 0:
            stages = {"queue": 0.001, "prefix": 0.01, "steps": 0.02}
            budget.answer(ActionChunk(now - 0.05, 0.1, np.zeros((2, 1)), stages, (0.01, 0.01)), now)
        clock.advance(0.02)
    return budget


@pytest.mark.parametrize("ticks", [1, 2, 60])
@pytest.mark.parametrize(
    "about", [{}, {"policy": "a/nano", "rate": 30.0, "deadline": 0.2, "machine": {"x": 1}}]
)
def test_a_trace_becomes_a_picture(tmp_path: Path, ticks: int, about: dict[str, object]) -> None:
    path, out = tmp_path / "run.json", tmp_path / "new" / "budget.png"
    trace.write(path, lived(ticks), about)
    status = main(["report", str(path), "--out", str(out)])
    if ticks == 1:  # its only chunk ended the warm-up
        assert status == 1
    else:
        assert status == 0
        assert out.read_bytes().startswith(b"\x89PNG")


def test_what_is_drawn_is_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    budget = lived(60)
    trace.write(path, budget)
    run = report.load(path)
    for stage, row in budget.to_json().items():
        if stage != "step":
            assert run.cost[stage]["p99"] == pytest.approx(row["p99"], abs=1e-4)
    assert run.steps == 2


def test_a_runs_percentiles_become_a_smaller_picture(tmp_path: Path) -> None:
    path, out = tmp_path / "run.json", tmp_path / "budget.svg"
    data = {"robot": "paper", "policy": "tcp://127.0.0.1:5555", "latency_ms": lived(60).to_json()}
    path.write_text(json.dumps(data))
    assert main(["report", str(path), "--rate", "30", "--out", str(out)]) == 0
    assert "<svg" in out.read_text()


@pytest.mark.parametrize(("text", "says"), [("", "no JSON"), ("[]", "no latencies"), ("{}", "no latencies")])
def test_another_file_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(TaktError, match=says):
        report.load(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"latency_ms": {"tick": 1.0}, "rate": "fast"}, "its 'rate' is no positive number"),
        ({"latency_ms": {"tick": 1.0}, "deadline": [1]}, "its 'deadline' is no positive number"),
        ({"latency_ms": {"tick": {"p50": float("nan"), "p99": 1.0}}}, "needs a 'p99'"),
    ],
)
def test_a_run_that_tells_nonsense_is_refused_in_one_line(
    tmp_path: Path, data: dict[str, object], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(data))
    assert main(["report", str(path), "--out", str(tmp_path / "budget.png")]) == 1
    assert says in capsys.readouterr().err


def test_a_picture_has_a_known_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "x.json", "--out", "budget.jpeg"]) == 1
    assert "ends in .png" in capsys.readouterr().err


def test_the_title_says_what_is_known() -> None:
    about = {"policy": "vla/bundles/nano", "robot": "so101", "rate": 50.0, "machine": {"processor": "Orin"}}
    assert report.title(about) == "latency budget: policy nano, robot so101, 50 Hz, Orin"
    assert report.title({}) == "latency budget: a run"
