"""Success and smoothness against latency, by how chunks are joined, on the same tables.

    takt export checkpoints/nano /tmp/guided --joining guided --words-from vla/bundles/nano
    python benchmarks/delays.py --guided /tmp/guided --picture docs/media/delays.png

An answer comes a given number of ticks after its observation, in simulated time: physics goes on while
the policy thinks. Success is n/N with its Wilson interval, smoothness the RMS jerk of the joints, `held`
the share of ticks without a row to play. `guided` is real-time chunking by guidance (J = 1) in place of the
prefix that the policy was trained with. Each joining is compared with `rtc` on the same seeds by McNemar's
exact test.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from runtime.bundle import load
from runtime.joining import JOININGS
from runtime.machine import machine
from sim.evaluate import SHIPPED, Command
from sim.statistics import mcnemar

RESULTS = Path(__file__).parent / "results" / "delays.json"
TICKS = (0, 2, 4, 6, 8, 10, 12, 14, 16)
RATE = 30.0


def cell(options: argparse.Namespace, name: str, ticks: int, out: Path) -> dict[str, Any]:
    """One joining at one delay."""
    guided = name == "guided"
    join = "rtc" if guided else name
    Command(
        policy=str(options.guided if guided else options.bundle), episodes=options.episodes,
        seed=options.seed, workers=options.workers,
        latency=f"{ticks / RATE:.6f}s", rate=RATE, join=join, json=out,
    ).run()  # fmt: skip
    report = json.loads(out.read_text())
    episodes = report["episodes"]
    held = sum(e["held"] for e in episodes) / sum(e["steps"] for e in episodes)
    row = {"join": name, "ticks": ticks, "milliseconds": 1e3 * ticks / RATE, "held": held}
    return row | {"success": report["success"], "jerk": report["jerk"]} | {
        "seconds": sum(e["sim_seconds"] for e in episodes if e["success"]) / max(report["success"]["k"], 1),
        "outcomes": "".join("01"[e["success"]] for e in episodes),
    }  # fmt: skip


def outcomes(row: dict[str, Any]) -> list[bool]:
    return [letter == "1" for letter in row["outcomes"]]


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its p against real-time chunking at the same delay."""
    best = {row["ticks"]: outcomes(row) for row in rows if row["join"] == "rtc"}
    return [row | {"p_against_rtc": mcnemar(outcomes(row), best[row["ticks"]])} for row in rows]


def table(rows: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(row["join"] for row in rows))
    out = Table("delay, ticks", "ms", *names, title="success n/N (jerk, rad/s³)")
    for ticks in sorted({row["ticks"] for row in rows}):
        here = {row["join"]: row for row in rows if row["ticks"] == ticks}
        cells = [
            f"{r['success']['k']}/{r['success']['n']} ({r['jerk']:.0f})" for r in (here[j] for j in names)
        ]
        out.add_row(str(ticks), f"{1e3 * ticks / RATE:.0f}", *cells)
    return out


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Success with Wilson intervals, and jerk, against the delay."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, height_ratios=(3, 2))
    for join in dict.fromkeys(row["join"] for row in rows):
        mine = [row for row in rows if row["join"] == join]
        x = [row["milliseconds"] for row in mine]
        low, high = zip(*(row["success"]["ci95"] for row in mine), strict=True)
        (line,) = upper.plot(x, [100 * row["success"]["rate"] for row in mine], "o-", label=join)
        upper.fill_between(
            x, [100 * v for v in low], [100 * v for v in high], color=line.get_color(), alpha=0.12, lw=0
        )
        lower.plot(x, [row["jerk"] for row in mine], "o-", color=line.get_color())
    upper.set(ylabel="success, %", ylim=(0, 102))
    upper.legend(title="joining", frameon=False, loc="lower left")
    lower.set(ylabel="RMS jerk, rad/s³", xlabel="an answer comes so late, ms", ylim=(0, None))
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    n = rows[0]["success"]["n"]
    upper.set_title(f"Tabletop, {n} tables each, 95 % Wilson intervals; a chunk lasts 1.1 s", fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--guided", type=Path, default=None)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ticks", type=int, nargs="+", default=TICKS)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=None)
    options = parser.parse_args()
    rows = []
    names = [*JOININGS, *(["guided"] if options.guided else [])]
    with tempfile.TemporaryDirectory() as folder:
        for ticks in options.ticks:
            for join in names:
                print(f"{join}, {ticks} ticks: ", end="", flush=True)
                rows.append(cell(options, join, ticks, Path(folder, "cell.json")))
    rows = compared(rows)
    Console().print(table(rows))
    seeds = [options.seed, options.seed + options.episodes - 1]
    spec = load(options.bundle).spec
    report = {
        "machine": machine(),
        "bundle": options.bundle.name,
        "committed": spec.committed,
        "seeds": seeds,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report | {"rate": RATE, "rows": rows}, indent=1) + "\n")
    if options.picture:
        draw(rows, options.picture)


if __name__ == "__main__":
    main()
