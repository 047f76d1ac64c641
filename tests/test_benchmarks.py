"""Benchmarks are run by hand, months apart: that they still find what they use is found here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# One process for all: torch and MuJoCo are loaded once.
LOAD_ALL = """
import runpy, sys, traceback
from pathlib import Path

bad = 0
for script in sorted(Path("benchmarks").glob("[a-z]*.py")):
    sys.path[0] = str(script.parent.resolve())
    try:
        named = runpy.run_path(str(script), run_name="looked_at")
        assert "Command" in named or "main" in named, "it has nothing to run"
    except Exception:
        bad += 1
        print(script, traceback.format_exc(limit=-1))
sys.exit(bad)
"""


def test_every_benchmark_finds_what_it_imports() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD_ALL], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
