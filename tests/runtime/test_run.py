"""`takt run` from the outside: a real process, a real child, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.run import make_robot
from tests import fakes
from tests.runtime.test_server import gone
from vla.contract import TaktError

SPEC = fakes.arm_spec()
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_bundle(tmp_path_factory.mktemp("run") / "bundle", SPEC, noise=0.0)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a lab that brings a robot named `paper`."""
    path = tmp_path_factory.mktemp("plugin")
    info = path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[takt.robots]\npaper = robot_io.dryrun:make\n")
    return path


@contextmanager
def takt(plugin: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m vla run ...` in its own process group."""
    path = os.pathsep.join([str(ROOT), str(plugin)])
    process = subprocess.Popen(
        [sys.executable, "-m", "vla", "run", "put the red cube", *args],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_child(process: subprocess.Popen[str]) -> int:
    end = time.monotonic() + 30.0
    while time.monotonic() < end:
        if found := children(process.pid):
            return found[0]
        time.sleep(0.02)
    raise AssertionError("no policy server was started")


def test_a_run_ends_with_its_budget(folder: Path, plugin: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    args = ["--robot", "paper", "--policy", str(folder), "--seconds", "1", "--json", str(out)]
    with takt(plugin, *args) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "latency budget" in output
    data = json.loads(out.read_text())
    assert data["loop"]["reason"] == "done"
    assert {"capture", "prefix", "steps", "queue", "tick", "chunk", "lateness"} <= set(data["latency_ms"])
    assert set(data["latency_ms"]["tick"]) == {"p50", "p95", "p99", "max", "n"}


@pytest.mark.parametrize("delay", [0.0, 0.3, 2.0])
def test_ctrl_c_at_any_moment_leaves_no_process(folder: Path, plugin: Path, delay: float) -> None:
    with takt(plugin, "--robot", "paper", "--policy", str(folder), "--seconds", "60") as process:
        child = wait_for_child(process)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        assert gone(child)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--robot", "nobody", "--policy", "nowhere"], "valid: "),
        (["--robot", "paper", "--policy", "nowhere"], "is not a bundle"),
        (["--robot", "paper", "--policy", "nowhere", "--port", "x"], "takes no option 'port'; it takes none"),
        (["--robot", "paper", "--policy", "nowhere", "--options", "fast"], "each NAME=VALUE, got 'fast'"),
        (["--robot", "paper", "--policy", "nowhere", "--rate", "0"], "--rate is from 1"),
        (["--robot", "paper", "--policy", "nowhere", "--core", "1"], "give both, or neither"),
        (["--robot", "paper", "--policy", "nowhere", "--keys", "keys"], "server at an address"),
        (["--robot", "paper", "--policy", "nobody:hf://a/b"], "nor a policy's name"),
    ],
)
def test_mistakes_are_one_line(plugin: Path, args: list[str], says: str) -> None:
    with takt(plugin, *args) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert says in errors
    assert len(errors.strip().splitlines()) == 1


def test_an_unknown_robot_lists_the_valid_names() -> None:
    with pytest.raises(TaktError, match="valid: "):
        make_robot("nobody")
