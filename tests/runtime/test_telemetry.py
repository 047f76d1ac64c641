"""Nothing that a policy does is noted down for others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
INFER = """
import numpy as np
from runtime.bundle import load
from runtime.engine import OnnxPolicy
from vla.contract import Observation

policy = OnnxPolicy(load("vla/bundles/nano"))
frames = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in policy.spec.cameras}
policy.infer(Observation(0.0, np.zeros(6, np.float32), frames, "touch the red cube"))
"""


def test_an_inference_leaves_nothing_in_a_home(tmp_path: Path) -> None:
    """Where ONNX Runtime may tell what it ran, it keeps an identity and a queue in ~/.cache."""
    kept = ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
    environment = {k: v for k, v in os.environ.items() if k not in kept} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", INFER], cwd=ROOT, env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
