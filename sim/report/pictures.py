"""The page's pictures: SVG with the colours of the page's style, light or dark, without a script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sim.report.markup import Markup, number, tag

SHAPES = ("circle", "square", "triangle", "diamond")  # told apart without colours as well


@dataclass(frozen=True)
class Point:
    """One point of a curve: x in ms; rate and the ends of its interval from 0 to 1."""

    x: float
    k: int
    n: int
    rate: float
    low: float
    high: float


Curves = dict[str, list[Point]]  # by what the legend says


def interval(score: dict[str, Any], name: str) -> Markup:
    """A success rate from 0 to 100 % with its interval, as wide as its cell.

    Coordinates are in percent: the width is the screen's, and lines and dots keep their size.
    """
    low, high = (100 * v for v in score["ci95"])
    return _strip(name, 100 * score["rate"], low, high, (0, 25, 50, 75, 100), lambda v: v)


def difference(value: float, low: float, high: float, reach: float, name: str) -> Markup:
    """A difference of rates with its interval, from -reach to reach, about a line at none."""
    return _strip(name, value, low, high, (0.0,), lambda v: 50 + 50 * v / reach, strong=True)


def _strip(
    name: str,
    value: float,
    low: float,
    high: float,
    grid: tuple[float, ...],
    at: Callable[[float], float],
    strong: bool = False,
) -> Markup:
    def x(v: float) -> str:
        return f"{2 + 0.96 * at(v):.2f}%"

    lines = [
        tag("line", x1=x(v), x2=x(v), y1=0, y2="100%", class_="zero" if strong else "grid") for v in grid
    ]
    whisker = tag("line", x1=x(low), x2=x(high), y1="50%", y2="50%", class_="whisker")
    dot = tag("circle", cx=x(value), cy="50%", r=5, class_="dot")
    return tag("svg", tag("title", name), lines, whisker, dot, class_="strip", role="img")


def scale() -> Markup:
    """What the strips of `interval` are measured by."""
    names = [
        tag("text", f"{v}", x=f"{2 + 0.96 * v:.2f}%", y="75%", text_anchor="middle")
        for v in (0, 25, 50, 75, 100)
    ]
    return tag("svg", names, class_="strip scale", aria_hidden="true")


def curves(found: Curves, wide: bool) -> Markup:
    """Success against latency, a line for each way of joining; `wide` for a desk, else for a phone."""
    width, height = (860, 340) if wide else (350, 300)
    left, right, top, bottom = 46, 14, 14, 46
    longest = max((p.x for points in found.values() for p in points), default=0.0) or 1.0

    def x(v: float) -> float:
        return left + 12 + (width - left - right - 24) * v / longest

    def y(v: float) -> float:
        return top + (height - top - bottom) * (1 - v)

    out = []
    for v in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(tag("line", x1=left, x2=width - right, y1=f"{y(v):.1f}", y2=f"{y(v):.1f}", class_="grid"))
        out.append(tag("text", f"{100 * v:.0f} %", x=left - 6, y=f"{y(v) + 4:.1f}", text_anchor="end"))
    for v in _ticks(longest, 8 if wide else 4):
        out.append(tag("text", number(v), x=f"{x(v):.1f}", y=height - bottom + 20, text_anchor="middle"))
    out.append(
        tag("text", "latency from observation to answer, ms (median)", x=(left + width - right) / 2,
            y=height - 6, text_anchor="middle")
    )  # fmt: skip
    for nth, (name, points) in enumerate(found.items()):
        aside = 7 * (
            nth - (len(found) - 1) / 2
        )  # so that whiskers of the same latency do not hide each other
        out.append(_curve(name, sorted(points, key=lambda p: p.x), nth, x, y, aside))
    title = "success against latency: " + "; ".join(
        f"{name}: " + ", ".join(f"{p.k}/{p.n} at {number(p.x)} ms" for p in points)
        for name, points in found.items()
    )
    return tag("svg", tag("title", title), out, class_="curves " + ("wide" if wide else "narrow"),
               viewBox=f"0 0 {width} {height}", role="img")  # fmt: skip


def _curve(
    name: str,
    points: list[Point],
    nth: int,
    x: Callable[[float], float],
    y: Callable[[float], float],
    aside: float,
) -> Markup:
    places = " ".join(f"{x(p.x) + aside:.1f},{y(p.rate):.1f}" for p in points)
    out = [tag("polyline", points=places, class_="joined")]
    for p in points:
        at = f"{x(p.x) + aside:.1f}"
        out.append(tag("line", x1=at, x2=at, y1=f"{y(p.low):.1f}", y2=f"{y(p.high):.1f}", class_="whisker"))
        out.append(marker(nth, x(p.x) + aside, y(p.rate)))
    return tag("g", out, class_=f"series s{nth % 4}", aria_label=name)


def marker(nth: int, x: float, y: float, r: float = 5.0) -> Markup:
    """The mark of a curve."""
    shape = SHAPES[nth % len(SHAPES)]
    if shape == "circle":
        return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=r, class_="dot")
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    }[shape]
    places = " ".join(f"{x + r * a:.1f},{y + r * b:.1f}" for a, b in corners)
    return tag("polygon", points=places, class_="dot")


def legend(names: list[str]) -> Markup:
    """What each curve is."""
    marks = [
        tag("li", tag("svg", tag("g", marker(i, 9, 9), class_=f"series s{i % 4}"), class_="key",
                      aria_hidden="true"), name)
        for i, name in enumerate(names)
    ]  # fmt: skip
    return tag("ul", marks, class_="legend")


def _ticks(longest: float, most: int) -> list[float]:
    """Round numbers from 0 to `longest`, no more than `most` and one."""
    step = next(s * 10.0**e for e in range(-3, 9) for s in (1, 2, 5) if longest / (s * 10.0**e) <= most)
    return [i * step for i in range(int(longest / step + 1e-9) + 1)]
