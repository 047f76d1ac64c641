"""Which groups of layers get fewer bits: tried alone, together, then played; the smallest that passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vla.__main__ as frontdoor
from export import lower, mixed, quantise
from export.mixed import Candidate
from export.parity import Evidence, Gate
from runtime import bundle
from tests.export.graphs import NANO

HOW = quantise.How("int8")
INTEGER = ("MatMulInteger", "QLinearConv")
LAW = settings(deadline=None, max_examples=50, derandomize=True)


@pytest.fixture(scope="module")
def alone() -> dict[str, float]:
    """The shipped policy's groups, each with what it does to the actions of three observations."""
    return Gate(NANO, None, 3, 0, None).alone(NANO, HOW, quantise.KEEP)


def test_the_groups_are_all_that_is_quantised_and_disjoint(tmp_path: Path) -> None:
    groups = lower.groups(NANO, quantise.KEEP, HOW)
    assert {"prefix: eyes", "prefix: trunk", "step: blocks"} <= set(groups)
    assert not {"step: outlet", "step: inlet", "prefix: possible", "prefix: tell"} & set(groups)
    names = {
        graph: quantise.names(NANO / f"{graph}.onnx", quantise.KEEP, HOW) for graph in ("prefix", "step")
    }
    counts = []
    for group in groups:
        rules, graph = lower.only(NANO, quantise.KEEP, [group], HOW), group.partition(":")[0]
        assert quantise.names(NANO / f"{'prefix' if graph == 'step' else 'step'}.onnx", rules, HOW) == []
        left = quantise.names(NANO / f"{graph}.onnx", rules, HOW)
        assert left and set(left) <= set(names[graph])
        counts.append(len(left))
    assert sum(counts) == sum(len(of) for of in names.values())
    assert lower.only(NANO, quantise.KEEP, groups, HOW) == quantise.KEEP


def test_a_group_in_fewer_bits_is_that_group_in_the_file(tmp_path: Path, alone: dict[str, float]) -> None:
    assert set(alone) == set(lower.groups(NANO, quantise.KEEP, HOW))
    assert all(0 <= error < 0.05 for error in alone.values())
    search = mixed.Search(NANO, tmp_path / "b", HOW, quantise.KEEP, Gate(NANO, None, 3, 0, None))
    reports = search.write(["prefix: trunk", "step: blocks"])
    bundle.load(tmp_path / "b")
    for graph, report in reports.items():
        made = onnx.load(tmp_path / "b" / f"{graph}.onnx").graph
        few = {quantise.module(node.name) for node in made.node if node.op_type in INTEGER}
        assert len(few) == report.quantised > 0
        assert all(name.startswith(("trunk", "blocks")) for name in few)


@LAW
@given(st.lists(st.floats(1, 100), min_size=1, max_size=12), st.integers(1, 6))
def test_those_that_are_played_are_the_smallest_and_some_up_to_the_largest(
    sizes: list[float], tries: int
) -> None:
    all_ = [Candidate((str(i),), size, 0.0, 0.0, 0.0) for i, size in enumerate(sizes)]
    picked = mixed.spread(all_, tries)
    assert len(picked) == min(tries, len(all_)) == len(set(picked))
    assert [c.size_mb for c in picked] == sorted(c.size_mb for c in picked)
    assert picked[0].size_mb == min(sizes)
    if tries > 1:
        assert picked[-1].size_mb == max(sizes)


class Judged(Gate):
    """A gate whose episodes end as they are told to, by how many groups have fewer bits; the rest is real."""

    def __init__(self, passes: int) -> None:
        super().__init__(NANO, None, 3, 0, 1.0)
        self.passes, self.asked = passes, list[int]()

    def examine(self, folder: Path, precision: str) -> Evidence:
        reports = [onnx.load(folder / f"{g}.onnx").graph for g in ("prefix", "step")]
        few = {quantise.group(n.name) for r in reports for n in r.node if n.op_type in INTEGER}
        self.asked.append(len(few))
        lost = 0.0 if len(few) <= self.passes else -0.5
        loop = {
            "n": 60, "k": 30, "k_fp32": 30, "difference": lost, "ci95": [lost, lost], "mcnemar_p": 1.0,
            "jerk_ratio": 1.0, "jerk_p": 1.0,
        }  # fmt: skip
        return Evidence("a test", 3, 0.0, 0.0, {}, 1.0, loop)


@pytest.mark.parametrize(
    ("passes", "kept"),
    [(3, 2), pytest.param(9, 4, marks=pytest.mark.slow), pytest.param(0, None, marks=pytest.mark.slow)],
)
def test_the_smallest_that_passes_is_kept_and_none_where_none_does(
    passes: int, kept: int | None, tmp_path: Path
) -> None:
    gate = Judged(passes)
    choice = mixed.Search(NANO, tmp_path / "b", HOW, quantise.KEEP, gate).run(tries=3)
    errors = [choice.alone[c.groups[-1]] for c in choice.front]
    assert errors == sorted(errors)  # the least harmful first
    sizes = [c.size_mb for c in choice.front]
    assert sizes == sorted(sizes, reverse=True)
    assert gate.asked == [4, 2, 1]
    assert (choice.chosen and len(choice.chosen[0].groups)) == kept
    json.dumps(choice.to_json())
    if kept is None:
        said = str(mixed.refusal(choice, 0.01))
        assert "none of 3 candidates passed" in said and "\n" not in said


@pytest.mark.slow
def test_the_command_writes_which_groups_have_which_bits_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Played for real, and refused for real where nothing is within the tolerance."""
    args = ["export", str(NANO), str(tmp_path / "m"), "--precision", "int8", "--mixed", "--samples", "3"]
    played = [*args, "--episodes", "2", "--tries", "2", "--json", str(tmp_path / "m.json")]
    assert frontdoor.main(played) == 0
    said, policy = json.loads((tmp_path / "m.json").read_text()), bundle.load(tmp_path / "m").policy
    assert policy["evidence"] == said["evidence"] and policy["choice"] == said["choice"]
    assert said["evidence"]["closed_loop"]["n"] == 2 and len(said["choice"]["played"]) == 2
    groups = policy["precision"]["groups"]
    assert set(groups.values()) <= {"int8", "fp32"} and "int8" in groups.values()
    assert [g for g, bits in groups.items() if bits == "int8"] != []
    assert sorted(said["choice"]["groups"]) == sorted(g for g, bits in groups.items() if bits == "int8")
    shutil.rmtree(tmp_path / "m")
    capsys.readouterr()
    assert frontdoor.main([*args, "--episodes", "0", "--tolerance", "1e-9"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no group of layers is within the tolerance" in line
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mixed"], "--mixed is for fewer bits"),
        (["--mixed", "--precision", "int8", "--tries", "0"], "--tries"),
        (["--tolerance", "0.1"], "--tolerance is for fewer bits"),
        (["--precision", "int8", "--steps", "2"], "--steps is for a checkpoint"),
        (["--precision", "int8", "--no-dynamic-batch"], "--no-dynamic-batch is for a checkpoint"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frontdoor.main(["export", str(NANO), str(tmp_path / "m"), *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_seconds_are_those_of_a_chunk() -> None:
    took = Gate(NANO, None, 2, 0, None).seconds(NANO)
    assert 0 < took < 5
    assert np.isfinite(took)
