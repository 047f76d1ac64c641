"""`takt budget`: does a rate hold with these latencies? And the arithmetic by which the planner decides.

chunk      t0 ------------------ ask --------------- end      end = t0 + usable
request                          | latency |                  the answer must be there before the end,
ticks      |    |    |    |    |    |    |    |    |          and whoever asks waits for a tick to do it
rows       0 1 2 3 ...           0 1 2 | 3                    of the next chunk: 0 .. 3 are committed
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from math import ceil, floor
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from runtime import bundle
from runtime.budget import CONTROL, POLICY, STAGES, limits
from vla import atomic
from vla.contract import PolicySpec, TaktError

Profile = Mapping[str, Mapping[str, float]]  # stage -> quantile ("p50", "p99", ...) -> ms

RATE_MOST = 1000  # Hz, what `takt run` takes
CANDIDATES_MOST = 64
WORK = 0.75  # of a period that a tick may compute; the rest is for waking late
LATE = 0.25  # of a period that it may wake late; half of it is a skipped tick
# Sums of times carry rounding, s.
_SAME = 1e-9


def ask_after(replan: float, usable: float, latency: float, period: float) -> float:
    """Seconds into a chunk after which to ask for the next one, >= 0.

    No later than the policy wants (`replan`), and early enough that an answer `latency` s after the
    request finds the chunk still running. The request itself waits up to a `period` for its tick.

    Args:
        usable: s of a chunk that may be executed, (chunk_length - 1) * dt or less.
    """
    return max(0.0, min(replan, usable - latency - period))


def delay_rows(latency: float, dt: float) -> int:
    """Rows of the next chunk that the running plan will have executed when the answer is there: the d of
    real-time chunking (arXiv 2506.07339, section 3).

    Row 0 is for the observation's own time. Until `latency` s later every row i with i * dt <= latency is
    used, and the one after it, because absolute rows interpolate (`ActionChunk.at`, which rounds a time
    just before a row up to it). Without latency nothing is committed.
    """
    return floor(latency / dt + 1e-6) + 2 if latency > 0 else 0


def steps_that_fit(time_left: float, fixed: float, step: float, least: int, most: int) -> int:
    """Denoising steps, from `least` to `most`, that end within `time_left` s; 0 when not even `least` do.

    Args:
        fixed: s of everything that is not a step.
        step: s of one step.
    """
    spare = time_left - fixed + _SAME
    if spare < least * step:
        return 0
    return most if spare >= most * step else max(least, floor(spare / step))


def runs_dry(usable: float, latency: float, period: float) -> bool:
    """Whether ticks find no row although every request is sent as early as it can be.

    An answer is seen `ceil(latency / period)` ticks after its request, and the next request goes out one
    tick later. The plan that runs has to reach up to the tick before the second answer: twice that many
    ticks after its own observation.
    """
    waited = ceil(latency / period - 1e-6) * period
    return 2 * waited > usable + 1e-6


@dataclass(frozen=True)
class Plan:
    """What the planner will do, and whether that holds.

    Attributes:
        reasons: why it does not hold, a line each; none when it does.
        rate: Hz.
        deadline: s that a chunk may take.
        latency: s assumed from an observation to its answer.
        ask: s into a chunk after which the next one is asked for.
        delay_rows, delay_ticks: the d of real-time chunking, in rows of the chunk and in ticks.
        steps: denoising steps that fit into the deadline; 0 when none do.
        candidates: whole samplings one after the other that would fit; a batch may do better.
        rate_most: the largest whole rate that holds with these latencies, Hz; 0 for none.
        stages: stage -> {"budget", "p99", "slack"}, s.
    """

    reasons: tuple[str, ...]
    rate: float
    deadline: float
    latency: float
    ask: float
    delay_rows: int
    delay_ticks: int
    steps: int
    candidates: int
    rate_most: int
    stages: dict[str, dict[str, float]]

    @property
    def feasible(self) -> bool:
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        return {"feasible": self.feasible, **asdict(self), "reasons": list(self.reasons)}


def plan(
    profile: Profile, spec: PolicySpec, rate: float, deadline: float | None = None, steps: int = 1
) -> Plan:
    """The plan for measured latencies; it judges their p99.

    A rate holds when
    - what a tick computes, the sum over its stages or the whole if that is more, takes at most three
      quarters of a period, and ticks wake at most a quarter of a period late;
    - at least one denoising step fits into the deadline beside everything else that a chunk needs;
    - the plan never runs dry (`runs_dry`).

    The latency is that of "chunk", which the loop measures up to the tick that holds the answer; where a
    profile has none, the sum of the stages that a chunk passes.

    Args:
        deadline: s; the policy's replan by default.
        steps: denoising steps that the sampler makes, >= 1.
    """
    cost = {stage: profile.get(stage, {}).get("p99", 0.0) / 1e3 for stage in STAGES}
    deadline = spec.replan if deadline is None else deadline
    fixed = sum(cost[stage] for stage in (*POLICY, "send", "receive") if stage != "steps")
    step = cost["step"] if "step" in profile else cost["steps"] / steps
    latency = cost["chunk"] if "chunk" in profile else fixed + cost["steps"]
    usable = (spec.chunk_length - 1) * spec.dt
    period = 1.0 / rate
    budgets = limits(spec, period, deadline)
    fit = steps_that_fit(deadline, fixed, step, 1, steps)
    reasons = [*_control(cost, period)]
    if not fit:
        reasons.append(f"no denoising step fits: {_ms(fixed + step)} needed, the deadline is {_ms(deadline)}")
    if runs_dry(usable, latency, period):
        reasons.append(
            f"the plan runs dry: a chunk reaches {_ms(usable)} and its successor takes {_ms(latency)}; "
            "at most half of the reach is allowed"
        )
    rates = (
        r
        for r in range(RATE_MOST, 0, -1)
        if not _control(cost, 1 / r) and not runs_dry(usable, latency, 1 / r)
    )
    return Plan(
        reasons=tuple(reasons),
        rate=rate,
        deadline=deadline,
        latency=latency,
        ask=ask_after(spec.replan, usable, latency, period),
        delay_rows=delay_rows(latency, spec.dt),
        delay_ticks=ceil(latency / period - 1e-6),
        steps=fit,
        candidates=steps_that_fit(deadline, fixed, step * steps, 1, CANDIDATES_MOST),
        rate_most=next(rates, 0) if fit else 0,
        stages={
            stage: {"budget": budgets[stage], "p99": cost[stage], "slack": budgets[stage] - cost[stage]}
            for stage in STAGES
            if stage in profile
        },
    )


def _control(cost: Mapping[str, float], period: float) -> list[str]:
    """Why the control loop cannot keep a period, s."""
    reasons = []
    stages = {stage: cost[stage] for stage in CONTROL}
    work = max(sum(stages.values()), cost["tick"])
    if work > WORK * period:
        most = max(stages, key=lambda stage: stages[stage])
        reasons.append(
            f"a tick computes {_ms(work)} of {_ms(WORK * period)} allowed: lower --rate or speed up {most!r}"
        )
    if cost["lateness"] > LATE * period:
        late = f"ticks wake {_ms(cost['lateness'])} late of {_ms(LATE * period)} allowed"
        reasons.append(f"{late}: try takt run --realtime")
    return reasons


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"


def read(path: Path) -> Profile:
    """The latencies in a file: what `takt run --json` or `takt demo --json` wrote, or
    {"latency_ms": {stage: {"p99": ms} or ms}}.

    Raises:
        TaktError: it holds none, or something else than times.
    """
    try:
        data = jsonlib.loads(path.read_text())["latency_ms"]
        profile = {
            stage: {q: float(v) for q, v in row.items()} if isinstance(row, dict) else {"p99": float(row)}
            for stage, row in data.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TaktError(
            f"{path} has no latencies: give what takt run --json or takt demo --json wrote"
        ) from None
    if unknown := sorted(set(profile) - set(STAGES)):
        raise TaktError(f"{path}: no stage {unknown[0]!r}; valid: {', '.join(STAGES)}")
    for stage, row in profile.items():
        if "p99" not in row or not all(0 <= value < float("inf") for value in row.values()):
            raise TaktError(f"{path}: stage {stage!r} needs a 'p99' in ms, 0 or more as all its numbers")
    return profile


def table(plan: Plan) -> Table:
    """Each stage with its budget, for a person, in ms."""
    out = Table(title=f"budget at {plan.rate:g} Hz, ms")
    for column in ("stage", "budget", "p99", "slack"):
        out.add_column(column, justify="left" if column == "stage" else "right")
    for stage, row in plan.stages.items():
        style = "red" if row["slack"] < 0 else None
        out.add_row(stage, *(f"{1e3 * row[c]:.2f}" for c in ("budget", "p99", "slack")), style=style)
    return out


def shipped() -> Path:
    """The bundle that comes with the package."""
    return Path(str(files("vla") / "bundles" / "nano"))


@dataclass
class Command:
    """Whether a rate holds with measured latencies, and what the planner will do; exits 1 if it does not."""

    profile: tyro.conf.Positional[Path]
    """What takt run --json or takt demo --json wrote."""
    rate: float = 30.0
    """Ticks a second."""
    deadline: float | None = None
    """Seconds that a chunk may take; the policy's replan by default."""
    policy: Path | None = None
    """The bundle whose chunks are planned, a folder; the shipped one by default."""
    steps: int | None = None
    """Denoising steps that the policy makes; the bundle's by default."""
    json: Path | None = None
    """Where to write the plan."""

    def run(self) -> int:
        if not (1 <= self.rate <= RATE_MOST and (self.deadline is None or 0 < self.deadline < float("inf"))):
            raise TaktError(f"--rate is from 1 to {RATE_MOST}, --deadline above 0 and finite")
        loaded = bundle.load(self.policy or shipped())
        steps = loaded.steps if self.steps is None else self.steps
        if steps < 1:
            raise TaktError("--steps is at least 1")
        profile = read(self.profile)
        if not profile.keys() & {"chunk", *POLICY}:
            raise TaktError(f"{self.profile} tells nothing of a chunk's latency: run longer")
        made = plan(profile, loaded.spec, self.rate, self.deadline, steps)
        Console().print(table(made))
        print("\n".join(self._lines(made, loaded.spec, steps)))
        if self.json is not None:
            atomic.write_json(self.json, made.to_json(), indent=2)
        return 0 if made.feasible else 1

    def _lines(self, made: Plan, spec: PolicySpec, steps: int) -> list[str]:
        joins = {
            "none": f"policy {spec.name!r} does not continue rows",
            "prefix": f"it continues up to {spec.committed}",
            "guided": "it is guided by them",
        }
        return [
            f"latency assumed   {_ms(made.latency)} (p99)",
            f"asks              {_ms(made.ask)} into a chunk of {_ms((spec.chunk_length - 1) * spec.dt)}",
            f"delay             {made.delay_rows} rows, {made.delay_ticks} ticks; {joins[spec.joining]}",
            f"steps             {made.steps} of {steps} fit into {_ms(made.deadline)}; "
            f"or {made.candidates} candidates one after the other",
            f"largest rate      {made.rate_most} Hz",
            f"{self.rate:g} Hz holds"
            if made.feasible
            else f"{self.rate:g} Hz does not hold: " + "; ".join(made.reasons),
        ]
