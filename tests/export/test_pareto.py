"""The picture of a bench: what its front is, and that names can be read whatever was measured."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from matplotlib.collections import PathCollection
from matplotlib.text import Text

from export import pareto
from export.pareto import Point, front
from sim.statistics import wilson
from vla.contract import TaktError

LAW = settings(deadline=None, max_examples=80, derandomize=True)
PLACES = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=9)


@LAW
@given(PLACES, st.booleans())
def test_nothing_beats_the_front_and_the_front_beats_the_rest(
    places: list[tuple[int, int]], up: bool
) -> None:
    points = [Point(str(i), (x, x, x), (y, y, y), 1.0) for i, (x, y) in enumerate(places)]

    def no_worse(a: Point, b: Point) -> bool:
        return a.x[1] <= b.x[1] and (a.y[1] >= b.y[1] if up else a.y[1] <= b.y[1])

    def beats(a: Point, b: Point) -> bool:
        return no_worse(a, b) and (a.x[1], a.y[1]) != (b.x[1], b.y[1])

    found = front(points, up)
    assert not any(beats(a, b) for a in points for b in found)
    assert all(any(no_worse(a, b) for a in found) for b in points)
    assert [p.x[1] for p in found] == sorted({p.x[1] for p in found})


def row(name: str, ms: float, error: float, size: float, k: int | None = None) -> dict[str, Any]:
    total = {"p50": ms, "p95": 1.3 * ms, "p99": 1.5 * ms, "max": 2 * ms, "p50_range": [0.9 * ms, 1.1 * ms]}
    made: dict[str, Any] = {"name": name, "total_ms": total, "size_mb": size}
    made["action_error"] = {"mean": error, "max": 20 * error, "unit": "rad"}
    if k is not None:
        made["success"] = {"k": k, "n": 60, "rate": k / 60, "ci95": list(wilson(k, 60)), "suite": "s"}
        made["success"]["split"] = "seen"
    return made


def report(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "policy": "nano", "threads": 1, "machine": {"processor": "a processor"}, "against": rows[0]["name"],
        "variants": list(rows),
    }  # fmt: skip


CROWD = report(
    row("nano, torch", 12.0, 0.0, 13.7, 58),
    row("fp32", 4.9, 1e-7, 37.7, 58),
    row("fp16", 4.8, 1e-4, 20.0, 57),
    row("bf16", 4.85, 9e-4, 20.0, 57),
    row("int8", 2.9, 4e-3, 11.0, 55),
    row("int8, smoothed", 2.95, 3.5e-3, 11.1, 56),
    row("w4a16", 2.7, 2e-2, 8.0, 40),
    row("one step", 3.1, 2.5e-2, 37.7),
)


def box(name: Any) -> Any:
    """Of a name, without the line that leads to its point."""
    name.get_window_extent()  # puts it into its place
    return Text.get_window_extent(name)


def test_names_in_a_crowd_cover_neither_each_other_nor_the_edge() -> None:
    figure = pareto.draw(CROWD)
    for axis in figure.axes:
        boxes = [box(text) for text in axis.texts]
        assert len(boxes) >= 7
        for one, other in combinations(boxes, 2):
            assert not one.overlaps(other)
        for one in boxes:
            assert figure.bbox.x0 <= one.x0 < one.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= one.y0 < one.y1 <= figure.bbox.y1
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()  # panels can be compared


def test_whiskers_end_where_the_intervals_do() -> None:
    figure = pareto.draw(CROWD)
    drawn = [line for c in figure.axes[0].collections for line in getattr(c, "get_segments", list)()]
    ends = {(round(float(a[1]), 6), round(float(b[1]), 6)) for a, b in drawn if a[0] == b[0]}
    for k in (58, 57, 55, 40):
        low, high = wilson(k, 60)
        assert (round(100 * low, 6), round(100 * high, 6)) in ends


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
@pytest.mark.parametrize(
    "rows",
    [
        [row("alone", 5.0, 0.0, 1.0)],
        [row("alone", 5.0, 0.0, 1.0, 60)],
        [row("one", 5.0, 0.0, 1.0), row("its copy", 5.0, 0.0, 1.0)],
        [row("one", 5.0, 0.0, 1.0, 0), row("two", 500.0, 1e-3, 1.0, 0)],
        [row(f"number {i}", 5.0 + i, 1e-3 * i, 1.0 + i) for i in range(12)],
    ],
)
def test_whatever_was_measured_is_drawn(rows: list[dict[str, Any]], ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"bench{ending}"
    pareto.save(report(*rows), out)
    assert out.stat().st_size > 2000


def test_a_larger_variant_has_the_larger_marker() -> None:
    figure = pareto.draw(report(*(row(str(i), 5.0 + i, 1e-3 * i, 1.0 + 3 * i) for i in range(4))))
    drawn = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    areas = [float(markers.get_sizes()[0]) for markers in drawn]
    assert areas == sorted(areas)
    assert len(set(areas)) == 3
    assert np.isclose(areas[2] / areas[1], 10 / 7)


def test_a_picture_of_another_kind_is_refused() -> None:
    with pytest.raises(TaktError, match=r"\.png, \.svg, \.pdf"):
        pareto.check(Path("bench.jpeg"))
