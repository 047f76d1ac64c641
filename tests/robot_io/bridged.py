"""The plugin of tests/robot_io/slide, installed for LeRobot's own Python, with limits and a log."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.conftest import PYTHON

ROOT = Path(__file__).parents[2]
LIMITS: dict[str, dict[str, Any]] = {
    "shoulder.pos": {
        "unit": "deg", "lower": -40, "upper": 50, "velocity": 60, "acceleration": 300, "lead": 20,
        "name": "shoulder",
    },
    "elbow.pos": {"unit": "deg", "lower": -60, "upper": 0, "velocity": 90, "acceleration": 400, "lead": 20},
    "x.vel": {"unit": "m/s", "lower": -0.2, "upper": 0.1},
}  # fmt: skip


@dataclass
class Plugin:
    """The robot `slide` as LeRobot finds it, and its log."""

    folder: Path

    @property
    def path(self) -> str:
        """What LeRobot's Python and Takt's search."""
        places = [ROOT, self.folder, ROOT / "tests" / "robot_io" / "slide"]
        return os.pathsep.join([*map(str, places), os.environ.get("PYTHONPATH", "")])

    @property
    def options(self) -> dict[str, str]:
        limits = self.folder / "limits.json"
        limits.write_text(json.dumps(LIMITS))
        places = {"log": self.folder / "log", "trouble": self.folder / "trouble", "limits": limits}
        return {"python": str(PYTHON), "type": "slide", "patience": "3"} | {
            k: str(v) for k, v in places.items()
        }

    def log(self) -> list[list[str]]:
        """[time, what, ...] of all that reached it."""
        try:
            return [row.split() for row in (self.folder / "log").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def told(self) -> list[str]:
        return [row[1] for row in self.log() if row[1] != "action"]

    def actions(self) -> np.ndarray:
        """Shape (N, 4): when, s, and what, in LeRobot's numbers."""
        return np.array([[row[0], *row[2:]] for row in self.log() if row[1] == "action"], float)

    def pid(self) -> int:
        return int(self.log()[0][2])


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Make it known to LeRobot, and the bridge to Takt; skips where there is no LeRobot."""
    if not PYTHON.is_file():
        pytest.skip("LeRobot is not installed: make parity")
    made = Plugin(folder)
    # As pip would have installed them.
    for name, points in (
        ("lerobot_robot_slide", ""),
        ("lab", "[takt.robots]\nlerobot = robot_io.lerobot:make\n[takt.policies]\n"
                "greedy = tests.robot_io.greedy:make\n"),
    ):  # fmt: skip
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
    monkeypatch.setenv("PYTHONPATH", made.path)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(folder / "home"))
    return made
