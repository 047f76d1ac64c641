from __future__ import annotations

from pathlib import Path

import pytest

from tests import fakes


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the SO-101 with two cameras, front and wrist."""
    return fakes.write_bundle(tmp_path_factory.mktemp("protocols") / "bundle", fakes.arm_spec())
