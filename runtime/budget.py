"""Where the time goes: stages, percentiles, lateness.

Samples go into preallocated rings, so that recording in the control loop allocates nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from rich.table import Table

from vla.contract import ActionChunk, PolicySpec

# In the order in which an observation passes them. `tick` is one turn of the control loop; `chunk` is
# end to end, from the observation's time to the tick that holds its answer.
STAGES = (
    "capture", "preprocess", "send", "queue", "words", "prefix", "steps",
    "receive", "filter", "write", "tick", "chunk", "lateness",
)  # fmt: skip
_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}


class Ring:
    """The last `capacity` samples of one stage, s."""

    def __init__(self, capacity: int) -> None:
        self._values = np.zeros(capacity)
        self.count = 0

    def put(self, seconds: float) -> None:
        self._values[self.count % len(self._values)] = seconds
        self.count += 1

    def clear(self) -> None:
        self.count = 0

    @property
    def values(self) -> np.ndarray:
        """Shape (min(count, capacity),), s, in no particular order."""
        return self._values[: min(self.count, len(self._values))]


class Budget:
    """The stages of one run.

    The stopwatch is real time even where the loop's clock is simulated: it measures computing.
    Everything up to the first chunk is warm-up and forgotten when that chunk is there.

    Attributes:
        skipped: ticks left out since warm-up.
    """

    def __init__(self, capacity: int = 16384, stopwatch: Callable[[], float] = time.perf_counter) -> None:
        self._rings = {stage: Ring(capacity) for stage in STAGES}
        self._stopwatch = stopwatch
        self._begun = self._marked = stopwatch()
        self._warm = False
        self._skipped_before = self._skipped_now = 0

    def record(self, stage: str, seconds: float) -> None:
        """Add one sample, s. An unknown stage is a KeyError."""
        self._rings[stage].put(seconds)

    def begin(self, lateness: float, skipped: int) -> None:
        """A tick begins, `lateness` s after its time; `skipped` ticks were left out so far."""
        self._begun = self._marked = self._stopwatch()
        self._skipped_now = skipped
        self.record("lateness", lateness)

    def mark(self, stage: str) -> None:
        """The stage that ran since the last mark ends here."""
        now = self._stopwatch()
        self.record(stage, now - self._marked)
        self._marked = now

    def end(self) -> None:
        """The tick ends."""
        self.record("tick", self._stopwatch() - self._begun)

    def answer(self, chunk: ActionChunk, now: float) -> None:
        """A chunk is there at `now`, s on the observation's clock; the first one ends the warm-up."""
        if not self._warm:
            self._warm = True
            self._skipped_before = self._skipped_now
            for ring in self._rings.values():
                ring.clear()
            return
        self.record("chunk", now - chunk.time)
        for stage, seconds in chunk.stages.items():
            if stage in self._rings:  # a server of another version may name stages we do not know
                self.record(stage, seconds)

    @property
    def skipped(self) -> int:
        return self._skipped_now - self._skipped_before

    def to_json(self) -> dict[str, dict[str, float]]:
        """{stage: {p50, p95, p99, max, n}}, in ms; stages without samples are left out."""
        return {stage: _summary(ring) for stage, ring in self._rings.items() if ring.count}


def _summary(ring: Ring) -> dict[str, float]:
    values = np.quantile(ring.values * 1000.0, list(_QUANTILES.values()))
    row: dict[str, float] = {name: float(v) for name, v in zip(_QUANTILES, values, strict=True)}
    row["n"] = ring.count
    return row


def limits(spec: PolicySpec, period: float, replan: float) -> dict[str, float]:
    """What the stages may take, s.

    What the control loop does has to fit into a tick, each stage and all of them together; what the
    policy does into the time after which the next chunk is wanted; a chunk has to be there before the
    one that runs ends. A beat is off when a tick is late by a quarter of a period; one that is late by
    half of it is skipped.
    """
    control = dict.fromkeys(("capture", "send", "receive", "filter", "write", "tick"), period)
    policy = dict.fromkeys(("preprocess", "queue", "words", "prefix", "steps"), replan)
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
