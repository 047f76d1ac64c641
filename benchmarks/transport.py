"""What it costs to ask a policy in another process: ours, openpi's WebSocket, LeRobot's gRPC.

Three views of 480 x 640 and a state go out, a chunk of 50 x 32 comes back; the policy answers at once, so
what is left is the transport. One run, one machine, client and server in two processes, loopback TCP for all;
the variants take turns, ten questions each, so that a busy moment meets all of them.

    pip install '.[bench]' && pip install --no-deps openpi-client==0.1.2 lerobot==0.4.4
    python benchmarks/transport.py
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json as jsonlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import _transport_peers as peers
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from runtime import keys
from runtime.machine import processor

RESULTS = Path(__file__).resolve().parent / "results"
INSTALL = "pip install '.[bench]' && pip install --no-deps openpi-client==0.1.2 lerobot==0.4.4"
WORDS = "put the red cube in the blue bowl"
TURN = 10  # questions a variant asks in its turn
PACKAGES = (
    "pyzmq",
    "msgpack",
    "simplejpeg",
    "numpy",
    "openpi-client",
    "websockets",
    "lerobot",
    "grpcio",
    "torch",
)
SERVERS: dict[str, Callable[..., None]] = {
    "takt": peers.serve_takt,
    "openpi": peers.serve_openpi,
    "lerobot": peers.serve_lerobot,
    "tcp": peers.serve_tcp,
}
# What each peer imports.
NEEDS = {"openpi": ("openpi_client", "websockets"), "lerobot": ("lerobot", "grpc", "torch")}


@dataclass(frozen=True)
class Variant:
    """A way to ask.

    Attributes:
        kind: "ours", "peer" or "floor".
    """

    name: str
    kind: str
    server: str | None
    client: Callable[..., Any]
    keys: bool = False


VARIANTS = [
    Variant("takt raw", "ours", "takt", peers.ask_takt),
    Variant("takt jpeg", "ours", "takt", partial(peers.ask_takt, frames="jpeg")),
    Variant("takt curve raw", "ours", "takt", peers.ask_takt, keys=True),
    Variant("takt curve jpeg", "ours", "takt", partial(peers.ask_takt, frames="jpeg"), keys=True),
    Variant("openpi websocket", "peer", "openpi", peers.ask_openpi),
    Variant("lerobot grpc", "peer", "lerobot", peers.ask_lerobot),
    Variant("bare tcp socket", "floor", "tcp", peers.ask_tcp),
    Variant("memory copy", "floor", None, peers.ask_memory),
]


@dataclass
class Command:
    """Round trips of one observation and its chunk, by transport."""

    rounds: int = 40
    """Turns of each variant; ten questions a turn."""
    only: list[str] | None = None
    """Names of the variants to measure; all by default."""
    json: Path = RESULTS / "transport.json"
    """Where to write the result."""

    def run(self) -> int:
        wanted = [v for v in VARIANTS if self.only is None or v.name in self.only]
        absent = {v.name: missing for v in wanted if (missing := _missing(v))}
        for name, missing in absent.items():
            print(f"{name} is left out: {missing} is not installed; {INSTALL}", file=sys.stderr)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="takt-")))
            keys.make(folder)
            asks = {v.name: stack.enter_context(_ask(v, folder)) for v in wanted if v.name not in absent}
            report = {**_about(), "rounds": self.rounds, "skipped": absent, **measure(asks, self.rounds)}
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(jsonlib.dumps(report, indent=1) + "\n")
        _print(report)
        return 0


def measure(asks: dict[str, peers.Ask], rounds: int) -> dict[str, Any]:
    """Milliseconds by variant, and how much slower than ours the best peer is."""
    views, state = peers.views(), np.linspace(-1.0, 1.0, peers.STATE).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in asks}
    for turn in range(rounds + 1):  # the first is not counted: everything allocates in it
        for name, ask in asks.items():
            for _ in range(TURN):
                started = time.perf_counter()
                actions = ask(views, state, WORDS)
                took = time.perf_counter() - started
                if turn:
                    times[name].append(1000.0 * took)
            np.testing.assert_array_equal(actions, peers.ANSWER)
    rows = {}
    for variant in VARIANTS:
        if variant.name in times:
            values = np.array(times[variant.name])
            p50, p99 = np.percentile(values, [50, 99])
            rows[variant.name] = {"kind": variant.kind, "p50": p50, "p99": p99, "min": values.min()}
    found = {name: row["p50"] for name, row in rows.items() if row["kind"] == "peer"}
    ratios = {}
    if found:
        best = min(found, key=lambda name: found[name])
        ours = {name: row for name, row in rows.items() if row["kind"] == "ours"}
        ratios = {"best_peer": best, **{name: found[best] / row["p50"] for name, row in ours.items()}}
    return {"round_trip_ms": rows, "faster_than_best_peer": ratios}


def _missing(variant: Variant) -> str:
    return next((n for n in NEEDS.get(variant.server or "", ()) if importlib.util.find_spec(n) is None), "")


@contextmanager
def _ask(variant: Variant, folder: Path) -> Iterator[peers.Ask]:
    """The variant's server as a process of its own, and its client here."""
    if variant.server is None:
        with variant.client(0) as ask:
            yield ask
        return
    options = {"keys": folder} if variant.keys else {}
    command = [sys.executable, __file__, "--serve", variant.server, *map(str, options.values())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            with variant.client(int(child.stdout.readline()), **options) as ask:
                yield ask
        finally:
            child.kill()


def _serve(name: str, folder: str | None = None) -> None:
    def ready(port: int) -> None:
        print(port, flush=True)

    SERVERS[name](ready, **({} if folder is None else {"keys": Path(folder)}))


def _about() -> dict[str, Any]:
    """The machine, the versions, and what is sent."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    machine = {"cpu": processor(), "cores": os.cpu_count(), "system": platform.platform()}
    sent = {"views": {name: list(shape) for name, shape in peers.VIEWS.items()}, "state": peers.STATE}
    sent["bytes"] = sum(int(np.prod(shape)) for shape in peers.VIEWS.values()) + 4 * peers.STATE
    answer = {"actions": [peers.ROWS, peers.ACTIONS]}
    return {
        "machine": {**machine, "python": platform.python_version(), "load": os.getloadavg()[0]},
        "versions": versions,
        "sent": sent,
        "answer": answer,
    }


def _print(report: dict[str, Any]) -> None:
    out = Table(title="round trip of 3 views and a chunk, ms")
    for column in ("transport", "p50", "p99", "best peer / this"):
        out.add_column(column, justify="left" if column == "transport" else "right")
    for name, row in report["round_trip_ms"].items():
        ratio = report["faster_than_best_peer"].get(name)
        out.add_row(name, f"{row['p50']:.2f}", f"{row['p99']:.2f}", "" if ratio is None else f"{ratio:.2f}x")
    Console().print(out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(*sys.argv[2:])
    else:
        sys.exit(tyro.cli(Command).run())
