"""What the planner chooses when a policy's latency jumps, 50 -> 200 -> 50 ms, in simulated time.

    python benchmarks/latency_jump.py [--picture docs/media/latency_jump.png]

The real planner on an injected clock, 30 Hz, chunks of 1.1 s, six seconds a phase. Drawn are the latency of
every answer, the latency that had been assumed when it was asked for, the rows that were committed, and how
long the running chunk still was when the answer came. A miss is an answer later than assumed; physics forces
one, the first of the slow phase.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime import so101
from runtime.clock import SimulatedClock
from runtime.planner import InlineLink, Planner
from vla.contract import ActionChunk, Observation, PolicySpec, Prefix

RESULTS = Path(__file__).parent / "results" / "latency_jump.json"
PERIOD, PHASE = 1 / 30, 6.0
LATENCIES = (0.05, 0.2, 0.05)


class Standing:
    """A policy whose plan is to stay where the arm is."""

    def __init__(self) -> None:
        joints = so101.spec(())
        self.spec = PolicySpec("standing", joints.state, joints.actions, (), 12, 0.1, 0.2, "prefix", 12)

    def reset(self, seed: int) -> None:
        pass

    def infer(
        self, observation: Observation, prefix: Prefix | None = None, deadline: float | None = None
    ) -> ActionChunk:
        return ActionChunk(observation.time, self.spec.dt, np.tile(observation.state, (12, 1)))


def play() -> dict[str, Any]:
    """Every answer's row, and what was missed in each phase."""
    clock, policy = SimulatedClock(), Standing()

    def latency() -> float:
        return LATENCIES[min(int(clock.now() / PHASE), len(LATENCIES) - 1)]

    planner = Planner(policy.spec, InlineLink(policy, latency, clock), period=PERIOD)
    seen = Observation(0.0, np.zeros(len(policy.spec.state), np.float32))
    rows: list[dict[str, Any]] = []
    held = 0
    for k in range(round(PHASE * len(LATENCIES) / PERIOD)):
        clock.sleep_until(k * PERIOD)
        now = clock.now()
        before, running = planner.answered, planner.chunk
        planner.receive(now)
        if planner.answered > before:
            choice = planner.choices[-1]
            reserve = None if running is None else running.end - now
            rows.append(row(choice.time, now - choice.time, choice.latency, choice.rows, reserve))
        planner.submit(replace(seen, time=now))
        held += planner.target(now) is None and k > 3
    return {"answers": rows, "held": held, "missed": missed(rows)}


def row(asked: float, took: float, assumed: float | None, rows: int, reserve: float | None) -> dict[str, Any]:
    late = assumed is not None and took > max(assumed + PERIOD, (rows - 1) * 0.1) + 1e-6
    return {
        "asked": asked,
        "took": took,
        "assumed": assumed,
        "rows": rows,
        "reserve": reserve,
        "missed": late,
    }


def missed(rows: list[dict[str, Any]]) -> list[int]:
    """Answers later than assumed, by phase."""
    return [
        sum(r["missed"] for r in rows if phase * PHASE <= r["asked"] < (phase + 1) * PHASE)
        for phase in range(len(LATENCIES))
    ]


def draw(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = report["answers"]
    t = [r["asked"] for r in rows]
    figure, (top, middle, low) = plt.subplots(3, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 2, 2))
    top.step(
        t, [1e3 * r["took"] for r in rows], "o-", where="post", ms=3, label="an answer took (to its tick)"
    )
    known = [r for r in rows if r["assumed"] is not None]
    top.step(
        [r["asked"] for r in known], [1e3 * r["assumed"] for r in known], "s-", where="post", ms=3,
        label="assumed when it was asked for",
    )  # fmt: skip
    late = [r for r in rows if r["missed"]]
    top.plot(
        [r["asked"] for r in late], [1e3 * r["took"] for r in late], "rx", ms=10, label="later than assumed"
    )
    top.set(ylabel="ms", ylim=(0, 290))
    top.legend(frameon=False, ncol=3, loc="upper center", fontsize=9)
    middle.step(t, [r["rows"] for r in rows], "o-", where="post", ms=3, color="tab:green")
    middle.set(ylabel="rows committed, d", ylim=(0, 5))
    reserve = [(r["asked"] + r["took"], 1e3 * r["reserve"]) for r in rows if r["reserve"] is not None]
    low.plot(*zip(*reserve, strict=True), "o-", ms=3, color="tab:purple")
    low.set(ylabel="ms of plan left\nat an answer", xlabel="simulated time, s", ylim=(0, None))
    for axes in (top, middle, low):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        for edge in (PHASE, 2 * PHASE):
            axes.axvline(edge, color="0.5", lw=0.8, ls="--")
    top.set_title(
        "A policy's latency jumps 50 → 200 → 50 ms; what the planner assumed and committed", fontsize=10
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=None)
    options = parser.parse_args()
    report = play()
    print(f"answers later than assumed, by phase: {report['missed']}; ticks held: {report['held']}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.picture:
        draw(report, options.picture)


if __name__ == "__main__":
    main()
