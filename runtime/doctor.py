"""`takt doctor`: what works on this machine, tried rather than looked up, and what to do about the rest.

Every check is a function that returns its rows. What may crash a process (a GL driver) or change its
rights (a real-time priority) is tried in a child.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import zmq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime import bundle
from runtime.doctor_engines import DOUBLE, board, chunks, openvino, tensorrt, tensorrt_rtx
from runtime.finding import Row, first_line
from vla import atomic
from vla.contract import TaktError


@dataclass
class Command:
    """Try what the demo and a robot need on this machine; exits 0 if the demo can run."""

    cameras: str = ""
    """Measure the true rate of these as well: front:v4l2:/dev/video0, as --options cameras= has them."""
    json: Path | None = None
    """Write the findings to this file as well."""

    def run(self) -> int:
        rows = examine() + bodies(self.cameras)
        Console().print(table(rows))
        ready = all(row.status != "fail" for row in rows)
        print("the demo can run here" if ready else "the demo cannot run here: see the rows that failed")
        if self.json is not None:
            findings = {"ok": ready, "checks": [asdict(row) for row in rows]}
            atomic.write_json(self.json, findings, indent=2)
        return 0 if ready else 1


def examine() -> list[Row]:
    """All checks, in the order in which a person would repair things."""
    return [row for check in CHECKS for row in check()]


def bodies(cameras: str) -> list[Row]:
    """What packages with robots look at (entry points `takt.checks`): cameras, those named measured."""
    found = sorted(entry_points(group="takt.checks"), key=lambda entry: entry.name)
    return [row for entry in found for row in entry.load()(cameras)]


def python() -> list[Row]:
    """The interpreter."""
    return [Row("Python", "ok", f"{platform.python_version()}, {sys.executable}")]


def machine() -> list[Row]:
    """System, cores that this process may use, memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return [Row("machine", "ok", f"{platform.platform()}, {cores} cores, {memory:.1f} GiB")]


# Run in a child with MUJOCO_GL set; prints the milliseconds of the best of five small frames.
RENDER = '''
import time, mujoco
model = mujoco.MjModel.from_xml_string("""
  <mujoco>
    <visual><quality offsamples="0"/></visual>
    <worldbody>
      <light pos="0 0 3" castshadow="false"/>
      <geom type="box" size=".1 .1 .1" rgba="1 0 0 1"/>
    </worldbody>
  </mujoco>""")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
best = 1e9
with mujoco.Renderer(model, 96, 96) as renderer:
    for _ in range(5):
        start = time.perf_counter()
        renderer.update_scene(data)
        frame = renderer.render()
        best = min(best, time.perf_counter() - start)
assert frame.max() > 0, "the frame is black"
print(f"{1e3 * best:.1f}")
'''


def rendering() -> list[Row]:
    """A frame drawn off-screen by MuJoCo; one of EGL and OSMesa is enough."""
    if importlib.util.find_spec("mujoco") is None:
        return [Row("MuJoCo", "fail", "not installed: pip install 'takt-vla[sim]'")]
    platforms = ("egl", "osmesa") if sys.platform.startswith("linux") else ("glfw",)
    results = {name: in_child(RENDER, {"MUJOCO_GL": name}) for name in platforms}
    works = [name for name, (status, _) in results.items() if status == 0]
    rows = [
        Row(f"rendering, {name}", "ok", f"{results[name][1]} ms for a frame of 96 x 96") for name in works
    ]
    if not works:
        hint = "; install Mesa: apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"
        rows = [Row(f"rendering, {name}", "fail", said + hint) for name, (_, said) in results.items()]
    return rows


def onnx_runtime() -> list[Row]:
    """A graph really run by each execution provider that this build of ONNX Runtime lists."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        return [Row("ONNX Runtime", "fail", f"{first_line(error)}; pip install 'takt-vla[cpu]'")]
    # Azure's is a client of a remote service and not an engine.
    names = [name for name in ort.get_available_providers() if name != "AzureExecutionProvider"]
    return [run_provider(ort, name) for name in names]


def run_provider(ort: object, name: str) -> Row:
    """Run the small graph by one provider; only the CPU's is needed by the demo."""
    title = f"ONNX Runtime {ort.__version__}, {name.removesuffix('ExecutionProvider')}"  # type: ignore[attr-defined]
    failure: Literal["fail", "warn"] = "fail" if name == "CPUExecutionProvider" else "warn"
    try:
        options = ort.SessionOptions()  # type: ignore[attr-defined]
        options.log_severity_level = 4
        session = ort.InferenceSession(DOUBLE, options, providers=[name])  # type: ignore[attr-defined]
        # A provider that cannot start is replaced by the CPU's without an error.
        if session.get_providers()[0] != name:
            return Row(title, failure, "is listed and does not start: its driver or libraries are missing")
        (y,) = session.run(None, {"x": np.array([1, 2], np.float32)})
    except Exception as error:  # the engine's own exception classes are not public
        return Row(title, failure, first_line(error))
    if not np.array_equal(y, [2, 4]):
        return Row(title, failure, f"gives wrong numbers: 2 * [1, 2] = {y}")
    return Row(title, "ok", "ran a graph")


def real_time() -> list[Row]:
    """The rights that keep a tick on time next to other processes; the demo does without them."""
    if not sys.platform.startswith("linux"):
        return [Row("real-time rights", "warn", "only Linux has them")]
    status, said = in_child("from runtime.realtime import probe; probe()")
    if status != 0:
        return [Row("real-time rights", "warn", said)]
    return [Row(name, "ok" if granted else "warn", detail) for name, granted, detail in json.loads(said)]


def messages(rounds: int = 200) -> list[Row]:
    """The round trip of a small message over loopback, as between a robot and a policy's server."""
    seconds = []
    with zmq.Context() as context, context.socket(zmq.PAIR) as here, context.socket(zmq.PAIR) as there:
        for socket in (here, there):
            socket.linger, socket.rcvtimeo = 0, 2000
        try:
            here.connect(f"tcp://127.0.0.1:{there.bind_to_random_port('tcp://127.0.0.1')}")
            for _ in range(rounds):
                start = time.perf_counter()
                here.send(b"?")
                there.send(there.recv())
                here.recv()
                seconds.append(time.perf_counter() - start)
        except zmq.ZMQError as error:
            return [Row("ZeroMQ", "fail", f"{error} on 127.0.0.1: does a firewall close loopback?")]
    return [Row("ZeroMQ", "ok", f"{1e3 * statistics.median(seconds):.2f} ms a round trip at the median")]


def shipped_bundle() -> list[Row]:
    """The bundle that comes with the package, its files compared with their sha256."""
    path = Path(str(files("vla") / "bundles" / "nano"))
    if not path.is_dir():
        return [Row("shipped bundle", "fail", f"{path} is missing: install the package again")]
    try:
        loaded = bundle.load(path)
    except TaktError as error:
        return [Row("shipped bundle", "fail", str(error))]
    return [Row("shipped bundle", "ok", f"{loaded.spec.name}: {len(loaded.graphs)} graphs, sha256 as listed")]


CHECKS: tuple[Callable[[], list[Row]], ...] = (
    python,
    machine,
    rendering,
    board,
    onnx_runtime,
    openvino,
    tensorrt,
    tensorrt_rtx,
    chunks,
    real_time,
    messages,
    shipped_bundle,
)


def in_child(code: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run Python code in a process of its own: its exit status and the last line that it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return 1, "no answer within 60 s"
    if done.returncode < 0:
        return done.returncode, f"killed by signal {-done.returncode}"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def table(rows: list[Row]) -> Table:
    """The findings for a person."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    grid = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        grid.add_row(Text(row.status, colours[row.status]), row.name, Text(row.detail))
    return grid
