"""A journal has what was put in it, whenever the process ended, and nothing of another run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.journal import Journal, merged, read
from vla.contract import TaktError

ASKED = {"suite": "tabletop", "seed": 5, "episodes": 3, "shard": "1/1"}


def result(seed: int) -> dict[str, Any]:
    return {"episodes": [{"seed": seed, "success": seed % 2 == 0}], "jerk": [seed / 7]}


def test_what_was_put_is_there_and_can_be_gone_on_with(tmp_path: Path) -> None:
    one = Journal(tmp_path / "j", ASKED)
    one.put(5, result(5))
    one.close()
    two = Journal(tmp_path / "j", ASKED)
    assert two.results == {5: result(5)}
    two.put(6, result(6))
    two.close()
    assert read(tmp_path / "j")[:2] == (ASKED, {5: result(5), 6: result(6)})


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 400))
def test_cut_off_anywhere_only_the_end_is_lost(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("j") / "j"
    journal = Journal(path, ASKED)
    lengths = [path.stat().st_size]
    for seed in (5, 6, 7):
        journal.put(seed, result(seed))
        lengths.append(path.stat().st_size)
    journal.close()
    data = path.read_bytes()
    cut = max(lengths[0], len(data) - cut)
    path.write_bytes(data[:cut])
    again = Journal(path, ASKED)
    whole = sum(length <= cut for length in lengths) - 1
    assert again.results == {seed: result(seed) for seed in (5, 6, 7)[:whole]}
    for seed in (5, 6, 7)[whole:]:
        again.put(seed, result(seed))
    again.close()
    assert path.read_bytes() == data


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "j", ASKED).close()
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(TaktError, match="another run: its seed is 5, this one's 6"):
        Journal(tmp_path / "j", {**ASKED, "seed": 6})
    assert (tmp_path / "j").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["hello\n", "{}\n", '{"asked": 3}\n', '{"asked": {}}\nnot json\n{"seed": 1}\n']
)
def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "j").write_text(text)
    with pytest.raises(TaktError, match="journal"):
        Journal(tmp_path / "j", ASKED)
    assert (tmp_path / "j").read_text() == text


def test_shards_are_one_run(tmp_path: Path) -> None:
    for i, seeds in enumerate(((5, 7), (6,)), 1):
        part = Journal(tmp_path / f"{i}", {**ASKED, "shard": f"{i}/2"})
        for seed in seeds:
            part.put(seed, result(seed))
        part.close()
    asked, results = merged([tmp_path / "1", tmp_path / "2"])
    assert asked == {key: value for key, value in ASKED.items() if key != "shard"}
    assert results == {seed: result(seed) for seed in (5, 6, 7)}
    with pytest.raises(TaktError, match="1 of 3 seeds are in none"):
        merged([tmp_path / "1"])
    other = json.dumps({"asked": {**ASKED, "suite": "x"}})
    (tmp_path / "3").write_text(other + "\n")
    with pytest.raises(TaktError, match="suite"):
        merged([tmp_path / "1", tmp_path / "3"])
    changed = json.dumps({"seed": 6, "result": {**result(6), "episodes": []}})
    (tmp_path / "4").write_text(json.dumps({"asked": ASKED}) + "\n" + changed + "\n")
    with pytest.raises(TaktError, match="another result for seed 6"):
        merged([tmp_path / "2", tmp_path / "4"])
