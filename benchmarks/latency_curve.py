"""Success against latency, with real-time chunking and without: the same latencies, the same tables.

    python benchmarks/latency_curve.py --picture docs/media/latency_curve.png
    python benchmarks/latency_curve.py --latencies lognormal:100ms,0.5 lognormal:400ms,0.5 orin.json

Physics goes on while the policy thinks, in simulated time (`takt eval --latency`): an answer comes when its
delay is over, until then the arm follows the running chunk. A latency is constant, a distribution, or a
profile that `takt bench --profile` measured on some machine. Success is n/N with its Wilson interval; "rtc"
is what the policy was exported for (a trained prefix, or guidance), "naive" takes each answer as it comes.
benchmarks/delays.py compares all ways of joining, tick by tick.
"""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _command import main
from rich.console import Console
from rich.table import Table

from runtime.bundle import load
from runtime.latency import parse
from runtime.machine import machine
from sim import evaluate
from sim.evaluate import SHIPPED
from sim.statistics import mcnemar

RESULTS = Path(__file__).parent / "results" / "latency_curve.json"
JOINS = ("rtc", "naive")
COLOURS = {"rtc": "#0072B2", "naive": "#D55E00"}  # of Okabe and Ito, which all eyes tell apart
SHAPES = {"rtc": "o", "naive": "s"}


@dataclass
class Command:
    """Evaluate a bundle under several latencies, joined by rtc and by naive."""

    bundle: Path = SHIPPED
    """The policy; it has to be able to continue chunks."""
    latencies: tuple[str, ...] = ("0ms", "100ms", "200ms", "400ms")
    """As takt eval --latency takes them."""
    episodes: int = 100
    """Tables a cell, the same in all of them."""
    seed: int = 20_000
    """The first one."""
    workers: int = 1
    """Processes."""
    json: Path = RESULTS
    """Where to write the result."""
    picture: Path | None = None
    """Where to draw it."""

    def run(self) -> int:
        for late in self.latencies:
            parse(late)  # before the first one is played for nothing
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for late in self.latencies:
                pair = [self._cell(late, join, Path(folder, "cell.json")) for join in JOINS]
                p = mcnemar(pair[0].pop("outcomes"), pair[1].pop("outcomes"))
                rows += [row | {"p": p} for row in pair]
        bundle = load(self.bundle)
        report = {
            "machine": machine(), "bundle": self.bundle.name, "joining": bundle.spec.joining,
            "chunk_s": (bundle.spec.chunk_length - 1) * bundle.spec.dt, "episodes": self.episodes,
            "seeds": [self.seed, self.seed + self.episodes - 1], "rows": rows,
        }  # fmt: skip
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        Console().print(table(rows))
        if self.picture is not None:
            draw(report, self.picture)
        return 0

    def _cell(self, late: str, join: str, out: Path) -> dict[str, Any]:
        """One latency and one joining."""
        print(f"{late}, {join}: ", end="", flush=True)
        evaluate.Command(
            policy=str(self.bundle), episodes=self.episodes, seed=self.seed, workers=self.workers,
            latency=late, join=join, json=out,
        ).run()  # fmt: skip
        report = jsonlib.loads(out.read_text())
        row = {"join": join} | {key: report[key] for key in ("latency", "success", "jerk")}
        return row | {"outcomes": [e["success"] for e in report["episodes"]]}


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(title="success under latency; p by McNemar's test, paired")
    for column in ("latency", "drawn p50 .. p95, ms", "joining", "success", "95 %", "jerk", "dry", "p"):
        out.add_column(column, justify="left" if column in ("latency", "joining") else "right")
    for row in rows:
        s, late = row["success"], row["latency"]
        low, high = (100 * v for v in s["ci95"])
        dry = 100 * late["ticks"]["dry"] / late["ticks"]["all"]
        drawn = late["drawn_ms"]
        out.add_row(
            Path(late["given"]).name, f"{drawn['p50']:.0f} .. {drawn['p95']:.0f}", row["join"],
            f"{s['k']}/{s['n']}", f"{low:.0f} .. {high:.0f}", f"{row['jerk']:.0f}", f"{dry:.1f} %",
            f"{row['p']:.2g}",
        )  # fmt: skip
    return out


def draw(report: dict[str, Any], path: Path) -> None:
    """Success with Wilson intervals, and jerk, against the median latency; to its p95 where it varies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = {
        "rtc": f"rtc ({report['joining']}): continues what is executed",
        "naive": "naive: takes each answer as it comes",
    }
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(7.2, 6.2), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    for join in JOINS:
        mine = sorted(
            (r for r in report["rows"] if r["join"] == join), key=lambda r: r["latency"]["drawn_ms"]["p50"]
        )
        x = [r["latency"]["drawn_ms"]["p50"] for r in mine]
        far = [r["latency"]["drawn_ms"]["p95"] - at for r, at in zip(mine, x, strict=True)]
        y = [100 * r["success"]["rate"] for r in mine]
        low, high = zip(*((100 * a, 100 * b) for a, b in (r["success"]["ci95"] for r in mine)), strict=True)
        style: Any = {"color": COLOURS[join], "marker": SHAPES[join], "ms": 6, "lw": 1.8}
        upper.fill_between(x, low, high, color=COLOURS[join], alpha=0.13, lw=0)
        upper.errorbar(x, y, xerr=[[0.0] * len(x), far], **style, capsize=3, elinewidth=1, label=names[join])
        lower.plot(x, [r["jerk"] for r in mine], **style)
    for row, at in [(r, r["latency"]["drawn_ms"]["p50"]) for r in report["rows"] if r["join"] == "naive"]:
        if row["p"] < 0.05:
            upper.annotate(
                f"p = {row['p']:.1g}", (at, 100 * row["success"]["ci95"][0]), (0, -12),
                textcoords="offset points", ha="center", fontsize=8, color="#444444",
            )  # fmt: skip
    upper.set(ylabel="success, %", ylim=(0, 103))
    upper.legend(frameon=False, loc="lower left", fontsize=9)
    most = max(r["jerk"] for r in report["rows"])
    lower.set(ylabel="RMS jerk, rad/s³", ylim=(0, 1.1 * most))
    lower.set_xlabel("an answer comes so late, ms (median; whisker to p95)")
    for axis in (upper, lower):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    n, length = report["episodes"], report["chunk_s"]
    title = f"{report['bundle']} on the tabletop, the same {n} tables each; a chunk lasts {length:.2g} s"
    upper.set_title(title, fontsize=10, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    sys.exit(main(Command))
