"""Where the time goes: every stage of every tick and chunk, percentiles, lateness.

All of it goes into one ring that is made beforehand, so that recording in the control loop costs a few
microseconds a tick (benchmarks/trace_cost.py) and no memory. `runtime.trace` writes the same ring as a
timeline.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from rich.table import Table

from vla.contract import ActionChunk, PolicySpec

# In the order in which an observation passes them. `step` is one of the denoising steps; `tick` is one
# turn of the control loop; `chunk` is end to end, from the observation's time to the tick that holds its
# answer.
STAGES = (
    "capture", "preprocess", "send", "queue", "words", "prefix", "steps", "step",
    "receive", "filter", "write", "tick", "chunk", "lateness",
)  # fmt: skip
# Those that the control loop runs in every tick, and those of the policy, one after the other for a chunk.
CONTROL = ("capture", "send", "receive", "filter", "write")
POLICY = ("queue", "words", "preprocess", "prefix", "steps")
# What happens at an instant: ticks left out, a tick without a target, an answer that came too late, an
# answer or a message that was refused, the end of the warm-up.
EVENTS = ("skipped", "held", "late", "refused", "warm")
NAMES = STAGES + EVENTS

_ID = {name: i for i, name in enumerate(NAMES)}
_TICK, _CHUNK, _LATENESS, _STEP = (_ID[name] for name in ("tick", "chunk", "lateness", "step"))
_SKIPPED, _WARM = _ID["skipped"], _ID["warm"]
_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}
# The stopwatch and the loop's clock are one and the same unless time is simulated. A smaller difference
# between their readings in one tick, s, is a process that was not running in between.
_SAME_CLOCK = 0.1


class Rows(NamedTuple):
    """Rows of a ring, oldest first; each array has shape (n,).

    Attributes:
        name: index into `NAMES`.
        start: s, on the stopwatch.
        seconds: how long; 0 for an event, the lateness itself for "lateness".
        number: of the tick, of the chunk for what belongs to a chunk, of the ticks left out for "skipped".
    """

    name: np.ndarray
    start: np.ndarray
    seconds: np.ndarray
    number: np.ndarray

    def of(self, name: str) -> Rows:
        """Those of one stage or event."""
        return Rows(*(column[self.name == _ID[name]] for column in self))


class Ring:
    """The last `capacity` rows, in four plain arrays. Lists would be 0.1 us a row faster and keep every
    float as an object: the heap would grow, and with it the page faults (benchmarks/trace_cost.py).

    Attributes:
        count: rows put so far.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._name = array("h", [0]) * capacity
        self._start = array("d", [0.0]) * capacity
        self._seconds = array("d", [0.0]) * capacity
        self._number = array("q", [0]) * capacity
        self.count = 0

    def put(self, name: int, start: float, seconds: float, number: int) -> None:
        i = self.count % self._capacity
        self._name[i] = name
        self._start[i] = start
        self._seconds[i] = seconds
        self._number[i] = number
        self.count += 1

    def each(self, since: int) -> list[tuple[str, float, int]]:
        """(name, s, number) of the rows from number `since` on: quicker than `rows` where they are few."""
        there = range(max(since, self.count - self._capacity), self.count)
        places = [i % self._capacity for i in there]
        return [(NAMES[self._name[i]], self._seconds[i], self._number[i]) for i in places]

    def rows(self, since: int = 0) -> Rows:
        """A copy of the rows from number `since` on, as far as they are still there."""
        kept = np.arange(max(since, self.count - self._capacity), self.count) % self._capacity
        columns: tuple[array, ...] = (self._name, self._start, self._seconds, self._number)
        return Rows(*(np.frombuffer(column, column.typecode)[kept] for column in columns))


class Budget:
    """The stages of one run.

    The stopwatch is real time even where the loop's clock is simulated: it measures computing.
    Everything up to the first chunk is warm-up: it stays in the ring and counts in no percentile.

    Attributes:
        ring: the rows.
        ticks: ticks begun, warm-up included.
        chunks: chunks that arrived, warm-up included.
        skipped: ticks left out since warm-up.
    """

    def __init__(self, capacity: int = 2**17, stopwatch: Callable[[], float] = time.monotonic) -> None:
        """`capacity` is in rows, of which a tick takes seven: two minutes at 200 Hz, ten at 30 Hz."""
        self.ring = Ring(capacity)
        self.ticks = self.chunks = 0
        self._put = self.ring.put
        self._stopwatch = stopwatch
        self._begun = self._marked = stopwatch()
        self._warm: int | None = None  # the first row after the warm-up
        self._skipped_before = self._skipped_now = 0

    def record(self, stage: str, seconds: float) -> None:
        """Add one sample that ends now, s. An unknown stage is a KeyError."""
        self._put(_ID[stage], self._stopwatch() - seconds, seconds, self.ticks)

    def note(self, event: str, count: int = 1) -> None:
        """One of `EVENTS` happens now, in this tick, `count` times; nothing for 0."""
        if count:
            self._put(_ID[event], self._stopwatch(), 0.0, count)

    def begin(self, lateness: float, skipped: int) -> None:
        """A tick begins, `lateness` s after its time; `skipped` ticks were left out so far."""
        self._begun = self._marked = now = self._stopwatch()
        self.ticks += 1
        if skipped != self._skipped_now:
            self._put(_SKIPPED, now, 0.0, skipped - self._skipped_now)
            self._skipped_now = skipped
        self._put(_LATENESS, now, lateness, self.ticks)

    def mark(self, stage: str) -> None:
        """The stage that ran since the last mark ends here."""
        now = self._stopwatch()
        self._put(_ID[stage], self._marked, now - self._marked, self.ticks)
        self._marked = now

    def end(self) -> None:
        """The tick ends."""
        self._put(_TICK, self._begun, self._stopwatch() - self._begun, self.ticks)

    def answer(self, chunk: ActionChunk, now: float) -> None:
        """A chunk is there at `now`, the tick's own s on the observation's clock; the first one ends the
        warm-up. Call it after `end`.
        """
        shift = self._begun - now
        shift = 0.0 if 0 <= shift < _SAME_CLOCK else shift
        seen, asked = self._stopwatch(), chunk.time + shift
        self.chunks += 1
        # In a tick that overran, the answer may come to a question of the same tick.
        self._put(_CHUNK, asked, max(now - chunk.time, 0.0), self.chunks)
        # An answer that does not say when it began is taken to have been there when the tick began; in any
        # case it was made between the question and this moment, whatever another machine's clock says.
        took = sum(chunk.stages.values())
        origin = self._begun - took if chunk.origin is None else min(chunk.origin + shift, seen - took)
        self._stages(chunk, max(origin, asked))
        if self._warm is None:
            self._put(_WARM, seen, 0.0, 1)
            self._warm = self.ring.count
            self._skipped_before = self._skipped_now

    def _stages(self, chunk: ActionChunk, at: float) -> None:
        """The rows of a chunk's stages, one after the other from `at` (s) on."""
        for stage, seconds in chunk.stages.items():
            if stage in POLICY:  # a server of another version may name stages we do not know
                self._put(_ID[stage], at, seconds, self.chunks)
            if stage == "steps":
                begun = at
                for one in chunk.step_seconds:
                    self._put(_STEP, begun, one, self.chunks)
                    begun += one
            at += seconds

    @property
    def skipped(self) -> int:
        return self._skipped_now - self._skipped_before

    def rows(self) -> Rows:
        """The rows after the warm-up; all of them while it lasts."""
        return self.ring.rows(self._warm or 0)

    def to_json(self) -> dict[str, dict[str, float]]:
        """{stage: {p50, p95, p99, max, n}}, in ms, of the samples that are in the ring since the warm-up;
        stages without samples are left out.
        """
        rows = self.rows()
        samples = {stage: rows.seconds[rows.name == _ID[stage]] for stage in STAGES}
        return {stage: _summary(seconds) for stage, seconds in samples.items() if len(seconds)}


def _summary(seconds: np.ndarray) -> dict[str, float]:
    values = np.quantile(seconds * 1000.0, list(_QUANTILES.values()))
    row: dict[str, float] = {name: float(v) for name, v in zip(_QUANTILES, values, strict=True)}
    row["n"] = len(seconds)
    return row


def limits(spec: PolicySpec, period: float, replan: float) -> dict[str, float]:
    """What the stages may take, s.

    What the control loop does has to fit into a tick, each stage and all of them together; what the
    policy does into the time after which the next chunk is wanted; a chunk has to be there before the
    one that runs ends. A beat is off when a tick is late by a quarter of a period; one that is late by
    half of it is skipped.
    """
    control = dict.fromkeys((*CONTROL, "tick"), period)
    policy = dict.fromkeys((*POLICY, "step"), replan)
    chunk = (spec.chunk_length - 1) * spec.dt - replan
    return control | policy | {"chunk": chunk, "lateness": period / 4}


def table(budget: Budget, limits: Mapping[str, float]) -> Table:
    """The budget in plain sight, in ms; the verdict compares p99 with the limit (s)."""
    out = Table(title="latency budget, ms", caption=f"{budget.skipped} ticks skipped")
    for column in ("stage", *_QUANTILES, "budget", "verdict"):
        out.add_column(column, justify="left" if column in ("stage", "verdict") else "right")
    for stage, row in budget.to_json().items():
        numbers = [f"{row[q]:.2f}" for q in _QUANTILES]
        limit = limits.get(stage)
        if limit is None:
            out.add_row(stage, *numbers, "", "")
        else:
            verdict = "ok" if row["p99"] <= limit * 1000.0 else "over"
            out.add_row(stage, *numbers, f"{limit * 1000.0:.2f}", verdict)
    return out
