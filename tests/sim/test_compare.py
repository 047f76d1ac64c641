"""Two reports on the same episodes: paired, and honest about how little few episodes tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vla.__main__ as frontdoor
from sim.compare import compare, detectable, lines
from sim.statistics import mcnemar
from vla.contract import TaktError


def report(path: Path, outcomes: list[bool], policy: str = "one", first: int = 100, **more: Any) -> Path:
    episodes = [
        {"seed": i, "task": "put", "group": "", "instruction": f"text {i}", "success": bool(s)}
        for i, s in enumerate(outcomes, first)
    ]
    said = {"suite": "tabletop", "split": "seen", "swap": False, "rate": 30.0, "policy": policy}
    path.write_text(json.dumps({**said, "episodes": episodes, **more}))
    return path


def test_the_pairs_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, two = (list(rng.random(80) < p) for p in (0.6, 0.8))
    found = compare(report(tmp_path / "a", one), report(tmp_path / "b", two, "two"))
    assert found["difference"] == pytest.approx(np.mean(two) - np.mean(one))
    assert (found["only_one"] - found["only_two"]) / 80 == pytest.approx(-found["difference"])
    assert found["mcnemar_p"] == mcnemar(one, two)
    back = compare(tmp_path / "b", tmp_path / "a")
    assert back["difference"] == -found["difference"]
    assert back["ci95"] == pytest.approx([-v for v in reversed(found["ci95"])])


def test_episodes_of_one_alone_are_left_out_and_said(tmp_path: Path) -> None:
    a = report(tmp_path / "a", [True] * 10)
    b = report(tmp_path / "b", [False] * 10, "two", first=105)
    found = compare(a, b)
    assert (found["one"]["n"], found["left_out"]) == (5, 10)
    assert "10 episodes are in one of the two alone" in lines(found)[-1]


def test_a_clear_winner_is_named_and_a_draw_is_not(tmp_path: Path) -> None:
    a = report(tmp_path / "a", [False] * 40)
    b = report(tmp_path / "b", [True] * 30 + [False] * 10, "two")
    assert any(line.startswith("two is better") for line in lines(compare(a, b)))
    c = report(tmp_path / "c", [True] * 2 + [False] * 38, "three")
    (said,) = (line for line in lines(compare(a, c)) if "too few" in line)
    assert "40 show a difference of about 10 points" in said


def test_what_n_pairs_can_show_is_what_they_do_show() -> None:
    """In four of five runs, by simulation, for a difference as large as the formula says."""
    rng, n, apart = np.random.default_rng(1), 200, 0.2
    difference, hits = detectable(n, apart), 0
    for _ in range(400):
        draw = rng.random(n)
        lost = draw < (apart - difference) / 2
        won = ~lost & (draw < apart)
        hits += mcnemar(list(lost), list(won)) < 0.05
    assert 0.7 < hits / 400 < 0.9
    assert detectable(4 * n, apart) == pytest.approx(difference / 2)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"episodes": [{"success": 1}], "policy": "x"}', "no"])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(TaktError, match="no report of takt eval"):
        compare(tmp_path / "a", report(tmp_path / "b", [True]))


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    a = report(tmp_path / "a", [True] * 3)
    with pytest.raises(TaktError, match="split"):
        compare(a, report(tmp_path / "b", [True] * 3, split="phrasings"))
    with pytest.raises(TaktError, match="no episode in common"):
        compare(a, report(tmp_path / "c", [True] * 3, first=500))
    with pytest.raises(TaktError, match="No such file"):
        compare(a, tmp_path / "nowhere")


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = report(tmp_path / "a", [False] * 20), report(tmp_path / "b", [True] * 20, "two")
    assert frontdoor.main(["eval", "--compare", str(a), str(b), "--json", str(tmp_path / "out")]) == 0
    assert "difference +100.0 points" in capsys.readouterr().out
    assert json.loads((tmp_path / "out").read_text()) == compare(a, b)
    assert frontdoor.main(["eval", "--compare", str(a), str(tmp_path / "nowhere")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere" in line
