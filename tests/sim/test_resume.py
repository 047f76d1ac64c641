"""A run that was killed, sharded or met a crash has the report of one that was not, but for what crashed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import fakes

ROOT = Path(__file__).parents[2]
FIRST, COUNT = 40, 6
# The tabletop in short, with a seed whose episode raises and one that takes its process with it.
PLUGIN = """
import os
from dataclasses import replace
from sim.tabletop.suite import Scenario, Tabletop

class Shaky(Scenario):
    def lay(self, robot):
        if self.seed == RAISES:
            raise RuntimeError("the table\\nfell over")
        if self.seed == DIES:
            os.abort()
        super().lay(robot)

class Short(Tabletop):
    name = "short"
    def scenarios(self, seed, split, swap):
        found = super().scenarios(seed, split, swap)
        return [Shaky(**{**vars(s), "seconds": 0.4, "settle": min(s.settle, 0.3)}) for s in found]

SUITE = Short()
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a policy that knows nothing and the suites `short` and `shaky`."""
    fakes.write_bundle(tmp_path / "policy", fakes.arm_spec(), noise=0.2)
    for name, raises, dies in (("short", -1, -1), ("shaky", FIRST + 1, FIRST + 3)):
        text = PLUGIN.replace("RAISES", str(raises)).replace("DIES", str(dies))
        (tmp_path / f"{name}_suite.py").write_text(text)
    info = tmp_path / "suites-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: suites\nVersion: 1.0\n")
    points = "[takt.suites]\nshort = short_suite:SUITE\nshaky = shaky_suite:SUITE\n"
    (info / "entry_points.txt").write_text(points)
    return tmp_path


def start(place: Path, *flags: object, suite: str = "short") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vla", "eval", "--suite", suite, "--policy", place / "policy"]
    command += ["--episodes", COUNT, "--seed", FIRST, *flags]
    path = os.pathsep.join([str(place), str(ROOT)])
    return subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(place: Path, *flags: object, suite: str = "short") -> dict[str, Any]:
    process = start(place, *flags, "--json", place / "out.json", suite=suite)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return {**json.loads((place / "out.json").read_text()), "said": out}


def lasting(report: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on how long this machine took."""
    return {k: v for k, v in report.items() if k not in ("latency_ms", "said", "shard")}


def test_a_killed_run_goes_on_and_shards_are_the_whole(place: Path) -> None:
    whole = lasting(run(place))
    journal = place / "journal"
    for _ in range(5):  # on a busy machine all may have been played before anybody looked
        process = start(place, "--journal", journal, "--workers", "2")
        while not journal.is_file() or journal.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = journal.read_bytes()
        done = kept.count(b"\n") - 1
        if done < COUNT:
            break
        journal.unlink()
    assert 2 <= done < COUNT
    assert lasting(run(place, "--journal", journal)) == whole
    # What was there was not played again.
    lines = journal.read_bytes().splitlines()
    assert lines[: done + 1] == kept.splitlines()[: done + 1]
    assert len(lines) == COUNT + 1

    parts = [place / f"part{i}" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        shard = run(place, "--journal", part, "--shard", f"{i}/2")
        assert (shard["shard"], len(shard["episodes"])) == (f"{i}/2", COUNT // 2)
    assert lasting(run(place, "--merge", *parts)) == whole
    half = start(place, "--merge", parts[0])
    assert "3 of 6 seeds are in none of the journals" in half.communicate()[1]
    assert half.returncode == 1


def test_a_crash_is_an_error_of_its_episode(place: Path) -> None:
    plain = run(place)["episodes"]
    report = run(place, "--workers", "2", suite="shaky")
    broken = {e["seed"]: e["error"] for e in report["episodes"] if "error" in e}
    assert broken.keys() == {FIRST + 1, FIRST + 3}
    assert broken[FIRST + 1] == "RuntimeError: the table fell over"
    assert "process died" in broken[FIRST + 3]
    assert report["success"]["n"] == COUNT
    whole = [e for e in report["episodes"] if "error" not in e]
    assert whole == [e for e in plain if e["seed"] not in broken]
    assert "2 ended in an error; the first, seed 41: RuntimeError: the table fell over" in report["said"]


def test_a_run_of_errors_alone_fails(place: Path) -> None:
    process = start(place, "--seed", FIRST + 1, "--episodes", "1", suite="shaky")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "1 ended in an error" in out


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_shard_is_one_line(place: Path, shard: str) -> None:
    process = start(place, f"--shard={shard}")
    assert "--shard is PART/WHOLE" in process.communicate()[1]
    assert process.returncode == 1


def test_a_ray_cluster_plays_the_same_and_loses_no_more(place: Path) -> None:
    pytest.importorskip("ray", reason="pip install ray")
    plain = run(place, "--workers", "2", suite="shaky")
    assert lasting(run(place, "--ray", "local", "--workers", "2", suite="shaky")) == lasting(plain)
    assert "process died" in plain["episodes"][3]["error"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "--ray 127.0.0.1:1: Connection refused"),
        ("ray://localhost:99999", "--ray ray://localhost:99999: "),
        ("?", "--ray ?: "),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(place: Path, address: str, said: str) -> None:
    pytest.importorskip("ray", reason="pip install ray")
    process = start(place, "--ray", address)
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error
