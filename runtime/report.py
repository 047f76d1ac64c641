"""`takt report`: a run's latency budget as a picture.

From a trace: the tick's stages against the period, the chunk's against its deadline, the distribution of
the end-to-end latency, and lateness over time with what happened. From a run's JSON, which holds
percentiles only: the first two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tyro
from matplotlib.figure import Figure

from runtime import trace
from runtime.budget import CONTROL, POLICY, Rows
from runtime.plan import read
from vla import atomic
from vla.contract import TaktError

REST = "wire, waiting"  # what of a chunk is no stage: the way there and back, and the wait for a tick
COLOURS = {
    "capture": "#1b4965", "send": "#2f6f8f", "receive": "#5fa8d3", "filter": "#8cc5e3", "write": "#bee3f3",
    "queue": "#c9ada7", "words": "#9a8c98", "preprocess": "#e9c46a", "prefix": "#e07a3f", "steps": "#c8553d",
    REST: "#e3e3e3",
}  # fmt: skip
EVENT_COLOURS = {"skipped": "#c1121f", "held": "#f4a261", "late": "#6a4c93", "refused": "#000000"}
INK, FAINT, LIMIT = "#222222", "#8a8a8a", "#c1121f"
FLOOR = 1e-3  # ms; on a logarithmic axis a tick that is on time has to be somewhere


@dataclass(frozen=True)
class Run:
    """What is drawn.

    Attributes:
        about: "policy", "robot", "rate" (Hz), "deadline" (s), "machine", as far as known.
        cost: stage -> {"p50", "p99"}, ms.
        steps: denoising steps a chunk at the median; 1 where unknown.
        rows: all of them after the warm-up; None where only percentiles are known.
    """

    about: Mapping[str, Any]
    cost: Mapping[str, Mapping[str, float]]
    steps: int = 1
    rows: Rows | None = field(default=None, repr=False)


def load(path: Path) -> Run:
    """A trace, or the JSON of a run.

    Raises:
        TaktError: it is neither.
    """
    try:
        data = json.loads(path.read_text())
    except ValueError:
        raise TaktError(f"{path} is no JSON: give what takt run --trace or --json wrote") from None
    if isinstance(data, dict) and "traceEvents" in data:
        return of_rows(*_read_trace(path))
    about = (
        {key: value for key, value in data.items() if key != "latency_ms"} if isinstance(data, dict) else {}
    )
    return Run(about, {stage: {"p50": row["p99"], **row} for stage, row in read(path).items()})


def _read_trace(path: Path) -> tuple[Mapping[str, Any], Rows]:
    read_back = trace.load(path)
    return read_back.about, read_back.warm()


def of_rows(about: Mapping[str, Any], rows: Rows) -> Run:
    """A run from its rows."""
    cost = {}
    for stage in (*CONTROL, *POLICY, "tick", "chunk", "lateness"):
        if len(seconds := rows.of(stage).seconds):
            p50, p99 = np.quantile(seconds * 1e3, [0.5, 0.99])
            cost[stage] = {"p50": float(p50), "p99": float(p99)}
    samplings = len(rows.of("steps").start)
    steps = round(len(rows.of("step").start) / samplings) if samplings else 1
    return Run(about, cost, max(1, steps), rows)


def draw(run: Run) -> Figure:
    """The picture."""
    series = run.rows is not None and len(run.rows.of("lateness").start) > 1
    figure = Figure(figsize=(11, 9.2 if series else 4.9), layout="constrained")
    figure.suptitle(title(run.about), x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
    shapes: list[Any] = [["tick", "tick"], ["chunk", "chunk"]] + (
        [["latency", "beat"], ["time", "time"]] if series else []
    )
    axes = figure.subplot_mosaic(shapes, height_ratios=[1, 1, 1.25, 1.35][: len(shapes)])
    rate, deadline = run.about.get("rate"), run.about.get("deadline")
    period = 1e3 / rate if rate else None
    _stack(axes["tick"], run, CONTROL, "tick", ("period", period))
    _stack(axes["chunk"], run, POLICY, "chunk", ("deadline", deadline and 1e3 * deadline))
    if run.rows is not None and series:
        chunks, lateness = (run.rows.of(name).seconds * 1e3 for name in ("chunk", "lateness"))
        _histogram(axes["latency"], chunks, "end to end: from the observation to the tick with its answer")
        _exceeded(axes["beat"], lateness, period)
        _over_time(axes["time"], run.rows, period)
    for axis in axes.values():
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=FAINT, labelcolor=INK, labelsize=9)
        for spine in axis.spines.values():
            spine.set_color(FAINT)
    return figure


def title(about: Mapping[str, Any]) -> str:
    """What ran where, as far as that is known."""
    machine = about.get("machine")
    processor = machine.get("processor") if isinstance(machine, dict) else machine
    policy = Path(str(about["policy"])).name if about.get("policy") else None
    parts = [policy and f"policy {policy}", about.get("robot") and f"robot {about['robot']}"]
    parts += [about.get("rate") and f"{about['rate']:g} Hz", processor, about.get("loop_name")]
    return "latency budget: " + (", ".join(str(part) for part in parts if part) or "a run")


def _stack(axis: Any, run: Run, stages: tuple[str, ...], whole: str, limit: tuple[str, float | None]) -> None:
    """Two bars, the stages' p50 and p99 one after the other, against what is allowed, ms."""
    ends = []
    for y, quantile in ((1, "p50"), (0, "p99")):
        known = {stage: run.cost[stage][quantile] for stage in stages if stage in run.cost}
        total = run.cost[whole][quantile] if whole in run.cost else None
        if whole == "chunk" and total is not None:
            known[REST] = max(0.0, total - sum(known.values()))
        at = 0.0
        for stage, ms in known.items():
            pieces = run.steps if stage == "steps" else 1
            style = {"height": 0.62, "color": COLOURS[stage], "ec": "white", "lw": 0.7}
            axis.barh([y] * pieces, ms / pieces, left=at + np.arange(pieces) * ms / pieces, **style)
            if quantile == "p99":
                axis.bar([0], [0], color=COLOURS[stage], label=f"{stage} {ms:.2f}")
            at += ms
        ends.append(max(at, total or 0.0))
        if total is not None:
            axis.plot([total], [y], "D", color=INK, ms=5, zorder=3)
            axis.annotate(f"  whole {total:.2f}", (max(at, total), y), va="center", fontsize=9, color=INK)
        elif at:
            axis.annotate(f"  {at:.2f}", (at, y), va="center", fontsize=9, color=INK)
    name, allowed = limit
    reach = 1.12 * max([*ends, 1e-3])
    if allowed is not None and allowed <= 2.5 * reach:
        reach = max(reach, 1.06 * allowed)
        axis.axvline(allowed, color=LIMIT, lw=1.6)
        axis.annotate(
            f"{name} {allowed:.4g} ms ", (allowed, 1.62), ha="right", va="top", fontsize=9, color=LIMIT
        )
    elif allowed is not None:
        beyond = f"{name} {allowed:.4g} ms →"
        axis.annotate(
            beyond, (1, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=9, color=LIMIT
        )
    axis.set(xlim=(0, reach), ylim=(-0.5, 1.65), yticks=[0, 1], yticklabels=["p99", "p50"], xlabel="ms")
    axis.set_title(
        f"a {whole}: each stage's own p50 and p99; the diamond is the whole",
        loc="left",
        fontsize=10,
        color=INK,
    )
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), frameon=False, fontsize=9, title="p99, ms",
                    title_fontsize=9, alignment="left", handlelength=1.0)  # fmt: skip


def _histogram(axis: Any, values: np.ndarray, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=10, color=INK)
    axis.set(xlabel="ms", ylabel="chunks")
    if not len(values):
        axis.annotate(
            "no chunk after the warm-up", (0.5, 0.5), xycoords="axes fraction", ha="center", color=FAINT
        )
        return
    axis.hist(values, bins=min(40, max(8, len(values) // 4)), color=COLOURS["prefix"], ec="white", lw=0.6)
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        at = float(np.quantile(values, q))
        axis.axvline(at, color=INK, lw=1.2, ls="-" if name == "p50" else "--", label=f"{name} {at:.1f} ms")
    axis.legend(frameon=False, fontsize=9)


def _exceeded(axis: Any, lateness: np.ndarray, period: float | None) -> None:
    """How often a tick was later than so much: the tail is what a beat is about."""
    axis.set_title("share of ticks that were later than ...", loc="left", fontsize=10, color=INK)
    values = np.sort(np.maximum(lateness, FLOOR))
    axis.step(
        values, 1.0 - np.arange(len(values)) / len(values), color=COLOURS["capture"], lw=1.8, where="post"
    )
    axis.set(xscale="log", yscale="log", xlabel="ms", ylabel="share")
    for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        at = float(np.quantile(lateness, q))
        axis.plot([], [], " ", label=f"{name} {at:.3f} ms")
    if period:
        axis.axvline(period / 4, color=LIMIT, lw=1.4)
        place = {"xycoords": axis.get_xaxis_transform(), "ha": "right", "va": "center"}
        axis.annotate(
            f"period / 4 \n{period / 4:.3g} ms ", (period / 4, 0.5), fontsize=9, color=LIMIT, **place
        )
    axis.legend(frameon=False, fontsize=9, handlelength=0, loc="lower left")


def _over_time(axis: Any, rows: Rows, period: float | None) -> None:
    late = rows.of("lateness")
    begun = late.start[0]
    axis.plot(
        late.start - begun,
        np.maximum(late.seconds * 1e3, FLOOR),
        ".",
        ms=2.5,
        color=COLOURS["send"],
        alpha=0.6,
    )
    axis.set(yscale="log", xlabel="s", ylabel="late, ms")
    if period:
        axis.axhline(period / 4, color=LIMIT, lw=1.2)
    found = {name: rows.of(name) for name in EVENT_COLOURS}
    counts = []
    for level, (name, events) in enumerate((n, e) for n, e in found.items() if len(e.start)):
        axis.plot(events.start - begun, np.full(len(events.start), 1.03 + 0.045 * level), "|", ms=7, mew=1.1,
                  color=EVENT_COLOURS[name], transform=axis.get_xaxis_transform(), clip_on=False,
                  label=f"{name} {events.number.sum()}")  # fmt: skip
        counts.append(name)
    said = "lateness over time" + ("" if counts else "; no tick was skipped or held")
    axis.set_title(said, loc="left", fontsize=10, color=INK, pad=6 + 9 * len(counts))
    axis.set_xlim(0, max(late.start[-1] - begun, 1e-3))
    if counts:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), frameon=False, fontsize=9, handlelength=1.0)


@dataclass
class Command:
    """Draw a run's latency budget."""

    run_file: tyro.conf.Positional[Path]
    """What takt run --trace or --json wrote."""
    out: Path = Path("budget.png")
    """The picture: .png, .svg or .pdf."""
    rate: float | None = None
    """Ticks a second, where the file does not say."""
    deadline: float | None = None
    """Seconds that a chunk may take, where the file does not say."""
    json: Path | None = None
    """Where to write what is drawn: the stages' p50 and p99, ms."""

    def run(self) -> int:
        if self.out.suffix not in (".png", ".svg", ".pdf"):
            raise TaktError(f"--out {self.out}: a picture's name ends in .png, .svg or .pdf")
        if not all(v is None or 0 < v < float("inf") for v in (self.rate, self.deadline)):
            raise TaktError("--rate and --deadline are positive")
        run = load(self.run_file)
        given = {"rate": self.rate, "deadline": self.deadline}
        run = Run({**run.about, **{k: v for k, v in given.items() if v}}, run.cost, run.steps, run.rows)
        for name in given:
            value = run.about.get(name)
            if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
                raise TaktError(f"{self.run_file}: its {name!r} is no positive number: give --{name}")
        if not run.cost:
            raise TaktError(f"{self.run_file} has no samples after the warm-up: run longer")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({"svg.hashsalt": "takt"}):
            draw(run).savefig(self.out, dpi=130)
        if self.json is not None:
            atomic.write_json(self.json, {"picture": str(self.out), "latency_ms": run.cost}, indent=2)
        print(f"picture: {self.out.resolve()}")
        return 0
