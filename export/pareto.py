"""What a bench found as a picture: how well against how fast, and how large.

A panel for success where results of `takt eval` were given, and one for the action error. Towards the upper
left is better in the one, towards the lower left in the other; the line is the front, the variants that no
other one beats in both. Whiskers are what was measured of the uncertainty: latency over nine rounds in ten,
success by its Wilson interval; from mean to largest error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from vla.contract import TaktError

ENDINGS = (".png", ".svg", ".pdf")
# Told apart by colour-blind eyes as well (Okabe and Ito 2008), and by shape where there are no colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT = "#222222", "#8a8a8a"
AREA = 260.0  # points^2 of the largest variant's marker
# Where a name may stand, seen from its point.
AROUND = ((1, 0), (-1, 0), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7), (0, 1), (0, -1))
NAMES = 9  # their size, points
DISTANCES = (9, 16, 26, 40, 58, 80)  # points
Styles = dict[str, tuple[str, str]]  # variant -> colour and shape


@dataclass(frozen=True)
class Point:
    """A variant in a panel: x in ms, y in the panel's unit, each with the ends of its whisker; size in MB."""

    name: str
    x: tuple[float, float, float]  # low, value, high
    y: tuple[float, float, float]
    size: float


def check(path: Path) -> None:
    """Refuse a picture that cannot be written; TaktError says which can."""
    if path.suffix not in ENDINGS:
        raise TaktError(f"{path}: a picture's name ends in {', '.join(ENDINGS)}")


def save(report: dict[str, Any], path: Path) -> None:
    """Draw a bench report into a file."""
    check(path)
    with matplotlib.rc_context({"svg.hashsalt": "takt"}):
        draw(report).savefig(path, dpi=150)


def front(points: Sequence[Point], up: bool) -> list[Point]:
    """Those that no other beats in latency and in y at once, fastest first; `up`: more is better."""
    sign = -1.0 if up else 1.0
    best, found = np.inf, []
    for point in sorted(points, key=lambda p: (p.x[1], sign * p.y[1])):
        if sign * point.y[1] < best:
            best = sign * point.y[1]
            found.append(point)
    return found


def draw(report: dict[str, Any]) -> Figure:
    """The picture of a report of `takt bench`."""
    rows, against = report["variants"], report["against"]
    styles = {r["name"]: (COLOURS[i % 7], SHAPES[(i + i // 7) % 7]) for i, r in enumerate(rows)}
    successful = [_success(r) for r in rows if "success" in r]
    wrong = [_error(r) for r in rows if r["name"] != against]
    panels = max(1, bool(successful) + bool(wrong))
    xs = [x for row in rows for x in _latency(row)]  # panels have one scale
    figure = Figure(figsize=(7.2 * panels, 5.4), layout="constrained")
    FigureCanvasAgg(figure)  # measures text, which labels need to find their place
    axes = figure.subplots(1, panels, squeeze=False)[0]
    machine, threads = report["machine"]["processor"], report["threads"]
    title = f"{report['policy']}: one chunk on {machine}, {threads} thread{'s' * (threads > 1)}"
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=INK)
    if successful:
        suite = next(r["success"] for r in rows if "success" in r)
        _panel(axes[0], successful, styles, xs, up=True)
        axes[0].set_ylabel(f"success on {suite['suite']} ({suite['split']}), %", color=INK)
        text = "up and left is better, the grey line is the front; 95 % Wilson intervals"
        axes[0].set_title(text, loc="left", fontsize=9, color=INK)
    if wrong or not successful:
        unit = rows[0]["action_error"].get("unit", "each in its own unit")
        floor = _floor(wrong)
        _panel(axes[-1], [_above(p, floor) for p in wrong], styles, xs, up=False)
        axes[-1].set_ylabel(f"action error, {unit}: mean, whisker to the largest", color=INK)
        text = f"down and left is better, the grey line is the front; against {against}"
        axes[-1].set_title(text, loc="left", fontsize=9, color=INK)
        _reference(axes[-1], next(r for r in rows if r["name"] == against))
    figure.draw_without_rendering()  # the layout is done
    for axis, points in zip(axes, [p for p in (successful, wrong) if p], strict=False):
        floor = _floor(wrong) if points is wrong else -np.inf
        _label(figure, axis, [_above(p, floor) for p in points], styles, up=points is successful)
    figure.set_layout_engine("none")  # labels were placed for this layout
    return figure


def _latency(row: dict[str, Any]) -> tuple[float, float, float]:
    total = row["total_ms"]
    low, high = total["p50_range"]
    return min(low, total["p50"]), total["p50"], max(high, total["p50"])


def _success(row: dict[str, Any]) -> Point:
    low, high = row["success"]["ci95"]
    shares = 100 * low, 100 * row["success"]["rate"], 100 * high
    return Point(row["name"], _latency(row), shares, row["size_mb"])


def _error(row: dict[str, Any]) -> Point:
    mean, most = row["action_error"]["mean"], row["action_error"]["max"]
    return Point(row["name"], _latency(row), (mean, mean, most), row["size_mb"])


def _floor(points: Sequence[Point]) -> float:
    """Where an error of 0 is drawn, for a logarithm has none: a tenth of the smallest other one."""
    return min((p.y[1] for p in points if p.y[1] > 0), default=1e-6) / 10


def _above(point: Point, floor: float) -> Point:
    low, value, high = (max(y, floor) for y in point.y)
    return replace(point, y=(low, value, high))


def _panel(axis: Axes, points: Sequence[Point], styles: Styles, xs: Sequence[float], up: bool) -> None:
    """Points, their whiskers and the front."""
    edge = front(points, up)
    if len(edge) > 1:
        axis.step([p.x[1] for p in edge], [p.y[1] for p in edge], where="post", color=FAINT, lw=1.2, zorder=1)
    largest = max((p.size for p in points), default=1.0)
    for point in points:
        (left, x, right), (low, y, high) = point.x, point.y
        colour, shape = styles[point.name]
        whiskers: Any = {"xerr": [[x - left], [right - x]], "yerr": [[y - low], [high - y]]}
        axis.errorbar(x, y, **whiskers, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2.5, zorder=2)
        area = AREA * point.size / largest
        axis.scatter([x], [y], s=max(area, 14.0), c=colour, marker=shape, ec="white", lw=0.8, zorder=3)
    _scales(axis, points, xs, up)
    axis.set_xlabel("latency of a chunk, ms: median, whisker over nine rounds in ten", color=INK)
    axis.grid(alpha=0.2, which="major")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(which="both", colors=FAINT, labelcolor=INK, labelsize=9)


def _scales(axis: Axes, points: Sequence[Point], xs: Sequence[float], up: bool) -> None:
    """Logarithms where values spread, with some room around for the names."""
    if max(xs) > 4 * min(xs) > 0:
        axis.set_xscale("log")
        axis.set_xlim(min(xs) / 1.4, max(xs) * 1.8)
        axis.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(0, 1.25 * max(xs))
    if up:
        low, high = min(p.y[0] for p in points), max(p.y[2] for p in points)
        axis.set_ylim(max(-2.0, low - 0.15 * (high - low) - 2), min(103.0, high + 0.15 * (high - low) + 2))
    elif points:
        axis.set_yscale("log")
        axis.set_ylim(min(p.y[0] for p in points) / 4, max(p.y[2] for p in points) * 4)


def _reference(axis: Axes, row: dict[str, Any]) -> None:
    """The variant that the error is measured against has none: a line at its latency."""
    x = row["total_ms"]["p50"]
    axis.axvline(x, color=INK, lw=1.2, ls=(0, (4, 3)), zorder=1)
    text = f"{row['name']}: {x:.3g} ms, error 0"
    place: Any = {"xycoords": axis.get_xaxis_transform(), "textcoords": "offset points", "rotation": 90}
    axis.annotate(text, (x, 1.0), (4, -4), fontsize=9, color=INK, ha="left", va="top", **place)


def _label(figure: Figure, axis: Axes, points: Sequence[Point], styles: Styles, up: bool) -> None:
    """Each point's name and size where it covers nothing, tried from near to far."""
    taken = [box for point in points for box in _covered(axis, point)]
    edge = [(p.x[1], p.y[1]) for p in front(points, up)]
    for (x, y), (then, below) in pairwise(edge):
        taken += [_box(axis, (x, y), (then, y)), _box(axis, (then, y), (then, below))]
    taken += [text.get_window_extent() for text in axis.texts]
    frame = axis.get_window_extent()
    room = Bbox.from_extents(frame.x0, frame.y0, figure.bbox.x1, frame.y1)
    for point in points:
        text = f"{point.name}, {point.size:.3g} MB"
        place = (point.x[1], point.y[1])
        size = _size(axis, text)
        at = axis.transData.transform(place)
        tries = [(away * dx, away * dy) for away in DISTANCES for dx, dy in AROUND]
        boxes = [_there(at, size, away, figure.dpi / 72) for away in tries]
        free = (i for i, box in enumerate(boxes) if _inside(box, room) and not box.count_overlaps(taken))
        best = next(free, 0)
        taken.append(boxes[best])
        ha, va = _sides(tries[best])
        far = max(map(abs, tries[best])) > 16  # a thin line leads there
        line = {"arrowstyle": "-", "color": FAINT, "lw": 0.6, "shrinkB": 4} if far else None
        axis.annotate(
            text, place, tries[best], textcoords="offset points", fontsize=NAMES, ha=ha, va=va,
            color=styles[point.name][0], arrowprops=line,
        )  # fmt: skip


def _sides(away: tuple[float, float]) -> tuple[str, str]:
    """Which side of a name is next to its point."""
    ha = "left" if away[0] > 0 else "right" if away[0] < 0 else "center"
    return ha, "bottom" if away[1] > 0 else "top" if away[1] < 0 else "center"


def _size(axis: Axes, text: str) -> tuple[float, float]:
    """Width and height of a name, pixels."""
    trial = axis.text(0, 0, text, fontsize=NAMES)
    box = trial.get_window_extent()
    trial.remove()
    return box.width, box.height


def _there(at: np.ndarray, size: tuple[float, float], away: tuple[float, float], scale: float) -> Bbox:
    """The box of a name `away` points from `at`, pixels; `scale` pixels a point."""
    share = {"left": 0.0, "center": 0.5, "right": 1.0, "bottom": 0.0, "top": 1.0}
    ha, va = _sides(away)
    x, y = at[0] + scale * away[0] - share[ha] * size[0], at[1] + scale * away[1] - share[va] * size[1]
    return Bbox.from_bounds(x, y, *size)


def _inside(box: Bbox, room: Bbox) -> bool:
    return bool(box.x0 >= room.x0 and box.x1 <= room.x1 and box.y0 >= room.y0 and box.y1 <= room.y1)


def _covered(axis: Axes, point: Point) -> list[Bbox]:
    """Where a point and its whiskers are, in the figure's pixels."""
    (left, x, right), (low, y, high) = point.x, point.y
    whiskers = [_box(axis, (left, y), (right, y)), _box(axis, (x, low), (x, high))]
    return [*whiskers, _box(axis, (x, y), (x, y), 9)]


def _box(axis: Axes, one: tuple[float, float], other: tuple[float, float], margin: float = 2) -> Bbox:
    """Around two places in the axis's units, in the figure's pixels."""
    ends = axis.transData.transform([one, other])
    return Bbox([ends.min(0) - margin, ends.max(0) + margin])
