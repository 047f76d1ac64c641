"""An evaluation beside another on the same episodes: what the pairs show, and which tell the two apart."""

from __future__ import annotations

import math
from typing import Any

from sim.compare import between, by_episode
from sim.report import pictures
from sim.report.markup import Markup, table, tag
from sim.report.result import Result

LISTED = 100  # episodes that one of the two alone solved


def section(this: Result, other: Result) -> Markup:
    """The comparison: by how much this one succeeds more often than the other."""
    found = between(other.data, this.data, other.where, this.where)
    one, two = found["one"], found["two"]
    low, high = (100 * v for v in found["ci95"])
    points = signed(100 * found["difference"]) + " points"
    reach = 5 * math.ceil(max(10.0, abs(low), abs(high)) / 5)  # points
    said = f"difference {points}, 95 % interval {signed(low)} to {signed(high)}"
    picture = pictures.difference(found["difference"], low / 100, high / 100, reach / 100, said)
    ends = f"−{reach} points: the other is better", "0", f"+{reach} points: this one is better"
    p = found["mcnemar_p"]
    rows = [
        ["this", this.name(), f"{two['k']}/{two['n']}"],
        ["other", other.name(), f"{one['k']}/{one['n']}"],
    ]
    numbers = [
        ["difference, 95 % Newcombe", f"{points} ({signed(low)} to {signed(high)})"],
        ["solved by this one only", found["only_two"]],
        ["solved by the other only", found["only_one"]],
        ["McNemar's exact test, p", "below 0.0001" if p < 1e-4 else f"{p:.3g}"],
        [f"what {one['n']} pairs show in 4 of 5 runs", f"{100 * found['detectable']:.1f} points or more"],
    ]  # fmt: skip
    return tag(
        "section", tag("h2", f"Beside {other.name()}"), tag("p", verdict(found)),
        table(["", "policy, joining, latency", "n/N"], rows, (2,), aria_label="the two"),
        tag("figure", picture, tag("figcaption", [tag("span", end) for end in ends], class_="ends"),
            class_="difference"),
        table(["pairs", ""], numbers, (1,), aria_label="paired comparison"),
        alone(this, other, "Only this one solved", True), alone(this, other, "Only the other solved", False),
    )  # fmt: skip


def signed(points: float) -> str:
    """With its sign, the minus a real one."""
    return f"{points:+.1f}".replace("-", "−")


def verdict(found: dict[str, Any]) -> str:
    """What the pairs show, in a sentence."""
    n, left = found["one"]["n"], found["left_out"]
    if found["mcnemar_p"] < 0.05:
        more = "more" if found["difference"] > 0 else "less"
        said = f"This one succeeds {more} often, beyond what chance does in 1 of 20 such comparisons."
    else:
        said = f"{n} episodes do not tell the two apart."
    return said + (f" {left} episodes are in one of the two alone and were left out." if left else "")


def alone(this: Result, other: Result, title: str, ours: bool) -> Markup | None:
    """The episodes that one of the two alone solved."""
    mine, theirs = by_episode(this.data), by_episode(other.data)
    keys = [key for key, success in mine.items() if success == ours and theirs.get(key) == (not ours)]
    if not keys:
        return None
    rows = [[key[0], key[1], key[3]] for key in keys[:LISTED]]
    more = f", the first {LISTED}" if len(keys) > LISTED else ""
    return tag(
        "details", tag("summary", f"{title}: {len(keys)}{more}"),
        table(["seed", "task", "instruction"], rows, aria_label=title),
    )  # fmt: skip
