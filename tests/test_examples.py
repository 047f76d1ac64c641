"""The examples run as they stand, installed as a newcomer would install them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.client import RemotePolicy
from vla.contract import Observation

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PACKAGES = ("robot_of_my_own", "policy_of_my_own")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which python finds this tree, and both packages installed in a folder of their own."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("examples")
    for package in PACKAGES:  # building writes beside the source
        shutil.copytree(EXAMPLES / package, folder / package)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "installed")]
    subprocess.run([*pip, *offline, *(str(folder / package) for package in PACKAGES)], check=True)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "installed")])}


def finish(environment: dict[str, str], *args: str) -> str:
    """What `python ARGS` prints; it has to end well."""
    done = subprocess.run(
        [sys.executable, *args], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ones_own_robot_obeys_ones_own_policy(environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    flags = ["--robot", "mine", "--policy", "mine", "--seconds", "1", "--json", str(out)]
    finish(environment, "-m", "vla", "run", "fold the arm", *flags)
    loop = json.loads(out.read_text())["loop"]
    assert loop["reason"] == "done" and loop["answered"] > 0
    assert "RUNNING" in [after for _, _, after, _ in loop["states"]]


def test_ones_own_policy_is_served(environment: dict[str, str], tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/mine"
    server = subprocess.Popen(
        [sys.executable, "-m", "vla", "serve", "mine:2.0", "--bind", address], env=environment, cwd=ROOT
    )
    try:
        with RemotePolicy(address, timeout=60.0) as policy:
            state = np.array([0.4, 0.0], np.float32)
            frames = {"top": np.zeros((96, 96, 3), np.uint8)}
            chunk = policy.infer(Observation(time.monotonic(), state, frames, "reach"))
        np.testing.assert_allclose(chunk.actions[0], state)
        np.testing.assert_allclose(chunk.actions[-1], (0.5, 0.1), atol=1e-6)
        assert "fold or reach: 11 rows" in finish(environment, "examples/ask_a_server.py", address)
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_the_gymnasium_example(environment: dict[str, str]) -> None:
    pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium")
    assert finish(environment, "examples/gymnasium_expert.py").count(": done after") >= 4


def test_the_harness_example(environment: dict[str, str], tmp_path: Path) -> None:
    """vla-evaluation-harness, a process of its own, plays tables against the shipped policy."""
    for package in ("mujoco", "gymnasium", "vla_eval", "websockets"):
        pytest.importorskip(package)
    report = tmp_path / "served.json"
    mapping = "examples/mappings/vla_eval_tabletop.json"
    flags = [
        "--protocol",
        "vla-eval",
        "--bind",
        "ws://127.0.0.1:*",
        "--mapping",
        mapping,
        "--json",
        str(report),
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "vla", "serve", "vla/bundles/nano", *flags],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None and "(vla-eval)" in server.stdout.readline()
        while not report.is_file():
            time.sleep(0.05)
        address = json.loads(report.read_text())["address"]
        said = finish(environment, "examples/vla_eval_tabletop.py", address, "3")
        assert "of 3 episodes" in said and "success 0.00" not in said
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_no_example_is_forgotten() -> None:
    """Each is named in this file, or tested with what it belongs to."""
    own = Path(__file__).read_text()
    names = {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"}
    assert {name for name in names if name not in own} <= {"mappings"}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_guide_shows_the_files_themselves(package: str) -> None:
    guide = (ROOT / "docs" / "extending.md").read_text()
    for file in sorted((EXAMPLES / package).iterdir()):
        if file.suffix in (".py", ".toml"):
            assert f"\n{file.read_text()}```\n" in guide, f"docs/extending.md differs from {file.name}"
