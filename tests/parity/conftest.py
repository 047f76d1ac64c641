"""Folders that LeRobot writes, with its answers, made once a run by the interpreter of .venv-parity.

LeRobot pins its libraries tightly, so it has an environment of its own: `make parity` makes it (and
`make test`). TAKT_PARITY_PYTHON names another interpreter with LeRobot in it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parity import cases
from tests.parity.answers import Answers

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("TAKT_PARITY_PYTHON", ROOT / ".venv-parity" / "bin" / "python"))
Open = Callable[[str], Answers]


def ask(folder: Path, jobs: list[tuple[str, str, str, dict[str, object]]]) -> None:
    """Let LeRobot write its folders and answers under `folder`."""
    if not PYTHON.is_file():
        pytest.skip("LeRobot is not installed: make parity")
    script = Path(__file__).with_name("oracle.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "0"}
    command = [PYTHON, "-W", "ignore", script, folder, json.dumps(jobs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"LeRobot failed: {done.stderr[-3000:]}")


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Answers by name, of cases.TINY."""
    folder = tmp_path_factory.mktemp("lerobot")
    ask(folder, cases.TINY)
    return lambda name: Answers(folder / name)
