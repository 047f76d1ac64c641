"""Success and smoothness against latency, by how chunks are joined: the same latencies, the same tables.

    python benchmarks/latency_curve.py --workers 2 --picture docs/media/latency_curve.png
    python benchmarks/latency_curve.py --latencies lognormal:100ms,0.5 lognormal:400ms,0.5 orin.json
    takt export checkpoints/nano /tmp/guided --joining guided --words-from vla/bundles/nano
    python benchmarks/latency_curve.py --guided /tmp/guided

Physics goes on while the policy thinks, in simulated time (`takt eval --latency`): an answer comes when its
delay is over, until then the arm follows the running chunk. A latency is constant, a distribution, or a
profile that `takt bench --profile` measured on some machine. Success is n/N with its Wilson interval,
smoothness the RMS jerk of the joints, `dry` the share of ticks whose plan had run out. "rtc" is what the
policy was exported for (a trained prefix, or guidance), "guided" guidance in place of it; runtime/joining.py
has the others. Each is compared with "rtc" on the same tables by McNemar's exact test.
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
FIRST = "rtc"  # what the others are compared with
GUIDED = "guided"
# Of Okabe and Ito, which all eyes tell apart.
COLOURS = {"rtc": "#0072B2", "naive": "#D55E00", "ensemble": "#009E73", "hold": "#CC79A7", GUIDED: "#56B4E9"}
SHAPES = {"rtc": "o", "naive": "s", "ensemble": "^", "hold": "D", GUIDED: "v"}


@dataclass
class Command:
    """Evaluate a bundle under several latencies, joined in several ways."""

    bundle: Path = SHIPPED
    """The policy; it has to be able to continue chunks."""
    guided: Path | None = None
    """The same policy, exported with --joining guided."""
    latencies: tuple[str, ...] = ("0ms", "100ms", "200ms", "300ms", "400ms")
    """As takt eval --latency takes them."""
    joins: tuple[str, ...] = ("naive", "ensemble", "hold")
    """What rtc is compared with."""
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
        policies = {join: self.bundle for join in dict.fromkeys((FIRST, *self.joins))}
        policies |= {GUIDED: self.guided} if self.guided else {}
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for late in self.latencies:
                here = [
                    self._cell(late, j, policy, Path(folder, "cell.json")) for j, policy in policies.items()
                ]
                outcomes = [row.pop("outcomes") for row in here]
                rows += [r | {"p": mcnemar(o, outcomes[0])} for r, o in zip(here, outcomes, strict=True)]
        bundle = load(self.bundle)
        report = {
            "machine": machine(), "bundle": self.bundle.name, "joining": bundle.spec.joining,
            "committed": bundle.spec.committed,
            "chunk_s": (bundle.spec.chunk_length - 1) * bundle.spec.dt, "episodes": self.episodes,
            "seeds": [self.seed, self.seed + self.episodes - 1], "rows": rows,
        }  # fmt: skip
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        Console().print(table(rows))
        if self.picture is not None:
            draw(report, self.picture)
        return 0

    def _cell(self, late: str, join: str, policy: Path, out: Path) -> dict[str, Any]:
        """One latency and one joining."""
        print(f"{late}, {join}: ", end="", flush=True)
        evaluate.Command(
            policy=str(policy), episodes=self.episodes, seed=self.seed, workers=self.workers,
            latency=late, join=FIRST if join == GUIDED else join, json=out,
        ).run()  # fmt: skip
        report = jsonlib.loads(out.read_text())
        done = [e["sim_seconds"] for e in report["episodes"] if e["success"]]
        row = {"join": join} | {key: report[key] for key in ("latency", "success", "jerk")}
        row["seconds"] = sum(done) / max(len(done), 1)
        return row | {"outcomes": [e["success"] for e in report["episodes"]]}


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(title="success under latency; p against rtc by McNemar's test, paired")
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
        "ensemble": "ensemble: averages what chunks say",
        "hold": "hold: stands still while it waits",
        GUIDED: "guided: is pulled towards what is executed",
    }
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(7.2, 6.2), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    for join in dict.fromkeys(row["join"] for row in report["rows"]):
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
