"""A run as a timeline: the budget's ring as a file that ui.perfetto.dev and chrome://tracing open.

    control loop    |tick                               |tick
                    |capture|send|receive|filter|write| |capture|...        lateness as a counter
                             \\_______                     __^
    policy server                    v queue|words|preprocess|prefix|steps
                                                                    |step|step|...

The format is the Trace Event Format (Google, 2016): "X" a span, "b" and "e" the two ends of a span that
may overlap others, "i" an instant, "C" a counter, "M" a name, "s" "t" "f" the arrow from a question to its
answer. Times are microseconds since the first row, and both processes share the axis.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtime.budget import CONTROL, EVENTS, NAMES, POLICY, Budget, Rows
from vla.contract import TaktError

_LOOP, _SERVER = 1, 2  # "processes"; the loop's one thread is 1, the server's are counted from 1
_ID = {name: i for i, name in enumerate(NAMES)}
_ROUNDING = 2  # ns by which two marks of the same instant may differ

Event = dict[str, Any]


@dataclass(frozen=True)
class Trace:
    """A run that was read back.

    Attributes:
        about: what was said about the run, e.g. "policy", "robot", "rate" (Hz).
        rows: as in the ring, but in the order of time.
    """

    about: dict[str, Any]
    rows: Rows

    def warm(self) -> Rows:
        """The rows that ended after the warm-up; all of them where it never ended."""
        begun = self.rows.of("warm").start
        if not len(begun):
            return self.rows
        later = self.rows.start + self.rows.seconds > begun[0] + 1e-8  # more than rounding
        return Rows(*(column[later] for column in self.rows))


def write(path: Path, budget: Budget, about: Mapping[str, Any] | None = None) -> None:
    """The run in `budget` as a trace, with whatever is known `about` it ("policy", "robot", "rate", ...)."""
    rows = budget.ring.rows()
    data = {"traceEvents": events(rows), "displayTimeUnit": "ms", "otherData": dict(about or {})}
    path.write_text(json.dumps(data, separators=(",", ":")) + "\n")


def load(path: Path) -> Trace:
    """A trace that `write` wrote.

    Raises:
        TaktError: it is not one.
    """
    try:
        data = json.loads(path.read_text())
        found = sorted(_rows_of(data["traceEvents"]))
        about = dict(data["otherData"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TaktError(f"{path} is no trace of takt: give what takt run --trace wrote") from None
    start, name, seconds, number = np.array(found, float).reshape(-1, 4).T
    return Trace(about, Rows(name.astype(int), start, seconds, number.astype(int)))


def _rows_of(events: list[Event]) -> Iterator[tuple[float, int, float, int]]:
    """(start, name, seconds, number) of whatever is a row."""
    open_chunks: dict[int, float] = {}
    for event in events:
        name, phase = event["name"], event["ph"]
        if phase in ("X", "i") and name in _ID:
            number = event["args"]["n"]
            yield event["ts"] / 1e6, _ID[name], event.get("dur", 0.0) / 1e6, number
        elif phase == "C":
            yield event["ts"] / 1e6, _ID["lateness"], event["args"]["ms"] / 1e3, event["args"]["n"]
        elif phase == "b":
            open_chunks[event["id"]] = event["ts"]
        elif phase == "e":
            begun = open_chunks.pop(event["id"])
            yield begun / 1e6, _ID["chunk"], (event["ts"] - begun) / 1e6, event["id"]


def events(rows: Rows) -> list[Event]:
    """The rows as trace events; none for a ring without rows."""
    if not len(rows.name):
        return []
    axis = _Axis(rows)
    server, lanes = _server(axis)
    made = [*_control(axis), *server, *_chunks(axis), *_arrows(axis, lanes)]
    made.sort(key=lambda event: (event["ts"], -event.get("dur", 0.0)))
    return [*_names(max(lanes.values(), default=1)), *made]


@dataclass
class _Axis:
    """The rows with integer ns since the first of them, so that sums are exact."""

    rows: Rows
    begin: np.ndarray = field(init=False)
    end: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        since = self.rows.start - self.rows.start.min()
        self.begin = np.rint(since * 1e9).astype(np.int64)
        self.end = np.rint((since + self.rows.seconds) * 1e9).astype(np.int64)

    def where(self, *names: str) -> np.ndarray:
        """The indices of the rows with one of these names, in the order of the ring."""
        return np.flatnonzero(np.isin(self.rows.name, [_ID[name] for name in names]))

    def event(self, i: int, phase: str, process: int, thread: int = 1) -> Event:
        out = {"name": NAMES[self.rows.name[i]], "ph": phase, "ts": self.begin[i] / 1e3}
        return out | {"pid": process, "tid": thread, "args": {"n": int(self.rows.number[i])}}


def _control(axis: _Axis) -> Iterator[Event]:
    for i in axis.where("lateness"):
        args = {"ms": float(axis.rows.seconds[i]) * 1e3, "n": int(axis.rows.number[i])}
        yield axis.event(i, "C", _LOOP) | {"name": "lateness, ms", "args": args}
    for i in axis.where(*EVENTS):
        yield axis.event(i, "i", _LOOP) | {"s": "t"}
    yield from _nested(axis, axis.where(*CONTROL, "tick"), _LOOP, 1)


def _server(axis: _Axis) -> tuple[list[Event], dict[int, int]]:
    """The policy's spans, and {chunk's number: the lane that it is drawn in}. Two answers of which one was
    given up and came after all may overlap; they are then drawn one below the other."""
    indices = axis.where(*POLICY, "step")
    numbers = axis.rows.number[indices]
    made: list[Event] = []
    lanes: dict[int, int] = {}
    free: list[int] = []  # when each lane is free again, ns
    for number in sorted(set(numbers.tolist()), key=lambda n: axis.begin[indices[numbers == n]].min()):
        block = _steps_cut(axis, indices[numbers == number])
        if not len(block):
            continue
        begin, end = axis.begin[block].min(), axis.end[block].max()
        lane = next((i for i, t in enumerate(free) if t <= begin + _ROUNDING), len(free))
        free[lane : lane + 1] = [int(end)]
        lanes[number] = lane + 1
        made += _nested(axis, block, _SERVER, lane + 1)
    return made, lanes


def _steps_cut(axis: _Axis, block: np.ndarray) -> np.ndarray:
    """A chunk's rows with each step within `steps`, whatever the server claims; none without `steps`, which
    the ring may have lost."""
    step = axis.rows.name[block] == _ID["step"]
    whole = block[axis.rows.name[block] == _ID["steps"]]
    if not len(whole):
        return block[~step]
    for times in (axis.begin, axis.end):
        times[block[step]] = np.minimum(times[block[step]], axis.end[whole[0]])
    return block


def _nested(axis: _Axis, indices: np.ndarray, process: int, thread: int) -> Iterator[Event]:
    """Spans of one thread. They lie in or beside each other but for rounding, which is taken out here."""
    around: list[int] = []  # the ends of the spans that the next one may lie in, ns
    last = 0  # the end of the last one that it does not lie in
    for i in sorted(indices, key=lambda i: (axis.begin[i], -axis.end[i], axis.rows.name[i] == _ID["step"])):
        begin, end = int(axis.begin[i]), int(axis.end[i])
        while around and around[-1] <= begin + _ROUNDING:
            last = around.pop()
        begin = max(begin, last)
        end = max(begin, min([end, *around[-1:]]))
        around.append(end)
        yield axis.event(i, "X", process, thread) | {"ts": begin / 1e3, "dur": (end - begin) / 1e3}


def _chunks(axis: _Axis) -> Iterator[Event]:
    """From the observation to the tick that holds the answer; a question that was given up may overlap."""
    for i in axis.where("chunk"):
        begun = axis.event(i, "b", _LOOP) | {"cat": "chunk", "id": int(axis.rows.number[i])}
        yield begun
        yield begun | {"ph": "e", "ts": axis.end[i] / 1e3}


def _arrows(axis: _Axis, lanes: Mapping[int, int]) -> Iterator[Event]:
    """From the tick that sent a question through the policy to the tick that received the answer."""
    sends, receives, policy = axis.where("send"), axis.where("receive"), axis.where(*POLICY)
    for i in axis.where("chunk"):
        number = int(axis.rows.number[i])
        sent = sends[(axis.begin[sends] >= axis.begin[i]) & (sends < i)][:1]
        made = policy[axis.rows.number[policy] == number][:1]
        received = receives[receives < i][-1:]
        if not (len(sent) and len(made) and len(received)):
            continue  # the ring has gone round in between
        begun = int(axis.begin[made[0]])
        last = min(max(int(axis.begin[received[0]]), begun), int(axis.end[received[0]]))
        times = [int(axis.begin[sent[0]]), begun, last]
        if times != sorted(times):
            continue  # simulated time, or an answer that came within its tick and does not say when it began
        places = [(_LOOP, 1), (_SERVER, lanes[number]), (_LOOP, 1)]
        for phase, at, (process, thread) in zip("stf", times, places, strict=True):
            arrow = {"name": "chunk", "cat": "chunk", "ph": phase, "id": number, "ts": at / 1e3}
            yield arrow | {"pid": process, "tid": thread} | ({"bp": "e"} if phase == "f" else {})


def _names(lanes: int) -> Iterator[Event]:
    """What the viewer calls processes and threads."""
    threads = [(_LOOP, 1, "control loop", "ticks")]
    threads += [
        (_SERVER, 1 + i, "policy server", f"policy {1 + i}"[: None if i else 6]) for i in range(lanes)
    ]
    for process, thread, process_name, thread_name in threads:
        for what, name in (("process_name", process_name), ("thread_name", thread_name)):
            yield {"name": what, "ph": "M", "ts": 0, "pid": process, "tid": thread, "args": {"name": name}}
