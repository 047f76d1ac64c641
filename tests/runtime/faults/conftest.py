"""A body, a policy that tells the time, and the package of a lab that offers both by name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.faults import body as bodies
from tests.runtime.faults.body import Body


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin")
    info = path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    module = "tests.runtime.faults"
    (info / "entry_points.txt").write_text(
        f"[takt.robots]\nbody = {module}.body:make\n[takt.policies]\nhours = {module}.hours:make\n"
    )
    return path


@pytest.fixture
def body(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Body]:
    """A new body; processes that are started from here find it, and the policy `hours`."""
    with tempfile.TemporaryDirectory(prefix="body-") as folder, bodies.body(Path(folder)) as made:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(bodies.ROOT), str(plugin)]))
        monkeypatch.setenv(bodies.WHERE, folder)
        yield made
