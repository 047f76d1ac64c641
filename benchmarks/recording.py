"""What recording costs a control loop: its beat with and without a recorder, in turn, in one run.

Ticks at 30 Hz that do nothing else, with new frames of a moving picture in each. Told are what handing a
tick over takes, how late ticks come with and without, what the recorder's own process computes, what it
drops, and how much is at risk at most.

    python benchmarks/recording.py
"""

from __future__ import annotations

import json as jsonlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _command import main

from runtime import journal_reader, so101
from runtime.clock import MonotonicClock, Ticker
from runtime.machine import machine
from runtime.realtime import without_collections
from runtime.recorder import Recorder
from vla.contract import CameraSpec, Observation, TaktError

RESULTS = Path(__file__).resolve().parent / "results"
RATE = 30.0
# How many cameras, their height and width.
SIZES = {
    "no camera": (0, 0, 0),
    "two of 96x96": (2, 96, 96),
    "one of 480x640": (1, 480, 640),
    "three of 480x640": (3, 480, 640),
}
PICTURES = 32  # that a camera shows in turn


@dataclass
class Command:
    """Measure what recording costs."""

    seconds: float = 10.0
    """Of each kind, with and without."""
    json: Path = RESULTS / "recording.json"
    """Where to write the result."""

    def run(self) -> int:
        if not self.seconds >= 1:
            raise TaktError("--seconds is at least 1")
        load = os.getloadavg()
        rows = {name: measure(self.seconds, *size) for name, size in SIZES.items()}
        report = {"machine": machine(), "load": load, "rate": RATE, "seconds": self.seconds, "cameras": rows}
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        for name, row in rows.items():
            put, late = row["put_us"], row["late_ms"]
            own = row["put_computing_us"]
            print(f"{name}: handing a tick over {put['p50']:.0f} us, p99 {put['p99']:.0f}", end=", ")
            print(f"of it computing {own['p50']:.0f}; recorder {100 * row['recorder_cores']:.0f} % of a core")
            with_, without = (late[each]["p99"] for each in ("recording", "silent"))
            print(f"    lateness p99 {with_:.2f} ms, without a recorder {without:.2f}", end="; ")
            print(f"{row['dropped']} of {row['ticks']} ticks dropped")
        return 0


def measure(seconds: float, count: int, height: int, width: int) -> dict[str, Any]:
    """One kind of robot, with a recorder and without."""
    cameras = tuple(CameraSpec(f"camera{i}", height, width) for i in range(count))
    robot = so101.spec(cameras)
    columns = np.arange(PICTURES + max(width, 1)) * 3 % 256
    shape = (height, width, 3)
    shown = [np.broadcast_to(columns[i : i + width, None], shape).astype(np.uint8) for i in range(PICTURES)]
    films = [{c.name: picture for c in cameras} for picture in shown]
    folder = Path(tempfile.mkdtemp(prefix="takt-recording-"))
    try:
        with Recorder(folder, RATE) as recorder, without_collections():
            recorder.begin(robot, "measure")
            spent = cpu(recorder.pid)
            late, put, own, risk = beat(seconds, films, robot.actions.size, recorder)
            spent = cpu(recorder.pid) - spent
            commit = recorder.end("done")
            silent, *_ = beat(seconds, films, robot.actions.size, None)
        found = journal_reader.read(folder / "000000")
        disk = sum(path.stat().st_size for path in (folder / "000000").iterdir())
    finally:
        shutil.rmtree(folder)
    assert len(found) == commit.rows
    return {
        "ticks": len(late),
        "rows": commit.rows,
        "dropped": commit.dropped,
        "put_us": summary(put * 1e6),
        "put_computing_us": summary(own * 1e6),
        "late_ms": {"recording": summary(late * 1e3), "silent": summary(silent * 1e3)},
        "at_risk_most_s": risk,
        "recorder_cores": spent / seconds,
        "disk_mb_a_minute": disk / 1e6 / seconds * 60,
    }


def beat(
    seconds: float, films: list[dict[str, np.ndarray]], size: int, recorder: Recorder | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """So long at the beat: each tick's lateness, its handing over, what that computed; the most at risk."""
    late, put, own = list[float](), list[float](), list[float]()
    risk = 0.0
    clock = MonotonicClock()
    end = clock.now() + seconds
    for scheduled, now in Ticker(clock, 1.0 / RATE):
        if now >= end:
            return np.array(late), np.array(put), np.array(own), risk
        late.append(now - scheduled)
        # A camera's frame is a new array each time, as a driver makes one.
        frames = {name: pixels.copy() for name, pixels in films[len(late) % PICTURES].items()}
        seen = Observation(now, np.zeros(size, np.float32), frames)
        begun, computed = time.perf_counter(), time.thread_time()
        if recorder is not None:
            recorder.put(now, seen, np.zeros(size), np.zeros(size), "RUNNING")
            risk = max(risk, recorder.at_risk)
        put.append(time.perf_counter() - begun)
        own.append(time.thread_time() - computed)
    raise AssertionError("a ticker ends only when it is left")


def cpu(pid: int) -> float:
    """What a process has computed so far, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summary(values: np.ndarray) -> dict[str, float]:
    p50, p99 = np.quantile(values, [0.5, 0.99])
    return {"p50": float(p50), "p99": float(p99), "max": float(values.max())}


if __name__ == "__main__":
    sys.exit(main(Command))
